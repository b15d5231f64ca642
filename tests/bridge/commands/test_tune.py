"""`neural-bridge tune`: what it refuses before minutes of work; tests/integration tunes an index."""

import sys
from pathlib import Path

import pytest

from bridge.errors import UsageError
from tests.command_line import run


def test_a_picture_that_cannot_be_drawn_is_refused_before_the_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"opensearch-neural-bridge\[plot\]"):
        run("tune", "--collection", str(tmp_path), "--plot", str(tmp_path / "front.png"))


def test_stages_are_checked_first() -> None:
    with pytest.raises(UsageError, match="no stage magic"):
        run("tune", "--collection", ".", "--stages", "magic")
