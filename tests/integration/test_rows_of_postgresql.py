"""Rows of a real PostgreSQL: each type without loss, no row lost while others write, runs die and connections break."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from opensearchpy import OpenSearch, helpers

from bridge.errors import SourceUnreachable, UsageError
from bridge.node.node import EmbeddedNode
from bridge.records import Document
from ingest.sources.database import Database
from ingest.sources.documents import FieldChoice
from ingest.sources.rows import RowChoice, RowDocuments
from tests.fake_bulk import fake_cluster
from tests.postgresql import postgresql
from tests.row_command import FakeRowCommand, RowCommand

pytest.importorskip("sqlalchemy", reason="needs the sources extra")
psycopg = pytest.importorskip("psycopg", reason="needs a driver of PostgreSQL")

pytestmark = [pytest.mark.slow, pytest.mark.node, pytest.mark.timeout(1200)]

N_ROWS = 2000
MARKED = ("--watermark", "changed", "--watermark-lag", "1200")
"""Longer than any transaction of these tests."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with postgresql() as found:
        yield found


@pytest.fixture
def connection(address: str) -> Iterator[Any]:
    with psycopg.connect(address.replace("+psycopg", ""), autocommit=True) as opened:
        opened.execute("DROP TABLE IF EXISTS item")
        opened.execute("CREATE TABLE item (id bigint PRIMARY KEY, words text, changed timestamptz DEFAULT now())")
        opened.execute(
            "INSERT INTO item SELECT n, 'wing ' || n, now() - interval '1 day' + (n / 10) * interval '1 second' "
            "FROM generate_series(1, %s) n",
            [N_ROWS],
        )
        yield opened


@pytest.fixture
def slow_command(address: str, connection: Any, tmp_path: Path) -> Iterator[FakeRowCommand]:
    with fake_cluster() as cluster:
        yield FakeRowCommand(cluster, tmp_path, address)


@pytest.fixture
def command(node: EmbeddedNode, fresh_index: str, address: str, connection: Any, tmp_path: Path) -> RowCommand:
    return RowCommand(node.url, fresh_index, tmp_path, address)


def expected(connection: Any) -> dict[str, str]:
    return {str(key): words for key, words in connection.execute("SELECT id, words FROM item")}


TYPES = """SELECT 1 AS id, 12.50::numeric AS amount, 123456789012345678901234567890.0001::numeric AS exact,
9223372036854775807 AS large, 0.1::float8 AS third, true AS yes, NULL::text AS nothing,
ARRAY[ARRAY[1, 2], ARRAY[3, NULL]] AS grid, ARRAY['a', NULL] AS tags, '\\x00ff'::bytea AS photo,
'2026-01-02'::date AS day, '03:04:05.000006'::time AS hour, '2026-01-02 03:04:05.000006'::timestamp AS local,
'2026-01-02 03:04:05+02'::timestamptz AS moment, '1 month 2 days 00:00:01'::interval AS span,
'00000000-0000-0000-0000-000000000001'::uuid AS key, '{"a": [1.10, {"b": null}]}'::jsonb AS detail,
'10.0.0.1'::inet AS host, '100% :x ?' AS odd, 'infinity'::timestamptz AS forever, '0044-03-15 BC'::date AS ides,
ARRAY['10000-01-01'::date, '2026-01-02'] AS days, '24:00'::time AS midnight, 1e400::numeric + 1 AS vast"""


