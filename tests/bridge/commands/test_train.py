"""`neural-bridge train`: options become a preset; tests/bridge/training trains."""

from pathlib import Path

import pytest

from bridge.commands.train import _Run
from tests.command_line import run


def test_minutes_limit_every_loop_of_the_preset() -> None:
    pytest.importorskip("torch", reason="training needs the train extra")
    preset = _Run(Path(), (), (), Path(), "smoke", 2.5, 1, resume=False, out=Path(), as_json=False)._preset()
    loops = (preset.ranking_loop, preset.embedding_loop, preset.generation_loop)
    assert [loop.time_limit_s for loop in loops] == [150.0] * 3


def test_data_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    done = run("train", "encoder", "--data", missing, "--base", str(tmp_path), "--out", str(tmp_path / "out"))
    assert done.exit_code == 2
    assert "--data" in done.stderr
