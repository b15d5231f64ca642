"""A database as a source: one query, streamed by the server in a read-only transaction.

SQLite, PostgreSQL, MySQL and MariaDB, by SQLAlchemy. Whatever is shown or kept of an address has no credentials in it.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from bridge.errors import SourceUnreachable, UsageError

_ROWS = 500
"""Rows that are fetched at once."""

_AT_CONNECT = {
    "sqlite": ["PRAGMA query_only = ON"],
    "postgresql": [
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SET SESSION intervalstyle = iso_8601",
        "SET SESSION extra_float_digits = 3",  # all digits, whatever its version and configuration
    ],
    # The server waits a minute by default for a reader, which may itself wait for models and a busy cluster.
    "mysql": ["SET SESSION TRANSACTION READ ONLY", "SET SESSION net_write_timeout = 86400"],
    "mariadb": ["SET SESSION TRANSACTION READ ONLY", "SET SESSION net_write_timeout = 86400"],
}
_DRIVERS = {"sqlite": "pysqlite", "postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}
"""Those whose types are known to come without loss, whichever an address names."""

_PLACES = ("host", "port", "unix_socket")
"""Parameters of an address that say which database it is."""

_ALIAS = "neural_bridge_rows"
_BOUND = "neural_bridge_value"

_exact = partial(json.loads, parse_float=Decimal)
"""JSON columns keep the digits of their numbers."""


class Database:
    """A database that queries are sent to. A connection lives as long as one reading."""

    def __init__(self, address: str) -> None:
        """`address` is SQLAlchemy's: `DIALECT://USER:PASSWORD@HOST:PORT/DATABASE`, `sqlite:///FILE`.

        Raises:
            UsageError: it is no address, of another kind of database, or names a file that does not exist; SQLAlchemy
                or the driver is not installed.
        """
        sqlalchemy = _sqlalchemy()
        try:
            url = sqlalchemy.make_url(address)
            dialect = url.get_backend_name()
            if dialect != "sqlite" and "@" in f"{url.host}{url.database}":
                raise ValueError("the password ends at its first @")  # noqa: TRY301
        except (sqlalchemy.exc.ArgumentError, ValueError):
            # Whatever its own message quotes of the address may be the password.
            raise UsageError(
                "the address of the database is none: expected DIALECT://USER:PASSWORD@HOST:PORT/DATABASE or "
                "sqlite:///FILE, with %40 for @ and %2F for / in the password"
            ) from None
        if dialect not in _AT_CONNECT:
            raise UsageError(f"a database of kind {dialect} cannot be read: expected one of {', '.join(_AT_CONNECT)}")
        url = url.set(drivername=f"{dialect}+{_DRIVERS[dialect]}")
        places = {name: value for name, value in url.query.items() if name in _PLACES}
        shown = sqlalchemy.URL.create(dialect, host=url.host, port=url.port, database=url.database, query=places)
        self.address = str(shown)
        """Names the database, without driver and credentials."""
        self.dialect = dialect
        self._secrets = _secrets(url)
        _require_file(url)
        try:
            self._engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, json_deserializer=_exact)
        except ImportError as missing:
            package = "psycopg[binary]" if missing.name == "psycopg" else missing.name
            raise UsageError(
                f"{self.address} needs the driver {missing.name}, which is not installed: pip install '{package}'"
            ) from missing
        sqlalchemy.event.listen(self._engine, "connect", self._prepare)

    def columns(self, query: str) -> list[str]:
        """The names of a query's columns, in order; no row is read.

        Raises:
            UsageError: the database refuses the query, or two columns have one name.
            SourceUnreachable: no connection.
        """
        # SQLite renames columns of one name when it wraps a query, and computes no row before it is fetched.
        rowless = query if self.dialect == "sqlite" else self.wrapped(query, "WHERE 1 = 0")
        with self.reading(rowless) as (names, _):
            twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UsageError(f"the query gives several columns the name {twice[0]}: name them apart with AS")
        return names

    def wrapped(self, query: str, rest: str, selected: str = "*") -> str:
        """A query of the rows of another one: `rest` are clauses on them."""
        # The line break ends a comment, if the query ends with one. The operator's own query is all that is run.
        return f"SELECT {selected} FROM (\n{query.strip().rstrip(';')}\n) AS {_ALIAS} {rest}"  # noqa: S608

    def quoted(self, column: str) -> str:
        """A column's name as SQL takes it."""
        return str(self._engine.dialect.identifier_preparer.quote(column))

    @contextmanager
    def reading(self, query: str, value: object = None) -> Iterator[tuple[list[str], Iterator[Sequence[Any]]]]:
        """The columns and the rows of a query in which `PLACEHOLDER` stands for `value`.

        Raises:
            UsageError: the database refuses the query, or cannot give one of its rows.
            SourceUnreachable: no connection, or it was lost.
        """
        sqlalchemy = _sqlalchemy()
        # Colons and percent signs are the query's own, whatever the driver's style of parameters is.
        statement = sqlalchemy.text(query.replace(":", r"\:").replace(PLACEHOLDER, f":{_BOUND}"))
        if PLACEHOLDER in query:
            # Without a type, the driver takes the value as it is; a cast could lose its zone or its size.
            bound = sqlalchemy.bindparam(_BOUND, value=value, type_=sqlalchemy.types.NullType())
            statement = statement.bindparams(bound)
        try:
            connection = self._engine.connect()
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise SourceUnreachable(
                f"{self.address} cannot be reached ({self._reason(error)}): check address, user and password"
            ) from None
        with connection:
            n_read = 0

            def rows() -> Iterator[Sequence[Any]]:
                nonlocal n_read
                for row in result:
                    yield tuple(row)
                    n_read += 1

            try:
                streamed = connection.execution_options(stream_results=True, yield_per=_ROWS)
                with streamed.execute(statement) as result:
                    yield list(result.keys()), rows()
            except (sqlalchemy.exc.SQLAlchemyError, sqlite3.Warning) as error:  # the latter of two statements in one
                raise self._failed(error, n_read) from None

    def _prepare(self, connection: Any, _: object) -> None:
        if self.dialect == "sqlite":
            # What is not UTF-8 is found when its row is made, so that only that row suffers.
            connection.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
        elif self.dialect == "postgresql":
            _keep_all_times(connection.adapters)
        cursor = connection.cursor()
        for statement in _AT_CONNECT[self.dialect]:
            cursor.execute(statement)
        cursor.close()
        connection.commit()  # PostgreSQL forgets a setting whose transaction is rolled back.

    def _failed(self, error: Any, n_read: int) -> UsageError | SourceUnreachable:
        reason = self._reason(error)
        if getattr(error, "connection_invalidated", False):
            return SourceUnreachable(
                f"the connection to {self.address} was lost after row {n_read:,} ({reason}): run it again, and what is "
                f"written already is recognised"
            )
        if n_read:
            return UsageError(
                f"{self.address} cannot be read on after row {n_read:,} ({reason}): correct the row, or cast its "
                f"column to text in the query; what was read before is written"
            )
        return UsageError(f"{self.address} refused the query: {reason}")

    def _reason(self, error: Any) -> str:
        """What the driver says, on one line, without credentials."""
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        for secret in self._secrets:
            reason = reason.replace(secret, "…")
        return reason


