"""Makes a built-in model again, by the commands of `neural-bridge` behind its card in docs/explanation/models.md.

    scripts/make-model rerank-base --pairs PAIRS --base all-MiniLM-L6-v2 --collection scifact --out OUT

The finished model is in OUT/NAME. Teachers are fetched beforehand with `neural-bridge models fetch`. The machine's
speed and number of threads enter into the weights: what comes out is the like of what ships, not its bytes.
"""

import gzip
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import click

from bridge.cli import cli

_TRAIN = "--data {pairs} {collections} --base {base} --size {size} --out {out}"
_BGE, _E5 = "--teacher BAAI/bge-small-en-v1.5", "--teacher intfloat/e5-small-v2"
_ABOUT = "--name {name} --licence Apache-2.0"
_SMALL = "models quantize {out}/float {out}/{name} --texts {texts}"

COMMANDS: dict[str, list[str]] = {
    "embed-base": [
        f"train encoder {_TRAIN}/run {_BGE} {_E5} --base-share 0.5",
        f"models export {{out}}/run/model {{out}}/float --kind encoder {_ABOUT}",
        _SMALL,
    ],
    "embed-static": ["models static {base} {out}/{name} --name {name} --dimension {dimension} {files}"],
    "rerank-base": [
        f"train cross-encoder {_TRAIN}/first",
        f"train cross-encoder {_TRAIN}/run --start {{out}}/first/model {_BGE}",
        f"models export {{out}}/run/model {{out}}/float --kind cross_encoder {_ABOUT}",
        f"{_SMALL} --keep-tokens 0.4",
    ],
    "rerank-tiny": [
        f"train cross-encoder {_TRAIN}/run --shape tiny {_BGE}",
        f"models export {{out}}/run/model {{out}}/float --kind cross_encoder {_ABOUT}",
        _SMALL,
    ],
    "sparse-tiny": [
        f"models export {{base}} {{out}}/float --kind sparse_encoder {_ABOUT} --texts {{texts}}",
        _SMALL,
    ],
    "doc2query-small": [
        f"train query-generator {_TRAIN}/run",
        f"models export {{out}}/run/model {{out}}/{{name}} --kind query_generator {_ABOUT} --max-tokens 160",
    ],
}
"""Of each built-in model, in order. `base` is a transformers folder; of embed-static it is the encoder, of sparse-tiny
splade-tiny."""

_TEXTS_OF_A_FILE = 2_000


@click.command()
@click.argument("name", type=click.Choice(sorted(COMMANDS)))
@click.option("--pairs", required=True, type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--collection", "collections", multiple=True, help="Test collection whose train split to learn from.")
@click.option("--base", required=True, help="What it starts from.")
@click.option("--size", type=click.Choice(["smoke", "cpu", "gpu"]), default="cpu", show_default=True)
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("--only-show", is_flag=True, help="Print the commands and run none.")
def make(
    name: str, pairs: Path, collections: tuple[str, ...], base: str, size: str, out: Path, only_show: bool
) -> None:
    """Makes the built-in model NAME from pairs of query and passage."""
    files = sorted([*pairs.glob("*.jsonl"), *pairs.glob("*.jsonl.gz")])
    if not files:
        raise click.UsageError(f"--pairs {pairs}: expected NAME.jsonl or NAME.jsonl.gz in it")
    texts = out / "texts.jsonl"
    if not only_show:
        out.mkdir(parents=True, exist_ok=True)
        texts.write_text("".join(_in_turn(files)), encoding="utf-8")
    values = {
        "pairs": pairs,
        "collections": [word for folder in collections for word in ("--collection", folder)],
        "base": base,
        "size": size,
        "out": out,
        "name": name,
        "texts": texts,
        "dimension": 4 if size == "smoke" else 256,
        "files": [word for file in files for word in ("--texts", str(file))],
    }
    for command in COMMANDS[name]:
        words = [word for part in command.split() for word in _filled(part, values)]
        click.echo(f"neural-bridge {' '.join(words)}")
        if not only_show:
            cli.main(args=words, prog_name="neural-bridge", standalone_mode=False)


def _filled(part: str, values: dict[str, object]) -> list[str]:
    """The words of one part of a command: several if it is a list's name."""
    value = values.get(part.strip("{}"))
    return value if isinstance(value, list) else [part.format(**values)]


def _in_turn(files: list[Path]) -> Iterator[str]:
    """The first lines of the files, one of each in turn, so that a few of them are of every kind; lines of relevant
    pairs only."""
    opened = [(gzip.open if file.suffix == ".gz" else open)(file, "rt", encoding="utf-8") for file in files]
    streams = [islice((line for line in file if json.loads(line).get("label", 1)), _TEXTS_OF_A_FILE) for file in opened]
    while streams:
        for stream in list(streams):
            line = next(stream, None)
            if line is None:
                streams.remove(stream)
            else:
                yield line.rstrip("\n") + "\n"
    for file in opened:
        file.close()


if __name__ == "__main__":
    make()