def test_every_type_reaches_the_document_without_loss(address: str) -> None:
    rows = RowDocuments(
        Database(address), RowChoice(TYPES, text_field="text"), FieldChoice(["text"], "id"), max_doc_bytes=10_000
    )
    (item,) = rows.items()
    assert isinstance(item, Document)
    found = json.loads(item.body, parse_float=str)
    text = found.pop("text")
    moment = found.pop("moment")
    assert moment[:10] == "2026-01-02"
    assert found == {
        "id": 1,
        "amount": "12.50",
        "exact": "123456789012345678901234567890.0001",
        "large": 2**63 - 1,
        "third": "0.1",
        "yes": True,
        "nothing": None,
        "grid": [[1, 2], [3, None]],
        "tags": ["a", None],
        "photo": "AP8=",
        "day": "2026-01-02",
        "hour": "03:04:05.000006",
        "local": "2026-01-02T03:04:05.000006",
        "span": "P1M2DT1S",
        "key": "00000000-0000-0000-0000-000000000001",
        "detail": {"a": ["1.10", {"b": None}]},
        "host": "10.0.0.1",
        "odd": "100% :x ?",
        "forever": "infinity",
        "ides": "0044-03-15 BC",
        "days": ["10000-01-01", "2026-01-02"],
        "midnight": "24:00:00",
        "vast": 10**400 + 1,
    }
    assert "amount: 12.50\n" in text


@pytest.mark.parametrize("column", ["'NaN'::numeric", "'Infinity'::float8", "int4range(1, 2)"])
def test_what_json_cannot_express_is_one_dead_letter(address: str, column: str) -> None:
    query = " UNION ALL ".join([f"SELECT 1 AS id, {column} AS value", "SELECT 2, NULL"])
    rows = RowDocuments(
        Database(address), RowChoice(query, text_field="text"), FieldChoice(["text"], "id"), max_doc_bytes=10_000
    )
    bad, good = rows.items()
    assert (getattr(bad, "kind", None), good.doc_id) == ("invalid_row", "2")


@pytest.mark.parametrize(
    ("kind", "last", "beyond"),
    [
        ("numeric", "2", ["Infinity", "NaN"]),
        ("float8", "2", ["Infinity", "NaN"]),
        ("date", "2026-01-02", ["2999-01-01", "infinity"]),
        ("timestamptz", "2026-01-02", ["2999-01-01", "infinity"]),
        ("timestamp", "2026-01-02", ["2999-01-01", "infinity"]),
    ],
)
def test_a_watermark_that_would_hide_changes_is_none(address: str, kind: str, last: str, beyond: list[str]) -> None:
    values = ", ".join(f"('{value}'::{kind})" for value in [last, *beyond])
    query = f"SELECT row_number() OVER () AS id, at FROM (VALUES {values}, (NULL)) AS v (at)"  # noqa: S608
    choice = RowChoice(query, watermark="at", lag=0, text_field="text")
    rows = RowDocuments(Database(address), choice, FieldChoice(["text"], "id"), max_doc_bytes=10_000)
    first = list(rows.items())
    mark = first[-1].position.mark
    assert mark is not None
    assert last in mark
    assert len(list(rows.items(mark=mark))) == len(first) == 4


def test_nothing_is_written(address: str, connection: Any) -> None:
    connection.execute(
        "CREATE OR REPLACE FUNCTION wipe() RETURNS bigint LANGUAGE sql AS 'DELETE FROM item RETURNING id'"
    )
    choice = RowChoice("SELECT wipe() AS id", text_field="text")
    rows = RowDocuments(Database(address), choice, FieldChoice(["text"], "id"), max_doc_bytes=10_000)
    with pytest.raises(UsageError, match="cannot execute DELETE in a read-only transaction"):
        list(rows.items())
    assert len(expected(connection)) == N_ROWS


def test_rows_are_streamed_and_a_lost_connection_is_named(address: str, connection: Any) -> None:
    """The server ends the connection in the middle of the rows."""
    choice = RowChoice("SELECT id, repeat('x', 10000) AS words FROM item")
    rows = RowDocuments(Database(address), choice, FieldChoice(["words"], "id"), max_doc_bytes=20_000).items()
    next(rows)
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
        "AND backend_type = 'client backend'"
    )
    with pytest.raises(SourceUnreachable, match=r"was lost after row [\d,]+ .*run it again"):
        list(rows)


