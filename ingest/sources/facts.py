"""Facts as documents: one for each subject of files of triples, with its labels, and its facts in words.

A subject's triples may stand anywhere, and so may the labels of what it speaks of. So the files are first put into a
temporary database, which SQLite sorts on disk: memory stays small, and no file has to be sorted beforehand.
"""

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import lru_cache
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote

import msgspec

from bridge.errors import IngestError
from bridge.records import SourcePosition
from ingest.sources.documents import FieldChoice, document_of
from ingest.sources.file_access import source_files
from ingest.sources.json_bytes import Entry, sized
from ingest.sources.source import Source, SourceItem, Unreadable
from ingest.sources.triples import UNTAGGED, triples_of

TEXT_FIELDS = ("name", "facts")
"""Fields that are embedded unless others are named."""

_LABELS = frozenset(
    {
        "http://www.w3.org/2000/01/rdf-schema#label",
        "http://www.w3.org/2004/02/skos/core#prefLabel",
        "http://schema.org/name",
        "https://schema.org/name",
        "http://xmlns.com/foaf/0.1/name",
    }
)
"""Predicates whose texts name a thing."""

_TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -65536;
CREATE TABLE problem (source TEXT, line INTEGER, kind TEXT, reason TEXT, raw BLOB);
CREATE TABLE fact (subject TEXT, predicate TEXT, object TEXT, kind TEXT, language TEXT);
CREATE TABLE label (iri TEXT PRIMARY KEY, choice INTEGER, text TEXT) WITHOUT ROWID;
"""
_BEST_LABEL = """
INSERT INTO label VALUES (?, ?, ?) ON CONFLICT (iri) DO UPDATE SET choice = excluded.choice, text = excluded.text
WHERE (excluded.choice, excluded.text) < (choice, text)
"""
_OF_BLANKS = "CREATE INDEX of_blanks ON fact (subject) WHERE subject GLOB '_:*'"
_OF_SUBJECTS = "SELECT * FROM fact WHERE subject NOT GLOB '_:*' ORDER BY subject"
_OF_ONE_BLANK = "SELECT * FROM fact WHERE subject = ? AND subject GLOB '_:*'"

_INSERTED = 10_000
"""Triples that are put into the database at once."""

_REMEMBERED = 100_000
"""Labels that are not looked up again."""

_CAPITAL_WITHIN = re.compile(r"(?<=[a-z0-9])[A-Z](?![A-Z])")
_WORD_BREAK = re.compile(r"[_\-+\s]+")


class FactDocuments(Source[None]):
    """The subjects of files of triples, in the order of their IRIs, which are their ids; before them what is no triple.

    A document has `name` (the best label), `label` (by language: `label.en`) and `facts`, a text `capital: Paris` for
    each. Blank nodes are no documents: their facts stand in brackets with those who speak of them.
    """

    def __init__(
        self,
        patterns: Sequence[str],
        fields: FieldChoice,
        *,
        languages: Sequence[str] = (),
        max_doc_bytes: int,
        max_expanded_bytes: int,
    ) -> None:
        """`patterns` are paths, globs or URLs; ids are IRIs, whatever `fields` says of them. `languages`: those of
        labels and texts, best first, all if it is empty; `en` stands for `en-GB` too, and texts without a language
        always count.

        Raises:
            UsageError: a file does not exist, is a folder, cannot be reached, or a glob matches nothing.
        """
        self._files = source_files(patterns)
        self._fields = fields
        self._languages = [language.lower() for language in languages]
        self._max_doc_bytes = max_doc_bytes
        self._max_expanded_bytes = max_expanded_bytes
        self.resumable = all(file.identity for file in self._files)
        chosen = f" in {', '.join(self._languages)}" if languages else ""
        self.identity = "; ".join(file.identity or file.name for file in self._files) + chosen

    def parts(self) -> Sequence[None]:
        """See `Source`."""
        return [None]

    def read(self, part: None) -> Iterator[SourceItem]:
        """See `Source`.

        Raises:
            IngestError: there is no room for the temporary database.
        """
        with TemporaryDirectory(prefix="neural-bridge-facts-") as folder:
            # The generator may be closed by another thread than the one that reads.
            path = Path(folder) / "facts.sqlite"
            try:
                with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as database:
                    self._fill(database)
                    yield from _problems(database)
                    yield from self._documents(database)
            except sqlite3.Error as error:
                raise IngestError(
                    f"the facts cannot be sorted in {folder} ({error}): that takes about three times the size of the "
                    f"files; free the disk, or name another folder with TMPDIR"
                ) from error

    def total(self) -> None:
        """See `Source`."""

    def _fill(self, database: sqlite3.Connection) -> None:
        labels: list[tuple[object, ...]] = []

        def facts() -> Iterator[tuple[str, ...]]:
            for number, file in enumerate(self._files):
                for each in triples_of(file, number, self._max_doc_bytes, self._max_expanded_bytes):
                    if isinstance(each, Unreadable):
                        at = each.position
                        problem = (at.source, at.offset, each.kind, each.reason, each.raw)
                        database.execute("INSERT INTO problem VALUES (?, ?, ?, ?, ?)", problem)
                    elif (choice := self._choice(each.language)) is None:
                        yield (each.subject, "", "", "", "")  # The thing exists all the same.
                    else:
                        if each.kind == "text" and each.predicate in _LABELS and each.object.strip():
                            labels.append((each.subject, choice, each.object))
                        yield (each.subject, each.predicate, each.object, each.kind, each.language or "")

        database.executescript(_TABLES)
        database.execute("BEGIN")
        rows = facts()
        batch: list[tuple[str, ...]] | None = None
        while batch != []:
            batch = list(islice(rows, _INSERTED))
            database.executemany("INSERT INTO fact VALUES (?, ?, ?, ?, ?)", batch)
            database.executemany(_BEST_LABEL, labels)
            labels.clear()
        database.execute("COMMIT")
        database.execute(_OF_BLANKS)

    def _choice(self, language: str | None) -> int | None:
        """How good a language is, 0 the best; None if it is not taken."""
        if language is None:
            return 0
        for place, wanted in enumerate(self._languages):
            if language == wanted or language.startswith(f"{wanted}-"):
                return place
        if language == UNTAGGED:
            return len(self._languages)
        if self._languages:
            return None
        return 1 if language.partition("-")[0] == "en" else 2

    def _documents(self, database: sqlite3.Connection) -> Iterator[SourceItem]:
        words = _Words(database)
        name = "; ".join(file.name for file in self._files)
        subjects = groupby(database.execute(_OF_SUBJECTS), itemgetter(0))
        for number, (subject, rows) in enumerate(subjects, 1):
            position = SourcePosition(name, number)
            labels: dict[str, set[str]] = {}
            facts: set[str] = set()
            size = 0
            for _, predicate, value, kind, language in rows:
                if kind == "text" and predicate in _LABELS:
                    labels.setdefault(language, set()).add(value)
                elif kind and size <= self._max_doc_bytes:  # More of them only make it larger still.
                    fact = words.fact(predicate, value, kind)
                    size += len(fact)
                    facts.add(fact)
            body = msgspec.json.encode(
                {"name": words.of(subject), "label": _by_language(labels), "facts": sorted(facts)}, order="sorted"
            )
            entry = sized(Entry(position, body, subject), self._max_doc_bytes)
            yield document_of(entry, self._fields) if isinstance(entry, Entry) else entry


def _problems(database: sqlite3.Connection) -> Iterator[SourceItem]:
    for source, line, kind, reason, raw in database.execute("SELECT * FROM problem ORDER BY rowid"):
        yield Unreadable(SourcePosition(source, line), kind, reason, raw)


def _by_language(labels: Mapping[str, set[str]]) -> dict[str, str | list[str]]:
    return {language: min(texts) if len(texts) == 1 else sorted(texts) for language, texts in labels.items()}


class _Words:
    """Things and facts in words."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self.of = lru_cache(_REMEMBERED)(self._of)

    def fact(self, predicate: str, value: str, kind: str, *, within: bool = False) -> str:
        """Such as `capital: Paris`; a blank node is its facts in brackets, one `within` another is left out."""
        if kind == "blank":
            rows = [] if within else self._database.execute(_OF_ONE_BLANK, [value])
            inner = {self.fact(p, v, k, within=True) for _, p, v, k, _ in rows if k and k != "blank"}
            value = f"({'; '.join(sorted(inner))})"
        elif kind == "iri":
            value = self.of(value)
        return f"{self.of(predicate)}: {value}"

    def _of(self, iri: str) -> str:
        """A thing's label, or else the last part of its IRI, as words."""
        found = self._database.execute("SELECT text FROM label WHERE iri = ?", [iri]).fetchone()
        if found:
            return str(found[0])
        last = re.split(r"[/#:]", iri.rstrip("/#:"))[-1]
        split = _CAPITAL_WITHIN.sub(lambda capital: f" {capital[0].lower()}", unquote(last))
        return _WORD_BREAK.sub(" ", split).strip() or iri
