"""Which feature works on which engine, from the last run of `tests/integration/compatibility` on each.

`python -m tests.compatibility_report > docs/reference/compatibility.md` writes the page; runs on other engines are kept
in `var/compatibility.json`.
"""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "var" / "compatibility.json"
TESTS = ROOT / "tests" / "integration" / "compatibility"

Outcomes = dict[str, list[str]]
"""Feature → how each of its tests ended: passed, failed, skipped."""

HEAD = """# Compatibility

What the tests of `tests/integration/compatibility` found on real nodes. At least one test proves each feature. The page
is made from the tests' outcomes: run `scripts/test --elasticsearch tests/integration/compatibility`, then
`python -m tests.compatibility_report > docs/reference/compatibility.md`. Set `BRIDGE_TEST_CLUSTER=http://HOST:PORT` to
run the same tests on another cluster. `neural-bridge doctor URL` prints what your own cluster can do.

Nodes: OpenSearch with its k-NN plugin (Lucene engine), Elasticsearch with a basic licence; one node, no security.

"""
NOTES = """
If an engine has no k-NN (OpenSearch without the plugin, Elasticsearch before 8.12), documents get predicted queries and
weighted terms, and searches are reranked, without vectors. Other versions from OpenSearch 1.3 and Elasticsearch 7.10 on
are expected to work, but are not tested; searches by weighted terms need 7.12.
"""


def keep(ended: Mapping[str, Outcomes]) -> None:
    """Adds the outcomes of a run, by engine; those of engines that it did not meet stay."""
    kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.is_file() else {}
    for engine, outcomes in ended.items():
        kept.setdefault(engine, {}).update(outcomes)
    KEPT.parent.mkdir(exist_ok=True)
    KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def features() -> list[str]:
    """Every feature that a test names, in the order of the tests."""
    found = []
    for file in sorted(TESTS.glob("test_*.py")):
        found += re.findall(r'^@pytest\.mark\.feature\("([^"]+)"\)$', file.read_text(encoding="utf-8"), re.MULTILINE)
    return list(dict.fromkeys(found))


def page(kept: Mapping[str, Outcomes]) -> str:
    """The page as Markdown: a row per feature, a column per engine."""
    engines = sorted(kept, key=_newest_first)
    lines = [f"| feature | {' | '.join(engines)} |", "|---|" + "---|" * len(engines)]
    for feature in features():
        cells = [_cell(kept[engine].get(feature, [])) for engine in engines]
        lines.append(f"| {feature} | {' | '.join(cells)} |")
    return HEAD + "\n".join(lines) + "\n" + NOTES


def _cell(outcomes: list[str]) -> str:
    if not outcomes or set(outcomes) == {"skipped"}:
        return "not tested"
    return "no" if "failed" in outcomes else "yes"


def _newest_first(engine: str) -> tuple[bool, list[int]]:
    name, version = engine.split()[:2]
    return name != "opensearch", [-int(part) for part in version.split(".")]


if __name__ == "__main__":
    if not KEPT.is_file():
        sys.exit("no run has been recorded: scripts/test --elasticsearch tests/integration/compatibility")
    sys.stdout.write(page(json.loads(KEPT.read_text(encoding="utf-8"))))
