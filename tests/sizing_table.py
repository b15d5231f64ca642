"""What the collections of docs/explanation/sizing.md cost, reckoned from the rates that it says were measured.

`python -m tests.sizing_table` prints the table that stands there.
"""

import math
import re
from pathlib import Path

DOCUMENT = Path(__file__).parent.parent / "docs" / "explanation" / "sizing.md"
SIZES = {"10 million": 10_000_000, "1 billion": 1_000_000_000}
COPIES = 2
DIMENSION, COMPONENT_BYTES, LINKS = 384, 1, 16
CORES = 16
NODE_BYTES = 40e9
HOURS = 24
_RATE = re.compile(r"^\| `(\w+)` \| ([\d.,]+) ([%\w/ ]+?) \|", re.MULTILINE)


def rates(text: str) -> dict[str, float]:
    """The measured rates by their signs, shares as fractions."""
    return {
        sign: float(value.replace(",", "")) / (100 if unit == "%" else 1) for sign, value, unit in _RATE.findall(text)
    }


def table(measured: dict[str, float]) -> str:
    """The rows of the table, as they stand in the document."""
    rows: dict[str, list[str]] = {}

    def row(name: str, value: str) -> None:
        rows.setdefault(name, []).append(value)

    for n in SIZES.values():
        for name, rate in (("vectors alone", "r_vectors"), ("vectors and predicted queries", "r_queries")):
            worker_hours = n / measured[rate] / (1 - measured["f"]) / 3600
            workers = math.ceil(worker_hours / HOURS)
            row(f"{name}: hours of one worker", f"{worker_hours:,.0f}")
            row(f"{name}: workers to be done in a day", f"{workers:,}")
            row(f"{name}: machines of {CORES} cores for them", f"{math.ceil(workers / CORES):,}")
        row("disk, with one replica", size(COPIES * n * measured["b"]))
        graphs = COPIES * 1.1 * n * (COMPONENT_BYTES * DIMENSION + 8 * LINKS)
        row("memory for the vectors' graphs, with one replica", size(graphs))
        row(f"data nodes that give them {NODE_BYTES / 1e9:.0f} GB each", f"{math.ceil(graphs / NODE_BYTES):,}")
    heading = f"| | {' | '.join(f'{size} documents' for size in SIZES)} |\n|---|{'---|' * len(SIZES)}"
    return "\n".join([heading, *(f"| {name} | {' | '.join(values)} |" for name, values in rows.items())])


def size(n_bytes: float) -> str:
    """Gigabytes or terabytes, two digits that count."""
    unit, value = ("TB", n_bytes / 1e12) if n_bytes >= 1e12 else ("GB", n_bytes / 1e9)
    return f"{value:,.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"


if __name__ == "__main__":
    print(table(rates(DOCUMENT.read_text(encoding="utf-8"))))  # noqa: T201
