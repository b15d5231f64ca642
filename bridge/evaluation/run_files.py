"""Rankings as files in TREC's run format, which trec_eval and ir-measures read."""

from collections.abc import Mapping, Sequence
from pathlib import Path


def run_file(file: Path, stage: str, *, several: bool) -> Path:
    """Where the run of a stage goes: into `file`, or, of several stages, `NAME-STAGE.SUFFIX` beside it."""
    return file.with_name(f"{file.stem}-{stage}{file.suffix}") if several else file


def write_run(file: Path, rankings: Mapping[str, Sequence[str]], tag: str) -> None:
    """Writes lines of `query_id Q0 doc_id rank score tag`; the score only repeats the order.

    White space in ids, which the format does not allow, becomes an underscore.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8") as lines:
        for query_id, doc_ids in rankings.items():
            for rank, doc_id in enumerate(doc_ids, start=1):
                score = len(doc_ids) - rank + 1
                lines.write(f"{_one_word(query_id)} Q0 {_one_word(doc_id)} {rank} {score} {tag}\n")


def _one_word(name: str) -> str:
    return "_".join(name.split())
