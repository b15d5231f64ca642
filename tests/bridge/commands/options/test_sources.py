"""Rows and facts by the command: wrong options are named before anything is made, and a killed run loses no row."""

import json
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from bridge.cli import cli
from bridge.errors import UsageError
from ingest.sources.facts import TEXT_FIELDS
from tests.fake_bulk import fake_cluster
from tests.row_command import FakeRowCommand

N_ROWS = 600


def refused(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["ingest", "things", "--cluster", "http://127.0.0.1:1", *arguments])
    assert isinstance(done.exception, UsageError)
    return str(done.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to read is named"),
        (["a.jsonl", "--sql", "SELECT 1", "--database", "sqlite://"], "files and --sql are named"),
        (["--triples", "a.nt", "a.jsonl"], "files and --triples are named"),
        (["--sql", "SELECT 1"], "--sql needs --database URL"),
        (["a.jsonl", "--watermark", "at"], "--watermark needs --sql QUERY"),
        (["a.jsonl", "--text-template", "{a}"], "--text-template needs --sql QUERY"),
        (["a.jsonl", "--remove-gone"], "--remove-gone needs --sql QUERY"),
        (["a.jsonl", "--language", "en"], "--language needs --triples FILE"),
        (["--sql", "SELECT 1", "--database", "sqlite://", "--watermark-lag", "1"], "--watermark-lag needs --watermark"),
        (["--sql", "SELECT 1", "--database", "sqlite://", "--runner", "ray"], "--sql is read by one process"),
    ],
)
def test_options_that_make_no_sense_are_refused(arguments: list[str], message: str) -> None:
    assert message in refused(*arguments)


