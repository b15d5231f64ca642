"""What `neural-bridge ingest` reads beside files: the rows of a database, or facts as triples."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import click
import msgspec

from bridge.commands.options.signature import option

if TYPE_CHECKING:
    from ingest.job import Job
    from ingest.sources.documents import FieldChoice
    from ingest.sources.facts import FactDocuments
    from ingest.sources.rows import RowDocuments

_TEXT = "text"
"""The field of the text that is made of a row, unless --text-field names another."""


@dataclass(frozen=True, slots=True)
class RowOptions:
    """Which rows are read, and what is made of them."""

    sql: str | None = option(
        "--sql", metavar="QUERY", help="Read the rows of this query, in place of files (extra: sources)."
    )
    database: str | None = option(
        "--database",
        metavar="URL",
        envvar="BRIDGE_INGEST_DATABASE",
        help="Database of the query, as SQLAlchemy writes it: sqlite:///FILE, postgresql://USER:PASSWORD@HOST/NAME, "
        "mysql://…; BRIDGE_INGEST_DATABASE in the environment shows no password in the list of processes.",
    )
    text_template: str | None = option(
        "--text-template",
        metavar="TEMPLATE",
        help='Text that is made of a row, such as "{name}, {city}: {note}". By default, if --text-field names no '
        "column, a line `column: value` for each.",
    )
    watermark: str | None = option(
        "--watermark",
        metavar="COLUMN",
        help="Column that grows with each change of a row: the next run reads what is new or changed since.",
    )
    watermark_lag: float | None = option(
        "--watermark-lag",
        type=click.FloatRange(min=0),
        help="How far before the watermark a run begins, for rows that were committed late: seconds of a time, units "
        "of a number. Defaults to 300.",
    )
    remove_gone: bool = option("--remove-gone", help="Remove documents that this query wrote and whose rows are gone.")

    def check(self) -> None:
        """Checks that the options make sense together.

        Raises:
            UsageError: a query without a database, or an option of a query without one.
        """
        from bridge.errors import UsageError

        if self.sql and not self.database:
            raise UsageError("--sql needs --database URL, or BRIDGE_INGEST_DATABASE in the environment")
        if self.watermark_lag is not None and not self.watermark:
            raise UsageError("--watermark-lag needs --watermark COLUMN")
        of_a_query = {
            "--text-template": self.text_template,
            "--watermark": self.watermark,
            "--remove-gone": self.remove_gone,
        }
        if alone := [name for name, value in of_a_query.items() if value and not self.sql]:
            raise UsageError(f"{alone[0]} needs --sql QUERY")

    def source(self, choice: "FieldChoice", names: Sequence[str], *, max_doc_bytes: int) -> "RowDocuments":
        """The rows; `names` are the text fields, one of which may be made.

        Raises:
            UsageError, SourceUnreachable: see `Database` and `RowDocuments`.
        """
        from ingest.sources.database import Database
        from ingest.sources.rows import RowChoice, RowDocuments

        sql = self.sql or ""
        database = Database(self.database or "")
        names = names or [_TEXT]
        columns = [choice.rename.get(name, name) for name in database.columns(sql) if name not in choice.drop]
        made = _made(names, columns, has_template=self.text_template is not None)
        rows = RowChoice(sql, self.watermark, self.watermark_lag, self.text_template, made)
        fields = msgspec.structs.replace(choice, text_fields=names)
        return RowDocuments(database, rows, fields, max_doc_bytes=max_doc_bytes)

    def removal(self, source: "RowDocuments") -> "Callable[[Job], int] | None":
        """What removes the documents of rows that are gone; None if nothing is to be removed."""
        from ingest.runs.removal import remove_gone

        return partial(remove_gone, source=source) if self.remove_gone else None


@dataclass(frozen=True, slots=True)
class FactOptions:
    """Which facts are read."""

    triples: tuple[str, ...] = option(
        "--triples",
        multiple=True,
        metavar="FILE",
        help="Read facts from N-Triples or Turtle (extra: sources), in place of files of documents: each subject "
        "becomes one document; repeat it.",
    )
    languages: tuple[str, ...] = option(
        "--language",
        multiple=True,
        metavar="TAG",
        help="Language of labels and texts that are taken from --triples, best first; repeat it. Defaults to all.",
    )

    def source(self, fields: "FieldChoice", *, max_doc_bytes: int, max_expanded_bytes: int) -> "FactDocuments":
        """The facts.

        Raises:
            UsageError: see `FactDocuments`.
        """
        from ingest.sources.facts import FactDocuments

        return FactDocuments(
            self.triples,
            fields,
            languages=self.languages,
            max_doc_bytes=max_doc_bytes,
            max_expanded_bytes=max_expanded_bytes,
        )


def _made(names: Sequence[str], columns: Sequence[str], *, has_template: bool) -> str | None:
    """The text field that is no column, which the text of a row becomes; None if all are columns."""
    from bridge.errors import UsageError
    from ingest.sources.rows import require_columns

    absent = [name for name in names if name not in columns and name.split(".")[0] not in columns]
    if has_template and not absent:
        raise UsageError(
            f"the query has a column {names[0]} already: name the field that the text becomes with --text-field"
        )
    # Without a template, a name that is almost a column's is misspelt; the one that we give ourselves is not.
    misspelt = absent != [_TEXT] and any(difflib.get_close_matches(name, columns) for name in absent)
    require_columns(absent if misspelt and not has_template else absent[1:], columns)
    return absent[0] if absent else None
