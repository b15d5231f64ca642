"""Progress without a terminal is lines; text of others cannot steer the terminal."""

import io
import time

import pytest
from rich.console import Console

from bridge import console as console_module
from bridge.console import Display, safe_text


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


@pytest.mark.case("S13")
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Rain cape", "Rain cape"),
        ("\x1b[2J\x1b]52;c;cm0=\x07", r"\x1b[2J\x1b]52;c;cm0=\x07"),
        ("a\nError: b\tc\r", r"a\nError: b\tc\r"),
        ("\x9b31mred\x7f", r"\x9b31mred\x7f"),
        ("invoice\u202efdp.exe", r"invoice\u202efdp.exe"),
        ("half \ud83d", r"half \ud83d"),
        ("می\u200cخواهم café 👩\u200d🔬", "می\u200cخواهم café 👩\u200d🔬"),
    ],
    ids=["plain", "escape sequences", "line breaks", "C1 and delete", "turned direction", "surrogate", "other scripts"],
)
def test_control_characters_are_shown_and_never_sent(text: str, shown: str) -> None:
    assert safe_text(text) == shown


def test_a_message_of_several_lines_keeps_them() -> None:
    assert safe_text("two\n\tlines\x1b", lines=True) == "two\n\tlines\\x1b"


NAMES = ["a[/b]c", "a[red]c", "a[link=http://h]c", "a\x1b]52;c;eA==\x07c", "a\u202ec", "a\x9b31mc"]


@pytest.mark.case("S20")
@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_names_in_steps_and_progress_steer_nothing(
    output: io.StringIO, monkeypatch: pytest.MonkeyPatch, name: str, terminal: bool
) -> None:
    monkeypatch.setattr(console_module, "LINE_EVERY_S", 0.0)
    display = Display(Console(file=output, width=200, force_terminal=terminal, color_system=None))
    with display.progress(name, 10) as show:
        show(1, 10, name)
    with display.step(name):
        pass
    display.say(name)
    shown = output.getvalue()

    assert shown.count(safe_text(name)) >= 4
    assert not set("\x07\u202e\x9b") & set(shown)
    assert "\x1b]" not in shown
