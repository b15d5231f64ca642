"""A database is read and never written, and nothing that is shown of it holds a password."""

import sqlite3
import sys
import traceback
from contextlib import closing
from pathlib import Path

import pytest

from bridge.errors import BridgeError, SourceUnreachable, UsageError
from ingest.sources.database import PLACEHOLDER, Database

pytest.importorskip("sqlalchemy", reason="needs the sources extra")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shop.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE item (id, name); INSERT INTO item VALUES (1, 'a'), (2, '100% :b ?')")
    return path


@pytest.fixture
def database(file: Path) -> Database:
    return Database(f"sqlite:///{file}")


def read(database: Database, query: str, value: object = None) -> list[tuple[object, ...]]:
    with database.reading(query, value) as (_, rows):
        return [tuple(row) for row in rows]


def test_a_query_runs_as_it_is_written(database: Database) -> None:
    assert read(database, "SELECT id, ':x %s %(y)s ?' FROM item WHERE name LIKE '%\\:b ?' ESCAPE '\\'") == [
        (2, ":x %s %(y)s ?")
    ]


@pytest.mark.parametrize(
    "query", ["SELECT * FROM item;", "SELECT * FROM item -- all of them", " SELECT * FROM item;\n"]
)
def test_a_wrapped_query_may_end_as_queries_do(database: Database, query: str) -> None:
    assert database.columns(query) == ["id", "name"]
    assert read(database, database.wrapped(query, f"WHERE id >= {PLACEHOLDER}", "id"), 2) == [(2,)]


def test_a_value_beside_the_query_is_no_part_of_it(database: Database) -> None:
    query = PLACEHOLDER.join(["SELECT id, ':a' FROM item WHERE name = ", ""])
    assert read(database, query, "100% :b ?") == [(2, ":a")]


@pytest.mark.parametrize("query", ["DELETE FROM item", "UPDATE item SET name = ''", "CREATE TABLE x (y)"])
def test_nothing_is_written(database: Database, query: str) -> None:
    with pytest.raises(UsageError, match="readonly database"):
        read(database, query)
    assert len(read(database, "SELECT * FROM item")) == 2


def test_two_columns_of_one_name_are_refused(database: Database) -> None:
    with pytest.raises(UsageError, match=r"several columns the name name: name them apart with AS"):
        database.columns("SELECT a.name, b.name FROM item a JOIN item b ON a.id = b.id")


def test_a_refused_query_is_named_with_the_reason(database: Database) -> None:
    with pytest.raises(UsageError, match=r"refused the query: no such table: itms"):
        database.columns("SELECT * FROM itms")


@pytest.mark.parametrize("query", ["SELECT 1; SELECT 2", "", ";", "SELECT", "no SQL \0"])
def test_what_is_no_single_query_is_refused(database: Database, query: str) -> None:
    with pytest.raises(UsageError, match="refused the query"):
        database.columns(query)


def test_a_file_that_does_not_exist_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        Database(f"sqlite:///{tmp_path / 'no.sqlite'}")
    assert not (tmp_path / "no.sqlite").exists()


def test_a_text_that_is_not_utf8_stops_no_other_row(file: Path, database: Database) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("INSERT INTO item VALUES (3, CAST(x'ff41' AS TEXT)), (4, 'd')")
        connection.commit()
    assert read(database, "SELECT name FROM item WHERE id > 2") == [("\udcffA",), ("d",)]


PASSWORD = "hunter2"
WRONG = [
    f"postgresql://sesame:{PASSWORD}@127.0.0.1:1/shop",
    f"postgresql://sesame@127.0.0.1:1/shop?password={PASSWORD}",
    f"postgresql://sesame:a@{PASSWORD}@127.0.0.1:1/shop",
    f"postgresql://sesame:a@b/{PASSWORD}@127.0.0.1:1/shop",
    f"postgresql://sesame:{PASSWORD}@127.0.0.1:port/shop",
    f"postgresql+nothing://sesame:{PASSWORD}@127.0.0.1/shop",
    f"oracle://sesame:{PASSWORD}@127.0.0.1/shop",
    f"sesame:{PASSWORD}@127.0.0.1/shop",
]


@pytest.mark.parametrize("address", WRONG)
def test_no_message_holds_a_password(address: str) -> None:
    with pytest.raises(BridgeError) as raised:
        Database(address).columns("SELECT 1")
    # What --debug shows, which begins with the message.
    assert PASSWORD not in "".join(traceback.format_exception(raised.value))


def test_a_driver_that_is_missing_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with pytest.raises(UsageError, match=r"needs the driver pymysql, .* pip install 'pymysql'"):
        Database("mysql://sesame:open@127.0.0.1/shop")


def test_a_server_that_does_not_answer_is_unreachable() -> None:
    pytest.importorskip("psycopg", reason="needs a driver of PostgreSQL")
    with pytest.raises(SourceUnreachable, match=r"postgresql://127\.0\.0\.1:1/shop cannot be reached"):
        Database("postgresql://sesame:open@127.0.0.1:1/shop").columns("SELECT 1")
