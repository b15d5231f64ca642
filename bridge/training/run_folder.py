"""A run's folder: what is made once and found again when the run goes on after a kill.

Mined candidates, what the teachers think of them, development sets, checkpoint, log (`log.csv`, `log.png`) and at the
end `model/`, which `bridge.training.export` turns into a model folder.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from bridge.errors import UsageError
from bridge.models.artifact import ModelFolder
from bridge.training.data import JudgedCollection
from bridge.training.development import (
    DevelopmentSet,
    development_set,
    load_development_sets,
    save_development_sets,
)
from bridge.training.log_plot import draw_log
from bridge.training.loop import TrainingLoop
from bridge.training.mining import CandidateSet, Embed, load_candidates, save_candidates
from bridge.training.teachers import TeacherLogits, load_logits, save_logits, teacher_logits
from bridge.training.teaching import ListTeaching, Teaching, VectorTeaching, all_embed

logger = logging.getLogger(__name__)

_LOGITS = "teachers.json.gz"

MODEL = "model"
"""Name of the trained transformers folder in a run's folder."""


def claim(folder: Path, *, resume: bool) -> None:
    """Makes a run's folder.

    Raises:
        UsageError: it holds a run already, and that is not to be resumed.
    """
    if not resume and folder.exists() and any(folder.iterdir()):
        raise UsageError(f"--out {folder} is not empty: add --resume to go on with the run in it, or name a new folder")
    folder.mkdir(parents=True, exist_ok=True)


def candidates_in(folder: Path, mine: Callable[[], CandidateSet], *, at_least: int) -> CandidateSet:
    """The run's candidates, mined where it has none yet.

    Raises:
        UsageError: fewer than `at_least` queries have negatives.
    """
    file = folder / "candidates.json.gz"
    if not file.exists():
        save_candidates(mine(), file)
    candidates = load_candidates(file)
    if len(candidates.lists) < at_least:
        raise UsageError(
            f"{len(candidates.lists)} queries with negatives, at least {at_least} are needed: give more pairs, or "
            f"passages that differ"
        )
    return candidates


def logits_in(folder: Path, candidates: CandidateSet, teachers: Sequence[ModelFolder]) -> TeacherLogits:
    """What the teachers think of the run's candidates, asked where it is not known yet.

    Raises:
        ModelError: a teacher cannot teach.
    """
    file = folder / _LOGITS
    if not file.exists():
        save_logits(teacher_logits(candidates, teachers), file)
    return load_logits(file)


def teaching_in(
    folder: Path, candidates: CandidateSet, teachers: Sequence[ModelFolder], embed: Callable[[], Embed]
) -> Teaching:
    """What an encoder is taught; asked where the run does not know it yet. `embed` is the base's, called there.

    Raises:
        ModelError: a teacher cannot teach.
    """
    if (folder / _LOGITS).exists() or not all_embed(teachers):
        return ListTeaching(candidates, logits_in(folder, candidates, teachers))
    file = folder / "teachers.npz"
    if not file.exists():
        VectorTeaching.of(candidates, teachers, embed()).save(file)
    return VectorTeaching.load(file)


def development_in(
    folder: Path, collections: Sequence[JudgedCollection], embed: Callable[[], Embed], *, n_queries: int, depth: int
) -> list[DevelopmentSet]:
    """What the run is watched on; `embed` is called where it is not made yet."""
    file = folder / "development.json"
    if not file.exists():
        embed_texts = embed()
        save_development_sets(
            [development_set(one, embed_texts, n_queries=n_queries, depth=depth) for one in collections], file
        )
    return load_development_sets(file)


def run_in(folder: Path, loop: TrainingLoop, *, resume: bool) -> None:
    """Trains to the end, from the checkpoint on where there is one and `resume` is set; draws the log."""
    if resume and loop.resume():
        logger.info("resumed step=%d", loop.step)
    loop.run()
    draw_log(folder / "log.csv", folder / "log.png")
