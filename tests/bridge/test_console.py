"""Where there is no terminal, progress is lines."""

import io
import time

import pytest
from rich.console import Console

from bridge import console as console_module
from bridge.console import Display


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def display(output: io.StringIO) -> Display:
    return Display(Console(file=output, width=160))


def test_progress_without_a_terminal_writes_a_line_now_and_then(
    display: Display, output: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console_module, "LINE_EVERY_S", 0.01)
    with display.progress("reading", 100) as show:
        show(0)
        for done in (40, 80):
            time.sleep(0.02)
            show(done)
    lines = output.getvalue().splitlines()
    assert len(lines) == 2
    assert "80 of 100" in lines[1]


def test_step_says_when_it_begins_and_how_long_it_took(display: Display, output: io.StringIO) -> None:
    with display.step("starting the node"):
        assert "starting the node …" in output.getvalue()
    assert output.getvalue().rstrip().endswith(" s")