PLACEHOLDER = "\0"
"""Stands in a query for the value that is sent beside it: no query can hold this character."""


def _sqlalchemy() -> Any:
    try:
        import sqlalchemy  # an optional package, which takes a while to import
    except ImportError as missing:
        raise UsageError(
            "rows of a database need SQLAlchemy, which is not installed: "
            "pip install 'opensearch-neural-bridge[sources]'"
        ) from missing
    return sqlalchemy


class UnplacedTime(str):
    """A time of PostgreSQL that Python has no value for, as the database writes it: `infinity`, `0044-03-15 BC`."""

    __slots__ = ()


def _keep_all_times(adapters: Any) -> None:
    """Intervals stay texts, which psycopg would count in days of which a month has 30, and so does an `UnplacedTime`,
    which would end the reading."""
    from psycopg import DataError
    from psycopg.adapt import Loader
    from psycopg.pq import Format
    from psycopg.types.string import TextLoader

    def lenient(known: Any) -> type[Loader]:
        class Lenient(Loader):
            def __init__(self, oid: int, context: Any = None) -> None:
                super().__init__(oid, context)
                self._known = known(oid, context)

            def load(self, data: Any) -> Any:
                try:
                    return self._known.load(data)
                except DataError:
                    return UnplacedTime(bytes(data), "utf-8")

        return Lenient

    adapters.register_loader("interval", TextLoader)
    for name in ("date", "time", "timetz", "timestamp", "timestamptz"):
        oid = adapters.types[name].oid
        adapters.register_loader(oid, lenient(adapters.get_loader(oid, Format.TEXT)))


def _secrets(url: Any) -> list[str]:
    """What no message may hold: the password and the parameters' values, also as an address writes them; longest
    first, so that none leaves a rest of another."""
    values = [url.password] if url.password else []
    for name, value in url.query.items():
        if name not in _PLACES:
            values += [value] if isinstance(value, str) else value
    return sorted({each for value in values for each in (value, quote(value), quote_plus(value)) if each}, key=len)[
        ::-1
    ]


def _require_file(url: Any) -> None:
    """SQLite would make a file that does not exist."""
    file = url.database
    if url.get_backend_name() == "sqlite" and file and not file.startswith((":", "file:")) and not Path(file).is_file():
        raise UsageError(f"database file {file} does not exist (sqlite:///FILE is relative, sqlite:////FILE absolute)")
