"""What reaches stderr of servers and of commands."""

import json
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import structlog

from bridge import logs


def test_servers_write_json_lines_from_info_on(capsys: pytest.CaptureFixture[str]) -> None:
    logs.write_json_lines()
    log = structlog.get_logger("x")
    log.debug("detail")
    log.info("ready", port=9280)
    out, err = capsys.readouterr()
    line = json.loads(err)
    assert (out, line["event"], line["port"], line["level"]) == ("", "ready", 9280, "info")
    assert line["timestamp"].endswith("Z")


def test_commands_write_warnings_as_sentences_that_a_terminal_may_show(capsys: pytest.CaptureFixture[str]) -> None:
    logs.write_warnings()
    log = structlog.get_logger("x")
    log.info("ready")
    log.warning("the cluster is slow", cluster="x\x1b[31m", waited_s=3)
    log.error("stopped")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "warning: the cluster is slow (cluster=x\\x1b[31m, waited_s=3)\nerror: stopped\n"


@pytest.mark.case("S13")
def test_a_traceback_in_a_warning_shows_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    logs.write_warnings()
    structlog.get_logger("x").warning("failed", exc_info=ValueError("x\x1b]52;c;AA\x07\u202e"))
    err = capsys.readouterr().err
    assert "ValueError: x\\x1b]52;c;AA\\x07\\u202e" in err
    assert "\x1b" not in err


@pytest.mark.case("P63")
def test_a_full_disk_costs_the_line_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full").open("w", encoding="utf-8", buffering=1)  # noqa: SIM115 its end fails, too
    monkeypatch.setattr(sys, "stderr", full)
    try:
        logs.write_json_lines()
        structlog.get_logger("tests").info("served", took_ms=3)
    finally:
        monkeypatch.undo()
        with suppress(OSError):
            full.close()
