"""Rows of a database as documents: a column is a field, and a text of words can be made of the whole row.

A table changes while it is read, so its rows cannot be counted off. With a watermark, a column that grows with each
change, rows are read in its order, and the next reading begins at its last value, with that value: rows may share it.
Without one, every run reads all rows.
"""

import difflib
import ipaddress
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import islice
from string import Formatter
from typing import Any

import msgspec

from bridge.errors import UsageError
from bridge.records import Document, SourcePosition
from bridge.text import digest
from ingest.sources.database import PLACEHOLDER, Database, UnplacedTime
from ingest.sources.documents import FieldChoice, document_of
from ingest.sources.json_bytes import Entry, sized
from ingest.sources.source import SAMPLE_BYTES, Source, SourceItem, Unreadable

DEFAULT_LAG = 300.0
"""Longer than most transactions take: a row gets its watermark before others can see it."""

_MARKS: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "decimal": Decimal,
    "str": str,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
}
"""How a watermark is read from its text, by the name of its type."""

_TOMORROW = timedelta(days=1)
"""A clock without a zone may be ahead of UTC by that much."""


@dataclass(frozen=True, slots=True)
class RowChoice:
    """Which rows are read, and what is made of them.

    `text_template` names columns in braces, None stands for a line `column: value` for each; the text becomes the field
    `text_field`, None makes no text. Of rows with a `watermark`, those from `lag` before the last one on are read again
    (seconds of a time, units of a number); None stands for `DEFAULT_LAG`.
    """

    query: str
    watermark: str | None = None
    lag: float | None = None
    text_template: str | None = None
    text_field: str | None = None


class RowDocuments(Source[str | None]):
    """The rows of one query. Its only part is its beginning."""

    def __init__(self, database: Database, choice: RowChoice, fields: FieldChoice, *, max_doc_bytes: int) -> None:
        """`fields` names columns.

        Raises:
            UsageError: the database refuses the query; a column that `choice` or `fields` name is none of its columns,
                or one has the name of the field that is made; the template cannot be read.
            SourceUnreachable: no connection.
        """
        self._database = database
        self._choice = choice
        self._fields = fields
        self._max_doc_bytes = max_doc_bytes
        self.text_fields = tuple(fields.text_fields)
        columns = database.columns(choice.query)
        self._template = _template(choice.text_template)
        others = [choice.watermark, fields.routing_field, *fields.rename, *fields.drop]
        named = [fields.id_field, *filter(None, others), *(name for _, name in self._template if name)]
        require_columns(named, columns)
        made = choice.text_field
        if made is not None and made in {fields.rename.get(name, name) for name in columns if name not in fields.drop}:
            raise UsageError(
                f"the query has a column {made} already: name the field of the text otherwise (--text-field)"
            )
        read_from = f"{database.address}: {' '.join(choice.query.split())}"
        self.origin = digest(read_from.encode())
        """Names the rows, whatever is made of them."""
        self.identity = f"{read_from} ({digest(msgspec.json.encode([choice, fields]))})"
        self.resumable = choice.watermark is not None

    def parts(self) -> Sequence[str | None]:
        """See `Source`."""
        return [None]

    def read(self, part: str | None) -> Iterator[SourceItem]:
        """See `Source`; `part` is a mark, None reads all rows.

        Raises:
            SourceUnreachable: no connection, or it was lost.
        """
        query, value = self._choice.query, None
        begin = None if part is None else _value_of(part)
        if (watermark := self._choice.watermark) is not None:
            column = self._database.quoted(watermark)
            newer = f"WHERE {column} >= {PLACEHOLDER} OR {column} IS NULL " if part is not None else ""
            query = self._database.wrapped(query, f"{newer}ORDER BY {column}")
            value = None if part is None else _earlier(begin, self._choice.lag)
        mark = part
        with self._database.reading(query, value) as (names, rows):
            for number, row in enumerate(rows, 1):
                values = dict(zip(names, row, strict=True))
                if watermark is not None:
                    reached = _mark_of(values[watermark], watermark)
                    if reached is not None and not _is_before(values[watermark], begin):
                        mark = reached
                yield self._item(SourcePosition(self._database.address, number, mark), values)

    def items(self, skip: int = 0, mark: str | None = None) -> Iterator[SourceItem]:
        """See `Source`."""
        return self.read(mark) if self.resumable else islice(self.read(None), skip, None)

    def total(self) -> None:
        """See `Source`."""

    def keys(self) -> Iterator[str]:
        """The ids of all rows that have one, as documents have them.

        Raises:
            UsageError, SourceUnreachable: as `read` says.
        """
        column = self._database.quoted(self._fields.id_field)
        with self._database.reading(self._database.wrapped(self._choice.query, "", column)) as (_, rows):
            for (value,) in rows:
                try:
                    key = words(_json(value))
                except (TypeError, ValueError):  # That row became a dead letter.
                    continue
                if key:
                    yield key

    def _item(self, position: SourcePosition, values: dict[str, Any]) -> SourceItem:
        cells = {}
        try:
            for name, value in values.items():
                cells[name] = _json(value)
        except (TypeError, ValueError) as problem:
            reason = f"column {name} is no JSON: {problem}"
            raw = repr(values).encode(errors="backslashreplace")[:SAMPLE_BYTES]
            key = cells.get(self._fields.id_field)
            return Unreadable(position, "invalid_row", reason, raw, words(key) if key else None)
        if self._choice.text_field is not None:
            cells[self._choice.text_field] = _json(self._text(values, cells))
        body = b"{" + b",".join(_json(name) + b":" + cell for name, cell in cells.items()) + b"}"
        entry = sized(Entry(position, body), self._max_doc_bytes)
        item = document_of(entry, self._fields) if isinstance(entry, Entry) else entry
        return msgspec.structs.replace(item, origin=self.origin) if isinstance(item, Document) else item

    def _text(self, values: Mapping[str, Any], cells: Mapping[str, bytes]) -> str:
        if self._template:
            return "".join(before + (words(cells[name]) if name else "") for before, name in self._template)
        # Ids say nothing, and a new watermark alone makes no new text.
        silent = {self._fields.id_field, self._fields.routing_field, self._choice.watermark}
        return "\n".join(
            f"{name}: {words(cell)}"
            for name, cell in cells.items()
            if name not in silent and cell != b"null" and not isinstance(values[name], bytes | bytearray | memoryview)
        )


