"""Files of triples, statement by statement: N-Triples line by line, Turtle by rdflib, which holds a file in memory.

N-Triples: https://www.w3.org/TR/n-triples/.
"""

import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, Literal

import msgspec

from bridge.errors import UsageError
from bridge.records import SourcePosition
from ingest.sources.file_access import Peekable, SourceFile, decompressed
from ingest.sources.json_bytes import lines
from ingest.sources.source import SAMPLE_BYTES, Unreadable

UNTAGGED = "und"
"""The tag of a text without a language (BCP 47: undetermined)."""

_COMPRESSED = (".gz", ".zst")
_TURTLE = (".ttl", ".turtle")

_CODE = r"\\u[0-9A-Fa-f]{4}|\\U[0-9A-Fa-f]{8}"
_IRI = rf"<((?:[^\x00-\x20<>\"{{}}|^`\\]|{_CODE})*)>"
_BLANK = r"(_:[\w:](?:[\w:.·-]*[\w:·-])?)"
_TEXT = rf'"((?:[^"\\\n\r]|\\[tbnrf"\'\\]|{_CODE})*)"(?:\^\^{_IRI}|@([a-zA-Z]+(?:-[a-zA-Z0-9]+)*))?'
_STATEMENT = re.compile(
    rf"[ \t]*(?:{_IRI}|{_BLANK})[ \t]*{_IRI}[ \t]*(?:{_IRI}|{_BLANK}|{_TEXT})[ \t]*\.[ \t]*(?:#.*)?"
)
_ESCAPE = re.compile(rf"{_CODE}|\\.")
_CONTROLS = {"t": "\t", "b": "\b", "n": "\n", "r": "\r", "f": "\f"}

ObjectKind = Literal["iri", "blank", "text"]


class Triple(msgspec.Struct, frozen=True):
    """One statement. Blank nodes begin with `_:` and the number of their file; `language` is set for texts, in lower
    case."""

    subject: str
    predicate: str
    object: str
    kind: ObjectKind
    language: str | None = None


def triples_of(file: SourceFile, number: int, max_bytes: int, max_expanded_bytes: int) -> Iterator[Triple | Unreadable]:
    """The statements of the file of this number, in its order, plain or compressed (gzip, zstd). No line of N-Triples
    may be longer than `max_bytes`, and no compressed file larger than `max_expanded_bytes`.

    Raises:
        UsageError: the name says neither N-Triples nor Turtle, the file cannot be read or is no Turtle, or rdflib is
            not installed.
    """
    path = PurePath(file.name.lower())
    suffix = PurePath(path.stem).suffix if path.suffix in _COMPRESSED else path.suffix
    if suffix != ".nt" and suffix not in _TURTLE:
        raise UsageError(f"{file.name}: expected N-Triples (.nt) or Turtle (.ttl), plain or compressed (.gz, .zst)")
    try:
        with file.open() as content, decompressed(file.name, content, max_bytes=max_expanded_bytes) as stream:
            if suffix in _TURTLE:
                yield from _turtle(file.name, stream, number)
            else:
                yield from _n_triples(file.name, stream, number, max_bytes)
    except OSError as error:
        raise UsageError(f"source file {file.name} cannot be read: {error.strerror or error}") from error


def _n_triples(name: str, stream: Peekable, file_number: int, max_bytes: int) -> Iterator[Triple | Unreadable]:
    for line_number, line in lines(stream, max_bytes):
        if line.startswith(b"#"):
            continue
        try:
            yield _triple(line.decode(), file_number)
        except ValueError as problem:
            reason = f"the line is no N-Triples statement: {problem}"
            yield Unreadable(SourcePosition(name, line_number), "invalid_triple", reason, line[:SAMPLE_BYTES])


def _triple(line: str, file_number: int) -> Triple:
    """Raises ValueError: the line is no statement."""
    found = _STATEMENT.fullmatch(line)
    if found is None:
        raise ValueError('expected <subject> <predicate> <object> . or "text"@en in the object\'s place')
    subject, blank_subject, predicate, iri, blank, text, _, language = found.groups()
    predicate = _iri(predicate)
    subject = _iri(subject) if subject is not None else _blank(blank_subject, file_number)
    if iri is not None:
        return Triple(subject, predicate, _iri(iri), "iri")
    if blank is not None:
        return Triple(subject, predicate, _blank(blank, file_number), "blank")
    return Triple(subject, predicate, _unescaped(text), "text", (language or UNTAGGED).lower())


def _iri(text: str) -> str:
    iri = _unescaped(text)
    if ":" not in iri:
        raise ValueError(f"<{iri}> is no absolute IRI")
    return iri


def _blank(label: str, file_number: int) -> str:
    """Two files may use one label for two nodes."""
    return f"_:{file_number}:{label[2:]}"


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    whole = _ESCAPE.sub(
        lambda found: chr(int(found[0][2:], 16)) if found[0][1] in "uU" else _CONTROLS.get(found[0][1], found[0][1]),
        text,
    )
    whole.encode()  # raises for half a surrogate pair, which is a ValueError
    return whole


def _turtle(name: str, stream: Peekable, file_number: int) -> Iterator[Triple]:
    rdflib = _rdflib()
    graph = rdflib.Graph()
    try:
        graph.parse(data=stream.read(), format="turtle", publicID=f"file:///{PurePath(name).name}")
    except UsageError:
        raise
    except Exception as error:  # rdflib's parser raises whatever its own code runs into
        raise UsageError(f"{name} is no Turtle: {' '.join(str(error).split())[:SAMPLE_BYTES]}") from error

    def named(node: Any) -> str:
        return _blank(f"_:{node}", file_number) if isinstance(node, rdflib.BNode) else str(node)

    for subject, predicate, obj in graph:
        if isinstance(obj, rdflib.Literal):
            yield Triple(named(subject), str(predicate), str(obj), "text", (obj.language or UNTAGGED).lower())
        else:
            yield Triple(
                named(subject), str(predicate), named(obj), "blank" if isinstance(obj, rdflib.BNode) else "iri"
            )


def _rdflib() -> Any:
    try:
        import rdflib  # an optional package, which takes a while to import
    except ImportError as missing:
        raise UsageError(
            "Turtle needs rdflib, which is not installed: pip install 'opensearch-neural-bridge[sources]', or convert "
            "the file to N-Triples"
        ) from missing
    rdflib.NORMALIZE_LITERALS = False  # Typed texts keep their digits.
    return rdflib
