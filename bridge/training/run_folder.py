"""A run's folder: the results of every step, so that a killed run continues.

Mined candidates, teachers' logits, development sets, checkpoint, log (`log.csv`, `log.png`) and finally `model/`, which
`bridge.training.export` exports to a model folder.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog
from torch import Tensor, nn

from bridge.errors import UsageError
from bridge.models.artifact import TOKENIZER, ModelFolder
from bridge.training.data import JudgedCollection, read_value, write_value
from bridge.training.development import DevelopmentSet, development_set
from bridge.training.loop import Figures, LoopSettings, TrainingLoop, draw_log
from bridge.training.mining import CandidateSet, Embed
from bridge.training.teachers import ListTeaching, TeacherLogits, Teaching, VectorTeaching, all_embed, teacher_logits

log = structlog.get_logger(__name__)

CANDIDATES = "candidates.json.gz"
LOGITS = "teachers.json.gz"

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run; with `resume` an earlier run in it continues."""

    path: Path
    resume: bool

    @classmethod
    def claimed(cls, path: Path, *, resume: bool) -> "RunFolder":
        """Creates the folder.

        Raises:
            UsageError: the folder has a run already, and `resume` is not set.
        """
        if not resume and path.exists() and any(path.iterdir()):
            raise UsageError(
                f"--out {path} is not empty: add --resume to go on with the run in it, or name a new folder"
            )
        path.mkdir(parents=True, exist_ok=True)
        return cls(path, resume)

    @property
    def model(self) -> Path:
        """The trained model, in transformers' layout."""
        return self.path / "model"

    def candidates(self, mine: Callable[[], CandidateSet], *, at_least: int) -> CandidateSet:
        """The run's candidates, mined if there are none yet.

        Raises:
            UsageError: fewer than `at_least` queries have negatives.
        """
        candidates = self._once(CANDIDATES, CandidateSet, mine)
        if len(candidates.lists) < at_least:
            raise UsageError(
                f"{len(candidates.lists)} queries with negatives, at least {at_least} are needed: give more pairs, or "
                f"passages that differ"
            )
        return candidates

    def logits(self, candidates: CandidateSet, teachers: Sequence[ModelFolder]) -> TeacherLogits:
        """The teachers' logits of the run's candidates.

        Raises:
            ModelError: a teacher cannot teach.
        """
        return self._once(LOGITS, TeacherLogits, lambda: teacher_logits(candidates, teachers))

    def teaching(
        self, candidates: CandidateSet, teachers: Sequence[ModelFolder], embed: Callable[[], Embed]
    ) -> Teaching:
        """The teachers' logits for an encoder; `embed` opens the base, if needed.

        Raises:
            ModelError: a teacher cannot teach.
        """
        if (self.path / LOGITS).exists() or not all_embed(teachers):
            return ListTeaching(candidates, self.logits(candidates, teachers))
        file = self.path / "teachers.npz"
        if not file.exists():
            VectorTeaching.of(candidates, teachers, embed()).save(file)
        return VectorTeaching.load(file)

    def development(
        self, collections: Sequence[JudgedCollection], embed: Callable[[], Embed], *, n_queries: int, depth: int
    ) -> list[DevelopmentSet]:
        """The development sets of the run; `embed` opens an encoder, if they are not chosen yet."""

        def choose() -> list[DevelopmentSet]:
            embed_texts = embed()
            return [development_set(one, embed_texts, n_queries=n_queries, depth=depth) for one in collections]

        return self._once("development.json", list[DevelopmentSet], choose)

    def train(
        self,
        model: nn.Module,
        *,
        loss: Callable[[int, float], Tensor],
        evaluate: Callable[[], Figures],
        settings: LoopSettings,
    ) -> None:
        """Trains to the end, from the checkpoint if there is one and `resume` is set; draws the log."""
        loop = TrainingLoop(model, loss=loss, evaluate=evaluate, settings=settings, folder=self.path)
        if self.resume and loop.resume():
            log.info("resumed", step=loop.step)
        loop.run()
        draw_log(self.path / "log.csv", self.path / "log.png")

    def save_bert(self, model: nn.Module, base: Path) -> Path:
        """Writes a trained BERT, with any head and with its base's tokenizer; returns `model`."""
        model.save_pretrained(self.model)
        (self.model / TOKENIZER).write_bytes((base / TOKENIZER).read_bytes())
        return self.model

    def _once(self, name: str, kind: type[Value], make: Callable[[], Value]) -> Value:
        file = self.path / name
        if not file.exists():
            write_value(make(), file)
        return read_value(file, kind)