def test_a_wrong_password_is_not_shown(address: str) -> None:
    wrong = address.replace("sesame:", "sesame:hunter2")
    with pytest.raises(SourceUnreachable) as raised:
        Database(wrong).columns("SELECT 1")
    assert "hunter2" not in str(raised.value)


@contextmanager
def application(address: str) -> Iterator[None]:
    """Rows are added and changed, one after another, while the block runs."""
    done = threading.Event()

    def write() -> None:
        with psycopg.connect(address.replace("+psycopg", ""), autocommit=True) as writer:
            number = N_ROWS
            while not done.wait(0.005):
                number += 1
                writer.execute("INSERT INTO item VALUES (%s, 'new')", [number])
                writer.execute(
                    "UPDATE item SET words = words || '.', changed = now() WHERE id = %s", [number * 7 % N_ROWS + 1]
                )

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_kills_and_concurrent_writes_leave_exactly_the_rows(
    slow_command: FakeRowCommand, connection: Any, address: str
) -> None:
    command = slow_command
    # Its rows get their watermark now, and nobody sees them before the last run.
    late = psycopg.connect(address.replace("+psycopg", ""))
    late.execute("INSERT INTO item VALUES (-1, 'committed late')")
    try:
        with application(address):
            command.slow(0.15)
            for _ in range(3):
                command.kill_when(command.bulks(3), *MARKED)
            command.slow(0)
            command.finish(*MARKED)
    finally:
        late.commit()
        late.close()
    report = command.finish(*MARKED)
    assert command.written() == expected(connection)
    ledger = report["ledger"]
    assert ledger["read"] == sum(value for kind, value in ledger.items() if kind != "read")
    connection.execute("DELETE FROM item WHERE id % 3 = 0")
    command.finish(*MARKED, "--remove-gone")
    assert command.written() == expected(connection)


def test_kills_and_concurrent_writes_leave_exactly_the_rows_in_a_real_index(
    command: RowCommand, opensearch: OpenSearch, fresh_index: str, connection: Any, address: str
) -> None:
    def has_written(wanted: int) -> bool:
        stats = opensearch.indices.stats(index=fresh_index, metric="docs", params={"ignore_unavailable": "true"})
        written: int = stats["_all"]["primaries"].get("docs", {}).get("count", 0)
        opensearch.indices.refresh(index=fresh_index, params={"ignore_unavailable": "true"})
        return written >= wanted

    with application(address):
        for wanted in (300, 900):
            command.kill_when(partial(has_written, wanted), *MARKED, "--max-docs-per-second", "400")
        command.finish(*MARKED)
    report = command.finish(*MARKED)
    opensearch.indices.refresh(index=fresh_index)
    hits = list(helpers.scan(opensearch, index=fresh_index, _source=["words", "_neural.stamp"]))
    assert {hit["_id"]: hit["_source"]["words"] for hit in hits} == expected(connection)
    assert all(hit["_source"]["_neural"]["stamp"] for hit in hits)
    ledger = report["ledger"]
    assert ledger["read"] == sum(value for kind, value in ledger.items() if kind != "read")


def test_neither_what_is_printed_nor_what_stays_on_disk_holds_the_password(command: RowCommand) -> None:
    query = "SELECT id, words, changed, CASE id WHEN 1 THEN 'NaN'::float8 END AS odd FROM item WHERE id < 9"
    printed = [*command.run("--sql", query, *MARKED)[1:]]
    command.address = command.address.replace("sesame:", "sesame:x")
    code, out, err = command.run("--sql", query)
    assert (code, "password authentication failed" in err) == (4, True)
    files = [file for file in command.state.rglob("*") if file.is_file()]
    assert [file for file in files if "dead-letters" in file.name and file.stat().st_size]
    assert [file for file in files if "watermark" in file.name]
    password = command.address.partition("sesame:x")[2].partition("@")[0]
    assert password not in "".join([*printed, out, err, *(file.read_text(errors="replace") for file in files)])
