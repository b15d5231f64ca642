"""Rows as documents: nothing of a value is lost, a text is made of words, and a watermark loses no row."""

import ipaddress
import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from bridge.errors import UsageError
from bridge.records import Document
from ingest.sources import rows as module
from ingest.sources.database import Database
from ingest.sources.documents import FieldChoice
from ingest.sources.rows import RowChoice, RowDocuments, require_columns, words
from ingest.sources.source import SourceItem, Unreadable

pytest.importorskip("sqlalchemy", reason="needs the sources extra")

QUERY = "SELECT * FROM item"


@pytest.fixture
def table(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "shop.sqlite", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE item (id, name, price, tags, photo BLOB, changed)")
        yield connection


def put(table: sqlite3.Connection, *rows: tuple[object, ...]) -> None:
    table.executemany("INSERT INTO item VALUES (?, ?, ?, ?, ?, ?)", rows)


def source(table: sqlite3.Connection, choice: RowChoice | None = None, **fields: Any) -> RowDocuments:
    file = table.execute("PRAGMA database_list").fetchone()[2]
    choice = choice or RowChoice(QUERY, text_field="text")
    text = [choice.text_field] if choice.text_field else ["name"]
    given = FieldChoice(**{"text_fields": text, "id_field": "id", **fields})
    return RowDocuments(Database(f"sqlite:///{file}"), choice, given, max_doc_bytes=500)


def ids(items: Iterator[SourceItem]) -> list[str]:
    return [item.kind if isinstance(item, Unreadable) else item.doc_id for item in items]


def test_a_row_is_a_document_with_its_columns_and_a_text(table: sqlite3.Connection) -> None:
    put(table, (7, "Lamp", 12.5, None, b"\0\xff", "2026-01-02"))
    (item,) = source(table).items()
    assert isinstance(item, Document)
    assert json.loads(item.body) == {
        "id": 7,
        "name": "Lamp",
        "price": 12.5,
        "tags": None,
        "photo": "AP8=",
        "changed": "2026-01-02",
        "text": "name: Lamp\nprice: 12.5\nchanged: 2026-01-02",
    }
    assert (item.doc_id, item.texts) == ("7", {"text": "name: Lamp\nprice: 12.5\nchanged: 2026-01-02"})


def test_a_template_makes_the_text(table: sqlite3.Connection) -> None:
    put(table, (7, "Lamp", 3, None, None, None))
    choice = RowChoice(QUERY, text_template="{name}{tags}, {{{price}}}", text_field="text")
    (item,) = source(table, choice).items()
    assert isinstance(item, Document)
    assert item.texts == {"text": "Lamp, {3}"}


def test_columns_can_be_renamed_and_dropped_and_are_in_the_text_all_the_same(table: sqlite3.Connection) -> None:
    put(table, (7, "Lamp", 3, None, b"", None))
    choice = RowChoice(QUERY, text_template="{name} {price}", text_field="text")
    (item,) = source(table, choice, rename={"name": "title"}, drop=["price", "photo", "tags", "changed"]).items()
    assert isinstance(item, Document)
    assert json.loads(item.body) == {"id": 7, "title": "Lamp", "text": "Lamp 3"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, b"null"),
        (True, b"true"),
        (2**70, b"1180591620717411303424"),
        (Decimal("12.50"), b"12.50"),
        (Decimal("123456789012345678901234567890.0001"), b"123456789012345678901234567890.0001"),
        (date(2026, 1, 2), b'"2026-01-02"'),
        (time(3, 4, 5, 6), b'"03:04:05.000006"'),
        (datetime(2026, 1, 2, 3, 4, 5), b'"2026-01-02T03:04:05"'),
        (datetime(2026, 1, 2, 3, 4, 5, 6, UTC), b'"2026-01-02T03:04:05.000006Z"'),
        (datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=2))), b'"2026-01-02T03:00:00+02:00"'),
        (timedelta(days=1, seconds=1), b'"P1DT1S"'),
        (b"\0\xff", b'"AP8="'),
        # Its representation is an address, which two workers would collect as two tests.
        pytest.param(memoryview(b"\0\xff"), b'"AP8="', id="memoryview"),
        (UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
        (ipaddress.ip_address("10.0.0.1"), b'"10.0.0.1"'),
        ([1, [None, "a"], Decimal("1.0")], b'[1,[null,"a"],1.0]'),
        ({"a": {"b": Decimal("1.10")}, 2: []}, b'{"a":{"b":1.10},"2":[]}'),
    ],
    ids=repr,
)
def test_a_value_becomes_json_without_loss(value: object, expected: bytes) -> None:
    assert module._json(value) == expected


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), Decimal("NaN"), [1, float("inf")], object(), "\udc80"])
def test_a_value_that_json_cannot_express_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        module._json(value)