def require_columns(named: Iterable[str], columns: Sequence[str]) -> None:
    """Checks that a query has all columns that are named.

    Raises:
        UsageError: it lacks one; the nearest one is named.
    """
    for name in named:
        if name not in columns:
            nearest = difflib.get_close_matches(name, columns, n=1)
            meant = f"did you mean {nearest[0]}?" if nearest else f"it has {', '.join(columns)}"
            how = ", which --id-field names" if name == FieldChoice().id_field else ""
            raise UsageError(f"the query has no column {name}{how}: {meant}")


def words(value: bytes) -> str:
    """A JSON value as it reads in a text: null is empty, an array is its elements, numbers keep their digits."""
    if value.startswith(b'"'):
        return msgspec.json.decode(value, type=str)
    if value.startswith(b"["):
        return ", ".join(words(bytes(each)) for each in msgspec.json.decode(value, type=list[msgspec.Raw]))
    return "" if value == b"null" else value.decode()


def _template(text: str | None) -> list[tuple[str, str | None]]:
    """The stretches of a template, each with the column that follows it."""
    try:
        stretches = list(Formatter().parse(text or ""))
    except ValueError as error:
        raise UsageError(f"the text template cannot be read ({error}): write {{{{ and }}}} for braces") from error
    for _, name, form, conversion in stretches:
        if name == "" or form or conversion:
            raise UsageError(f"the text template has {{{name}…}}: expected a column's name alone in the braces")
    return [(before, name) for before, name, _, _ in stretches]


def _json(value: Any) -> bytes:
    """A value as JSON, nothing of it lost: decimals digit by digit, times in ISO 8601, bytes in base64.

    Raises:
        TypeError, ValueError: JSON cannot express it.
    """
    if isinstance(value, list | tuple):
        return b"[" + b",".join(map(_json, value)) + b"]"
    if isinstance(value, dict):
        return b"{" + b",".join(_json(str(key)) + b":" + _json(each) for key, each in value.items()) + b"}"
    if not _is_finite(value):
        raise ValueError(f"{value} is no number of JSON")
    return _encode(value)


def _is_finite(value: Any) -> bool:
    return value.is_finite() if isinstance(value, Decimal) else not isinstance(value, float) or math.isfinite(value)


def _other(value: Any) -> str:
    if isinstance(value, _AS_TEXT):
        return str(value)
    raise TypeError(f"a value of type {type(value).__name__}; cast the column to text in the query")


_AS_TEXT = (
    UnplacedTime,
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Interface,
    ipaddress.IPv6Interface,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
)
_encode = msgspec.json.Encoder(decimal_format="number", enc_hook=_other).encode


def _mark_of(value: Any, column: str) -> str | None:
    """A watermark as text; None if it is null, or would hide changes: infinite, no number, or a time in the future."""
    if value is None or isinstance(value, UnplacedTime) or not _is_finite(value):
        return None
    kind = type(value).__name__.lower()
    if kind not in _MARKS:
        raise UsageError(f"watermark {column} holds {kind}: expected numbers, times or texts")
    if isinstance(value, date):
        latest = datetime.now(UTC) + _TOMORROW
        if value > (latest.replace(tzinfo=value.tzinfo and UTC) if isinstance(value, datetime) else latest.date()):
            return None
        return f"{kind} {value.isoformat()}"
    return f"{kind} {value}"


def _value_of(mark: str) -> Any:
    kind, _, text = mark.partition(" ")
    return _MARKS[kind](text)


def _is_before(value: Any, begin: Any) -> bool:
    """Whether a row is read again because of the lag alone. Texts have none: only the database knows their order."""
    if value is None or type(value) is not type(begin) or isinstance(value, str):
        return False
    try:
        return bool(value < begin)
    except TypeError:  # A time without a zone was changed to one with a zone.
        return False


def _earlier(value: Any, lag: float | None) -> Any:
    seconds = DEFAULT_LAG if lag is None else lag
    if isinstance(value, datetime):
        return value - timedelta(seconds=seconds)
    if isinstance(value, date):
        return value - timedelta(days=math.ceil(seconds / 86_400))
    if isinstance(value, str):
        if lag:
            raise UsageError("the watermark is text, from which --watermark-lag cannot be subtracted: leave it out")
        return value
    return value - type(value)(math.ceil(seconds))
