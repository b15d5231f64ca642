"""Test collections on disk, in the layout of BEIR (Thakur et al. 2021).

FOLDER/corpus.jsonl         {"_id": …, "title": …, "text": …}      a line per document
FOLDER/queries.jsonl        {"_id": …, "text": …}                  a line per query
FOLDER/qrels/SPLIT.tsv      query-id <tab> corpus-id <tab> score   with or without a heading

Titles may be missing, ids may be numbers, documents may be empty, and a judgement file may also be as TREC has
it (query 0 document grade).
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from bridge.errors import UsageError
from bridge.evaluation.judged_queries import HIGHEST_GRADE, JudgedQueries
from bridge.text import decode


class _Query(msgspec.Struct):
    id: str | int = msgspec.field(name="_id")
    text: str


class _Document(msgspec.Struct):
    id: str | int | None = msgspec.field(name="_id", default=None)
    title: object = ""
    text: object = ""


@dataclass(frozen=True, slots=True)
class Collection:
    """One split of a collection. `n_documents`: lines of the corpus; `digest`: of its bytes, 12 hex digits."""

    name: str
    corpus: Path
    n_documents: int
    digest: str
    judged: JudgedQueries


def load_collection(folder: Path, split: str = "test") -> Collection:
    """Reads queries and judgements. Counts and hashes the corpus without keeping it in memory, because ingest streams
    it.

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
    name = folder.resolve().name
    judged = JudgedQueries.joined(f"{name}, {split}", read_queries(queries_file), read_qrels(qrels_file))
    n_documents, digest, own_documents = _look_through(corpus, judged.queries)
    return Collection(name, corpus, n_documents, digest, replace(judged, own_documents=own_documents))


def read_queries(file: Path) -> dict[str, str]:
    """Queries of a `queries.jsonl`, by id.

    Raises:
        UsageError: a line is no query.
    """
    queries: dict[str, str] = {}
    for number, line in _lines(file):
        try:
            query = decode(line, _Query)
        except msgspec.DecodeError as error:
            raise UsageError(f'{file}:{number}: not a query ({error}); expected {{"_id": …, "text": …}}') from error
        put_query(queries, str(query.id), query.text, f"{file}:{number}")
    return queries


def put_query(queries: dict[str, str], query_id: str, text: str, where: str) -> None:
    """Adds a query.

    Raises:
        UsageError: there is one of this id with another text.
    """
    if queries.setdefault(query_id, text) != text:
        raise UsageError(f"{where}: query {query_id} is there already, with another text: give each an id of its own")


def read_qrels(file: Path) -> dict[str, dict[str, int]]:
    """Judgements by query_id and doc_id: three columns as BEIR has them, or TREC's four.

    Raises:
        UsageError: a line has other columns, or a grade is no whole number, or beyond `HIGHEST_GRADE`.
    """
    qrels: dict[str, dict[str, int]] = {}
    for number, line in _lines(file):
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        cells = text.split("\t") if "\t" in text else text.split()
        grade = _grade(cells[-1])
        if grade is None and number == 1:
            continue  # the heading
        if len(cells) not in (3, 4) or grade is None:
            raise UsageError(
                f"{file}:{number}: expected query-id, corpus-id and a whole number (at most {HIGHEST_GRADE:,}), "
                f"tab-separated, or TREC's four columns; found {text[:80]!r}"
            )
        qrels.setdefault(cells[0].strip(), {})[cells[-2].strip()] = grade
    return qrels


def read_documents(corpus: Path) -> Iterator[tuple[str, str, str]]:
    """doc_id, title and text of each line that has an id. A title or text that is not a string is empty."""
    for _, document in _documents(corpus):
        if document.id is not None:
            title, text = (each if isinstance(each, str) else "" for each in (document.title, document.text))
            yield str(document.id), title, text


def _look_through(corpus: Path, queries: Mapping[str, str]) -> tuple[int, str, frozenset[str]]:
    """Number of documents, digest of the bytes, and the queries that are documents under the same id."""
    digest = hashlib.sha256()
    n_documents = 0
    own_documents = set()
    for line, document in _documents(corpus):
        digest.update(line)
        n_documents += 1
        doc_id = str(document.id)
        if doc_id in queries and document.text == queries[doc_id]:
            own_documents.add(doc_id)
    return n_documents, digest.hexdigest()[:12], frozenset(own_documents)


def _documents(corpus: Path) -> Iterator[tuple[bytes, _Document]]:
    """Each line that is not blank, and its document: an empty one if it has none, since ingest says what is wrong."""
    for _, line in _lines(corpus):
        try:
            yield line, decode(line, _Document)
        except msgspec.DecodeError:
            yield line, _Document()


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines that are not blank, without a byte order mark."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if content.strip():
                yield number, content


def _grade(cell: str) -> int | None:
    """An integer, also if written as 1.0; None for anything else, and beyond `HIGHEST_GRADE`."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return int(value) if value.is_integer() and abs(value) <= HIGHEST_GRADE else None