def test_a_row_that_is_no_document_is_named_and_the_others_are_read(table: sqlite3.Connection) -> None:
    put(
        table,
        (1, "a", None, None, None, None),
        (2, "b", float("inf"), None, None, None),
        (None, "c", None, None, None, None),
        (4, "d" * 600, None, None, None, None),
        (5, "e", None, None, None, None),
    )
    items = list(source(table).items())
    assert ids(iter(items)) == ["1", "invalid_row", "invalid_id", "document_too_large", "5"]
    assert isinstance(items[1], Unreadable)
    assert (items[1].reason, items[1].doc_id) == ("column price is no JSON: inf is no number of JSON", "2")


@pytest.mark.parametrize(
    ("choice", "fields", "message"),
    [
        (RowChoice(QUERY, text_field="text"), {"id_field": "idd"}, "no column idd: did you mean id?"),
        (RowChoice(QUERY, text_field="text"), {"id_field": "_id"}, "no column _id, which --id-field names"),
        (RowChoice(QUERY, watermark="changd", text_field="text"), {}, "no column changd: did you mean changed?"),
        (RowChoice(QUERY, text_template="{nane}", text_field="text"), {}, "no column nane: did you mean name?"),
        (RowChoice(QUERY, text_template="{zz}", text_field="text"), {}, "no column zz: it has id, name, price"),
        (RowChoice(QUERY, text_field="text"), {"drop": ["fotos"]}, "no column fotos"),
        (RowChoice(QUERY, text_field="text"), {"routing_field": "zz"}, "no column zz"),
        (RowChoice(QUERY, text_template="{name", text_field="text"), {}, "text template cannot be read"),
        (RowChoice(QUERY, text_template="{name:>5}", text_field="text"), {}, "expected a column's name alone"),
        (RowChoice(QUERY, text_template="{}", text_field="text"), {}, "expected a column's name alone"),
        (RowChoice(QUERY, text_field="name"), {}, "has a column name already"),
    ],
)
def test_a_wrong_column_is_refused_with_the_nearest_name(
    table: sqlite3.Connection, choice: RowChoice, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as raised:
        source(table, choice, **fields)
    assert message in str(raised.value)


def marked(lag: float | None = 0.0) -> RowChoice:
    return RowChoice(QUERY, watermark="changed", lag=lag, text_field="text")


def test_rows_come_in_the_order_of_the_watermark_and_go_on_with_its_ties(table: sqlite3.Connection) -> None:
    put(table, *((n, "a", None, None, None, changed) for n, changed in [(1, 30), (2, 10), (3, 20), (4, 20)]))
    items = list(source(table, marked()).items())
    assert ids(iter(items)) == ["2", "3", "4", "1"]
    assert [item.position.mark for item in items] == ["int 10", "int 20", "int 20", "int 30"]
    put(table, (5, "late tie", None, None, None, 20))
    assert sorted(ids(source(table, marked()).items(3, "int 20"))) == ["1", "3", "4", "5"]


def test_a_lag_reads_again_what_was_committed_late(table: sqlite3.Connection) -> None:
    put(table, *((n, "a", None, None, None, n * 100) for n in range(1, 10)))
    items = list(source(table, marked(150)).items(mark="int 900"))
    assert ids(iter(items)) == ["8", "9"]
    # A run that is cut off here has not come less far than the one before it.
    assert [item.position.mark for item in items] == ["int 900", "int 900"]
    assert ids(source(table, marked(None)).items(mark="int 900")) == ["6", "7", "8", "9"]


def test_rows_without_a_watermark_are_read_every_time(table: sqlite3.Connection) -> None:
    put(table, (1, "a", None, None, None, None), (2, "b", None, None, None, 5), (3, "c", None, None, None, 9))
    items = list(source(table, marked()).items(mark="int 9"))
    assert ids(iter(items)) == ["1", "3"]
    assert [item.position.mark for item in items] == ["int 9", "int 9"]


def test_a_text_is_a_watermark_without_a_lag(table: sqlite3.Connection) -> None:
    put(table, (1, "a", None, None, None, "2026-01-01 10:00:00"), (2, "b", None, None, None, "2026-01-02 10:00:00"))
    assert ids(source(table, marked(None)).items(mark="str 2026-01-02 10:00:00")) == ["2"]
    with pytest.raises(UsageError, match="--watermark-lag cannot be subtracted"):
        list(source(table, marked(5)).items(mark="str 2026-01-02 10:00:00"))


def test_a_watermark_that_does_not_grow_is_refused(table: sqlite3.Connection) -> None:
    put(table, (1, "a", None, None, None, b"\0"))
    with pytest.raises(UsageError, match="watermark changed holds bytes: expected numbers, times or texts"):
        list(source(table, marked()).items())


@pytest.mark.parametrize(
    ("value", "earlier"),
    [
        (5, 4),
        (Decimal("5.5"), Decimal("4.5")),
        (5.5, 4.5),
        (datetime(2026, 1, 2, 3, 4, 5, 6, UTC), datetime(2026, 1, 2, 3, 4, 4, 6, UTC)),
        (datetime(2026, 1, 2, 3, 4, 5), datetime(2026, 1, 2, 3, 4, 4)),
        (date(2026, 1, 2), date(2026, 1, 1)),
    ],
    ids=repr,
)
def test_a_mark_is_read_as_it_was_written(value: Any, earlier: Any) -> None:
    mark = module._mark_of(value, "changed")
    assert mark is not None
    assert module._value_of(mark) == value
    assert module._earlier(value, 1) == earlier


@pytest.mark.parametrize(
    ("value", "begin", "expected"),
    [
        (1, 2, True),
        (2, 2, False),
        (None, 2, False),
        (1, None, False),
        ("a", "b", False),
        (datetime(2026, 1, 1), datetime(2026, 1, 2), True),
        (datetime(2026, 1, 1), datetime(2026, 1, 2, tzinfo=UTC), False),
    ],
)
def test_rows_that_are_read_again_do_not_take_a_run_back(value: Any, begin: Any, expected: bool) -> None:
    assert module._is_before(value, begin) is expected


def test_a_time_in_the_future_hides_no_change_until_then() -> None:
    far = datetime.now(UTC) + timedelta(days=400)
    assert module._mark_of(far, "changed") is None
    assert module._mark_of(far.replace(tzinfo=None), "changed") is None


def test_without_a_watermark_every_reading_begins_anew(table: sqlite3.Connection) -> None:
    put(table, (1, "a", None, None, None, 1), (2, "b", None, None, None, 2))
    assert not source(table).resumable
    assert source(table, marked()).resumable
    assert ids(source(table).items()) == ["1", "2"]


def test_keys_are_the_ids_of_the_documents(table: sqlite3.Connection) -> None:
    put(table, *((key, "a", None, None, None, None) for key in (1, "x'y", 2.5, None, "", math.inf, b"\xff", 10**12)))
    rows = source(table)
    assert sorted(rows.keys()) == sorted(item.doc_id for item in rows.items() if isinstance(item, Document))


def test_an_origin_is_that_of_the_rows_and_an_identity_of_all_that_is_made_of_them(table: sqlite3.Connection) -> None:
    first, other = source(table), source(table, RowChoice(QUERY, text_template="{name}", text_field="text"))
    assert first.origin == other.origin
    assert first.identity != other.identity
    assert source(table, RowChoice(QUERY + " WHERE id > 1", text_field="text")).origin != first.origin


def test_words_of_json() -> None:
    assert [words(value) for value in (b'"a\\nb"', b"12.50", b"null", b'["a",[1,null],true]', b'{"a":1}')] == [
        "a\nb",
        "12.50",
        "",
        "a, 1, , true",
        '{"a":1}',
    ]


def test_columns_that_there_are_pass() -> None:
    require_columns(["a"], ["a", "b"])