@pytest.fixture
def table(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    pytest.importorskip("sqlalchemy", reason="needs the sources extra")
    with closing(sqlite3.connect(tmp_path / "shop.sqlite", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, words TEXT, changed INTEGER)")
        # Ten rows of each value: a watermark falls into the middle of some.
        rows = [(n, f"wing {n}", n // 10) for n in range(N_ROWS)]
        connection.executemany("INSERT INTO item VALUES (?, ?, ?)", rows)
        yield connection


@pytest.fixture
def command(table: sqlite3.Connection, tmp_path: Path) -> Iterator[FakeRowCommand]:
    with fake_cluster() as cluster:
        yield FakeRowCommand(cluster, tmp_path, f"sqlite:///{tmp_path / 'shop.sqlite'}")


def expected(table: sqlite3.Connection) -> dict[str, str]:
    return {str(key): words for key, words in table.execute("SELECT id, words FROM item")}


MARKED = ("--watermark", "changed", "--watermark-lag", "0")


@pytest.mark.slow
@pytest.mark.parametrize("options", [MARKED, ()], ids=["watermark", "all rows"])
def test_killed_runs_lose_no_row_though_the_table_changes_meanwhile(
    command: FakeRowCommand, table: sqlite3.Connection, options: tuple[str, ...]
) -> None:
    command.slow(0.15)
    for kill in range(3):
        command.kill_when(command.bulks(2), *options)
        now = N_ROWS + kill
        table.execute("UPDATE item SET words = words || ' changed', changed = ? WHERE id IN (1, 300)", [now])
        table.execute("INSERT INTO item VALUES (?, 'new', ?)", [10_000 - kill, now])
    command.slow(0)
    report = command.finish(*options)
    assert command.written() == expected(table)
    ledger = report["ledger"]
    assert ledger["read"] == sum(value for kind, value in ledger.items() if kind != "read")
    again = command.finish(*options)["ledger"]
    assert again["written"] == 0
    # With a watermark only the rows of the last change.
    assert again["read"] == (3 if options else N_ROWS + 3)


@pytest.mark.slow
def test_a_second_run_reads_what_changed_and_ties_of_the_watermark(
    command: FakeRowCommand, table: sqlite3.Connection
) -> None:
    first = command.finish(*MARKED)
    assert (first["ledger"]["written"], first["watermark"]) == (N_ROWS, f"int {N_ROWS // 10 - 1}")
    table.execute("UPDATE item SET words = 'other', changed = 1000 WHERE id = 5")
    table.execute("INSERT INTO item VALUES (9000, 'tie', ?)", [N_ROWS // 10 - 1])
    second = command.finish(*MARKED)
    assert (second["ledger"]["read"], second["ledger"]["written"], second["ledger"]["unchanged"]) == (12, 2, 10)
    assert command.written() == expected(table)
    # Another index of this name has none of the rows, and a new text is made of all of them.
    command.cluster.settings["index"]["uuid"] = "u2"
    assert command.finish(*MARKED)["ledger"]["read"] == N_ROWS + 1
    assert command.finish(*MARKED, "--text-template", "{words}!")["ledger"]["written"] == N_ROWS + 1
    assert command.finish(*MARKED, "--from-start")["ledger"]["read"] == N_ROWS + 1


@pytest.mark.slow
def test_documents_of_rows_that_are_gone_leave_only_when_asked_and_only_ours(
    command: FakeRowCommand, table: sqlite3.Connection
) -> None:
    command.finish(*MARKED)
    foreign = json.dumps({"words": "of an application", "_neural": {"stamp": "a.b.c.0123456789abcdef"}}).encode()
    command.cluster.put("700", foreign)
    command.cluster.put("701", b'{"words": "without a stamp"}')
    table.execute("DELETE FROM item WHERE id < 10")
    assert command.finish(*MARKED)["removed"] == 0
    assert len(command.written()) == N_ROWS + 2
    assert command.finish(*MARKED, "--remove-gone")["removed"] == 10
    assert command.written() == expected(table) | {"700": "of an application", "701": "without a stamp"}
    table.execute("DELETE FROM item")
    code, _, err = command.run(*MARKED, "--remove-gone")
    assert (code, len(command.cluster.documents)) == (1, N_ROWS - 10 + 2)
    assert "has no row" in err


@pytest.mark.slow
def test_an_id_that_comes_twice_is_a_dead_letter(command: FakeRowCommand) -> None:
    twice = ["SELECT id % 599 AS id, words FROM item" if a.startswith("SELECT") else a for a in command.arguments]
    command.arguments = twice
    code, out, _ = command.run()
    report = json.loads(out)
    assert (code, report["ledger"]["dead_lettered"], report["ledger"]["written"]) == (3, 1, N_ROWS - 1)
    letters = Path(report["dead_letters"]).read_text()
    assert "the same id came earlier" in letters


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--text-field", "word"], "no column word"),
        (["--id-field", "idd"], "no column idd: did you mean id?"),
        (["--watermark", "change"], "no column change: did you mean changed?"),
        (["--text-template", "{wrods}"], "no column wrods: did you mean words?"),
        (["--text-field", "words"], "has a column words already"),
        (["--sql", "SELECT * FROM itme"], "no such table: itme"),
    ],
)
def test_a_wrong_column_is_refused_before_anything_is_written(
    command: FakeRowCommand, options: list[str], message: str
) -> None:
    if options[1] == "word":
        at = command.arguments.index("--text-template")
        del command.arguments[at : at + 2]
    code, _, err = command.run(*options)
    assert code == 2
    assert message in err
    assert not [request for request in command.cluster.requests if request.method in ("PUT", "POST")]


@pytest.mark.slow
def test_a_signal_names_the_command_to_go_on_without_the_credentials(command: FakeRowCommand) -> None:
    command.slow(0.2)
    with command.start("--database", f"{command.address}?timeout=77.25", *MARKED) as process:
        command.wait(process, command.bulks())
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=300)
    assert process.returncode == 143
    assert "go on with: neural-bridge ingest things" in err
    assert "77.25" not in out + err


@pytest.mark.slow
def test_facts_are_written_by_the_command(tmp_path: Path) -> None:
    (tmp_path / "facts.nt").write_text(
        "<http://x/Q142> <http://x/capital> <http://x/Q90> .\n"
        '<http://x/Q90> <http://www.w3.org/2000/01/rdf-schema#label> "Paris"@en .\n'
        "no triple\n"
    )
    with fake_cluster() as cluster:
        command = FakeRowCommand(cluster, tmp_path, "", TEXT_FIELDS)
        kept = command.arguments[: command.arguments.index("--sql")]
        done = subprocess.run(
            [*kept, "--triples", str(tmp_path / "facts.nt")],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 3, done.stderr
        ledger = json.loads(done.stdout)["ledger"]
        assert (ledger["read"], ledger["written"], ledger["dead_lettered"]) == (3, 2, 1)
        stored = json.loads(cluster.documents["http://x/Q142"])
        assert (stored["name"], stored["facts"]) == ("Q142", ["capital: Paris"])
        assert json.loads(cluster.documents["http://x/Q90"])["label"] == {"en": "Paris"}
