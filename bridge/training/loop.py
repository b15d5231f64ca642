"""The training loop: one optimiser, checkpoints that survive a kill, a log in CSV.

Batches are numbered, and batch `step` depends only on `step`: a resumed run sees the same batches as an uninterrupted
one.
"""

import csv
import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import structlog
import torch
from torch import Tensor, nn

from bridge.errors import UsageError

log = structlog.get_logger(__name__)

Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """Length and learning rate of a run.

    The learning rate rises over `warmup_steps`, stays, and falls to zero over the last `cooldown_share` of the run
    (Zhai et al. 2022), so the end can be moved during a run. The run ends at `total_steps` or `time_limit_s`, whichever
    comes first; with a time limit the result depends on the machine's speed. `averaging`: decay of the exponential
    average of the weights. The averaged weights are evaluated and saved.
    """

    total_steps: int
    learning_rate: float
    warmup_steps: int = 100
    cooldown_share: float = 0.25
    weight_decay: float = 0.01
    averaging: float = 0.99
    time_limit_s: float = float("inf")
    checkpoint_every_s: float = 180.0
    evaluate_every_s: float = 600.0
    log_every_steps: int = 20


class TrainingLoop:
    """Trains `model` on numbered batches; state lives in `folder`.

    `loss(step, progress)` builds batch `step` and returns its mean loss under `model`; `progress` runs from 0 to 1.
    `evaluate()` returns development figures by name, with the averaged weights in `model`. The model may compute in
    bfloat16; the optimiser updates a separate float32 copy of the weights. `run` leaves a float32 model.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        loss: Callable[[int, float], Tensor],
        evaluate: Callable[[], Figures],
        settings: LoopSettings,
        folder: Path,
    ) -> None:
        self._model = model
        self._loss = loss
        self._evaluate = evaluate
        self._settings = settings
        self._folder = folder
        self._trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self._masters = {name: weight.detach().float().clone() for name, weight in self._trained.items()}
        self._average = {name: master.clone() for name, master in self._masters.items()}
        self._optimizer = torch.optim.AdamW(
            [
                {"params": [w for w in self._masters.values() if w.ndim > 1], "weight_decay": settings.weight_decay},
                {"params": [w for w in self._masters.values() if w.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
        )
        self._step = 0
        self._spent_s = 0.0

    @property
    def step(self) -> int:
        """Steps so far, including those before a resume."""
        return self._step

    def resume(self) -> bool:
        """Loads the checkpoint in the folder; False if there is none.

        Raises:
            UsageError: the checkpoint's model trains other weights.
        """
        file = self._folder / "checkpoint.pt"
        if not file.exists():
            return False
        state = torch.load(file, weights_only=True)
        if state["weights"].keys() != self._trained.keys():
            raise UsageError(
                f"the checkpoint {str(file)!r} holds other weights than this model trains: "
                "resume with the options of the first run, or choose another --out"
            )
        for name, master in self._masters.items():
            master.copy_(state["weights"][name])
            self._average[name].copy_(state["average"][name])
        self._show(self._masters)
        self._optimizer.load_state_dict(state["optimizer"])
        self._step, self._spent_s = state["step"], state["spent_s"]
        return True

    def run(self) -> None:
        """Trains to the end and leaves the averaged weights in the model."""
        settings = self._settings
        self._folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic() - self._spent_s
        checkpoint_at = evaluate_at = time.monotonic()
        checkpoint_at += settings.checkpoint_every_s
        evaluate_at += settings.evaluate_every_s
        losses: list[float] = []
        self._model.train()
        while (progress := self._progress()) < 1.0:
            losses.append(self._take_step(progress))
            self._spent_s = time.monotonic() - began
            if self._step % settings.log_every_steps == 0:
                self._log({"loss": sum(losses) / len(losses)})
                losses = []
            if time.monotonic() >= checkpoint_at:
                self._save()
                checkpoint_at = time.monotonic() + settings.checkpoint_every_s
            if time.monotonic() >= evaluate_at:
                self._evaluate_average()
                evaluate_at = time.monotonic() + settings.evaluate_every_s
        self._save()
        self._model.float()
        self._show(self._average)
        self._model.eval()
        self._log(self._evaluate())

    def _progress(self) -> float:
        return max(self._step / self._settings.total_steps, self._spent_s / self._settings.time_limit_s)

    def _take_step(self, progress: float) -> float:
        settings = self._settings
        rate = settings.learning_rate * min(
            1.0,
            (self._step + 1) / settings.warmup_steps,
            (1.0 - progress) / settings.cooldown_share,
        )
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        loss = self._loss(self._step, progress)
        loss.backward()
        for name, master in self._masters.items():
            gradient = self._trained[name].grad
            master.grad = None if gradient is None else gradient.float()
        nn.utils.clip_grad_norm_(self._masters.values(), 1.0)
        self._optimizer.step()
        self._model.zero_grad(set_to_none=True)
        self._show(self._masters)
        self._step += 1
        # A young average must not remember the untrained weights.
        decay = min(settings.averaging, self._step / (self._step + 10))
        for name, master in self._masters.items():
            self._average[name].lerp_(master, 1.0 - decay)
        return float(loss.detach())

    def _evaluate_average(self) -> None:
        self._show(self._average)
        self._model.eval()
        self._log(self._evaluate())
        self._model.train()
        self._show(self._masters)

    def _show(self, weights: Mapping[str, Tensor]) -> None:
        """Copies `weights` into the model, rounded to its precision."""
        with torch.no_grad():
            for name, weight in self._trained.items():
                weight.copy_(weights[name])

    def _save(self) -> None:
        """Replaces the checkpoint atomically, so a kill leaves the old one or the new one."""
        partial = self._folder / "checkpoint.pt.partial"
        torch.save(
            {
                "weights": self._masters,
                "average": self._average,
                "optimizer": self._optimizer.state_dict(),
                "step": self._step,
                "spent_s": self._spent_s,
            },
            partial,
        )
        os.replace(partial, self._folder / "checkpoint.pt")

    def _log(self, figures: Figures) -> None:
        """Appends one row per figure, because names differ between losses and development sets."""
        file = self._folder / "log.csv"
        fresh = not file.exists()
        with file.open("a", encoding="utf-8", newline="") as out:
            writer = csv.writer(out)
            if fresh:
                writer.writerow(["step", "spent_s", "figure", "value"])
            for name, value in figures.items():
                writer.writerow([self._step, round(self._spent_s, 1), name, round(value, 5)])
        log.info("training", step=self._step, **{name: round(value, 4) for name, value in figures.items()})


def draw_log(log_file: Path, picture: Path) -> None:
    """Draws a run's `log.csv` as a PNG: the losses above, the development figures below."""
    series: dict[str, list[tuple[int, float]]] = defaultdict(list)
    with log_file.open(encoding="utf-8", newline="") as rows:
        for row in csv.DictReader(rows):
            series[row["figure"]].append((int(row["step"]), float(row["value"])))
    mpl.use("agg")
    figure, (losses, measures) = plt.subplots(2, 1, figsize=(8, 8), sharex=True, layout="constrained")
    for name, points in sorted(series.items()):
        axes = losses if "loss" in name else measures
        axes.plot(*zip(*points, strict=True), marker="." if len(points) < 50 else None, label=name)
    losses.set_ylabel("loss")
    measures.set_ylabel("nDCG@10 on development queries")
    measures.set_xlabel("step")
    for axes in (losses, measures):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small", ncols=2)
        axes.grid(visible=True, alpha=0.3)
    figure.savefig(picture, dpi=110)
    plt.close(figure)
