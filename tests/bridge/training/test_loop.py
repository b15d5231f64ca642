import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs the train extra")

import torch
from torch import Tensor, nn

from bridge.errors import UsageError
from bridge.training.loop import LoopSettings, TrainingLoop, draw_log

SETTINGS = LoopSettings(
    total_steps=30, learning_rate=0.1, warmup_steps=3, averaging=0.5, weight_decay=0.0, log_every_steps=10
)


def line(seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(2, 1)


def distance_from_target(model: nn.Linear) -> Callable[[int, float], Tensor]:
    """How far the model is from x → 3a - b on a batch that depends on the step."""

    def loss(step: int, progress: float) -> Tensor:
        inputs = torch.randn(8, 2, generator=torch.Generator().manual_seed(step))
        return (model(inputs).squeeze(-1) - inputs @ torch.tensor([3.0, -1.0])).square().mean()

    return loss


def loop_for(model: nn.Linear, folder: Path, settings: LoopSettings = SETTINGS) -> TrainingLoop:
    return TrainingLoop(
        model, loss=distance_from_target(model), evaluate=lambda: {"weight": 0.0}, settings=settings, folder=folder
    )


def weights(model: nn.Linear) -> list[float]:
    return [value for parameter in model.parameters() for value in parameter.flatten().tolist()]


def test_the_loss_falls(tmp_path: Path) -> None:
    model = line()
    loop_for(model, tmp_path, replace(SETTINGS, total_steps=120)).run()
    assert distance_from_target(model)(0, 1.0).item() < 0.1


def test_equal_seeds_give_equal_weights(tmp_path: Path) -> None:
    first, second = line(), line()
    loop_for(first, tmp_path / "a").run()
    loop_for(second, tmp_path / "b").run()
    assert weights(first) == weights(second)


def test_a_killed_run_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    unbroken = line()
    loop_for(unbroken, tmp_path / "a").run()

    class Killed(Exception):
        pass

    interrupted = line()
    loss = distance_from_target(interrupted)

    def loss_until_killed(step: int, progress: float) -> Tensor:
        if step == 17:
            raise Killed
        return loss(step, progress)

    often = replace(SETTINGS, checkpoint_every_s=0.0)
    with pytest.raises(Killed):
        TrainingLoop(interrupted, loss=loss_until_killed, evaluate=dict, settings=often, folder=tmp_path / "b").run()
    resumed = line(seed=5)
    loop = loop_for(resumed, tmp_path / "b")
    assert loop.resume()
    assert loop.step == 17
    loop.run()
    assert weights(resumed) == pytest.approx(weights(unbroken), abs=1e-6)


def test_there_is_nothing_to_resume_in_an_empty_folder(tmp_path: Path) -> None:
    assert not loop_for(line(), tmp_path).resume()


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    loop_for(line(), tmp_path).run()
    model = line()
    model.bias.requires_grad_(False)
    with pytest.raises(UsageError, match="other weights"):
        loop_for(model, tmp_path).resume()


def test_frozen_weights_keep_still(tmp_path: Path) -> None:
    model = line()
    model.bias.requires_grad_(False)
    before = model.bias.item()
    loop_for(model, tmp_path).run()
    assert model.bias.item() == before


def test_a_time_limit_ends_the_run(tmp_path: Path) -> None:
    loop = loop_for(line(), tmp_path, replace(SETTINGS, total_steps=10**9, time_limit_s=0.2))
    loop.run()
    assert 0 < loop.step < 10**9


def test_losses_and_development_figures_are_logged_with_their_step(tmp_path: Path) -> None:
    loop_for(line(), tmp_path).run()
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["figure"]) for row in rows] == [
        ("10", "loss"),
        ("20", "loss"),
        ("30", "loss"),
        ("30", "weight"),
    ]


def test_the_log_becomes_a_picture(tmp_path: Path) -> None:
    loop_for(line(), tmp_path).run()
    draw_log(tmp_path / "log.csv", tmp_path / "log.png")
    assert (tmp_path / "log.png").read_bytes().startswith(b"\x89PNG")
