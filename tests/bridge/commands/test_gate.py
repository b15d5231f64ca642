"""`neural-bridge gate`: forcing a stage without a measurement, and the table; tests/integration measures."""

from pathlib import Path

import pytest
from rich.console import Console

from bridge.commands.gate import _table
from bridge.errors import IndexUnsuitable, UsageError
from bridge.profile import META_KEY, GateRecord, StageVerdict
from tests.bridge.commands.products import Call, printed
from tests.command_line import answer, output, run
from tests.fake_bulk import FakeCluster

FORCED = ("gate", "--index", "shop", "--force", "vector", "--reason", "we looked at it")


def test_a_forced_stage_is_written_with_its_reason(cluster: FakeCluster) -> None:
    record = answer(*FORCED)
    assert record["written"] is True
    assert [each["forced"] for each in record["verdicts"] if each["stage"] == "vector"] == ["we looked at it"]
    assert cluster.mapping["_meta"][META_KEY]["gate"]["verdicts"] == record["verdicts"]


def test_a_dry_run_writes_nothing(cluster: FakeCluster) -> None:
    assert "searches would stop at: " in output(*FORCED, "--dry-run")
    assert all(request.method != "PUT" for request in cluster.requests)


def test_an_index_that_is_not_enriched_has_no_stage_to_force(cluster: FakeCluster) -> None:
    cluster.mapping = {"properties": {}}
    with pytest.raises(IndexUnsuitable, match="index shop is not enriched"):
        run(*FORCED)


@pytest.mark.parametrize("options", [["--force", "rerank"], ["--reason", "because"]])
def test_a_stage_is_forced_with_a_reason(options: list[str]) -> None:
    with pytest.raises(UsageError, match="--force and --reason belong together"):
        run("gate", *options)


def test_a_calibration_needs_questions() -> None:
    with pytest.raises(UsageError, match="--calibrate needs questions"):
        run(*FORCED, "--calibrate")


@pytest.mark.case("S13")
def test_a_reason_cannot_steer_the_terminal(tmp_path: Path) -> None:
    record = GateRecord([StageVerdict("vector", enabled=True, forced="because\x1b[2J [/no markup]")], 0.02)
    with (tmp_path / "out").open("w+") as file:
        Console(file=file, width=120).print(_table(record))
        file.seek(0)
        printed = file.read()
    assert "\x1b" not in printed
    assert r"forced: because\x1b[2J [/no markup]" in printed


def test_a_verdict_on_an_index_that_is_enriched_beside_goes_to_its_companion(call: Call, products_beside: str) -> None:
    record = printed(call("gate", "--index", products_beside, *FORCED[3:], "--json"))
    profile = printed(call("index", "show", products_beside, "--json"))["profile"]
    assert profile["gate"]["verdicts"] == record["verdicts"]
    assert [each["forced"] for each in record["verdicts"] if each["stage"] == "vector"] == ["we looked at it"]
    assert profile["beside"] == products_beside
