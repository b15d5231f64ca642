"""Test collections on disk, in the layout of BEIR (Thakur et al. 2021).

FOLDER/corpus.jsonl         {"_id": …, "title": …, "text": …}      a line per document
FOLDER/queries.jsonl        {"_id": …, "text": …}                  a line per query
FOLDER/qrels/SPLIT.tsv      query-id <tab> corpus-id <tab> score   with a heading
"""

from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from bridge.errors import UsageError


class _QueryLine(msgspec.Struct):
    id: str = msgspec.field(name="_id")
    text: str = ""


@dataclass(frozen=True, slots=True)
class Collection:
    """One split of a collection.

    `queries`: query_id → text, only judged ones, in the file's order. `qrels`: query_id → doc_id →
    grade; 0 and below are judged not relevant.
    """

    name: str
    corpus: Path
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]

    def spread(self, n_queries: int) -> "Collection":
        """The collection with `n_queries` of its queries, at even distances."""
        query_ids = list(self.queries)
        if n_queries >= len(query_ids):
            return self
        chosen = [query_ids[n * len(query_ids) // n_queries] for n in range(n_queries)]
        return replace(
            self,
            queries={query_id: self.queries[query_id] for query_id in chosen},
            qrels={query_id: self.qrels[query_id] for query_id in chosen},
        )


def load_collection(folder: Path, split: str = "test") -> Collection:
    """Reads queries and judgements; the corpus stays on disk, for ingest to stream.

    Raises:
        UsageError: a file is missing or a line of it cannot be read.
    """
    corpus, queries_file, qrels_file = folder / "corpus.jsonl", folder / "queries.jsonl", folder / f"qrels/{split}.tsv"
    for file in (corpus, queries_file, qrels_file):
        if not file.is_file():
            splits = sorted(path.stem for path in folder.glob("qrels/*.tsv"))
            raise UsageError(
                f"collection {folder}: {file.relative_to(folder)} is missing; expected corpus.jsonl, queries.jsonl "
                f"and qrels/{split}.tsv (splits there: {', '.join(splits) or 'none'})"
            )
    qrels = _read_qrels(qrels_file)
    queries = {query_id: text for query_id, text in _read_queries(queries_file) if query_id in qrels}
    unknown = sorted(qrels.keys() - queries.keys())
    if unknown:
        raise UsageError(
            f"{qrels_file}: judges {len(unknown)} queries that {queries_file.name} lacks, first {unknown[0]}"
        )
    return Collection(folder.resolve().name, corpus, queries, {query_id: qrels[query_id] for query_id in queries})


def _read_queries(file: Path) -> list[tuple[str, str]]:
    queries = []
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    query = msgspec.json.decode(line, type=_QueryLine)
                except msgspec.DecodeError as error:
                    raise UsageError(
                        f'{file}:{number}: not a query ({error}); expected {{"_id": …, "text": …}}'
                    ) from error
                queries.append((query.id, query.text))
    return queries


def _read_qrels(file: Path) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            cells = line.rstrip("\n").split("\t")
            if number == 1 and cells[-1] == "score":
                continue
            if len(cells) != 3 or not cells[2].lstrip("-").isdecimal():
                raise UsageError(f"{file}:{number}: expected query-id, corpus-id and a whole number, tab-separated")
            qrels.setdefault(cells[0], {})[cells[1]] = int(cells[2])
    return qrels
