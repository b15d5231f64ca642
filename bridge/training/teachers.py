"""Teachers: what trained models think of every candidate, as one logit each.

Any encoder or cross-encoder that runs here can teach (Hofstätter et al. 2020, "Improving efficient neural ranking
models with cross-architecture knowledge distillation"). Their scores have scales of their own; the weights that
make one logit of them are those under which the judged passages are likeliest (conditional logit).
"""

import gzip
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from bridge.models.artifact import ModelFolder
from bridge.models.cross_encoder import CrossEncoder
from bridge.models.encoder import Encoder
from bridge.training.mining import CandidateSet

logger = logging.getLogger(__name__)

TeacherLogits = list[list[float]]
"""Per candidate list, one logit for each of its `rows`."""

_FITTED_LISTS = 5000
_FITTING_STEPS = 200


def teacher_logits(candidates: CandidateSet, teachers: Sequence[ModelFolder]) -> TeacherLogits:
    """The ensemble of `teachers` and of the bi-encoder that mined, its cosines being there already.

    Raises:
        ModelError: a teacher is neither encoder nor cross-encoder, or fails.
    """
    scores = [[np.array(found.cosines, dtype=np.float32) for found in candidates.lists]]
    for teacher in teachers:
        logger.info("scoring teacher=%s", teacher.identity)
        ask = _cross_encoder_scores if teacher.manifest.kind == "cross_encoder" else _cosines
        scores.append(list(ask(candidates, teacher)))
    features = [np.stack(columns, axis=1) for columns in zip(*scores, strict=True)]
    weights = fitted_weights(features)
    logger.info("weights %s", " ".join(f"{weight:.2f}" for weight in weights))
    return [(rows @ weights).tolist() for rows in features]


def fitted_weights(features: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """float32 (n_teachers,): the weights that make the first of each list's rows likeliest under a softmax.

    `features`: per list float32 (n_candidates, n_teachers), the judged passage first.
    """
    fitted = features[:: max(1, len(features) // _FITTED_LISTS)]
    width = max(len(rows) for rows in fitted)
    padded = torch.zeros(len(fitted), width, fitted[0].shape[1])
    absent = torch.full((len(fitted), width), -torch.inf)
    for number, rows in enumerate(fitted):
        padded[number, : len(rows)] = torch.from_numpy(rows)
        absent[number, : len(rows)] = 0.0
    # Columns of one scale, so that one learning rate does for all.
    scale = torch.cat([torch.from_numpy(rows) for rows in fitted]).std(dim=0).clamp_min(1e-6)
    weights = torch.ones(padded.shape[2], requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=0.05)
    for _ in range(_FITTING_STEPS):
        optimizer.zero_grad()
        likelihood = ((padded / scale) @ weights + absent).log_softmax(dim=1)[:, 0].mean()
        (-likelihood).backward()
        optimizer.step()
    result: NDArray[np.float32] = (weights.detach() / scale).numpy()
    return result


def save_logits(logits: TeacherLogits, file: Path) -> None:
    """Write as gzip JSON; `load_logits` reads it back."""
    with gzip.open(file, "wb", compresslevel=3) as out:
        out.write(msgspec.json.encode(logits))


def load_logits(file: Path) -> TeacherLogits:
    with gzip.open(file, "rb") as content:
        return msgspec.json.decode(content.read(), type=TeacherLogits)


def _cosines(candidates: CandidateSet, folder: ModelFolder) -> Iterator[NDArray[np.float32]]:
    encoder = Encoder.load(folder)
    passages = encoder.encode([passage.text for passage in candidates.passages], "passage")
    queries = encoder.encode([found.query for found in candidates.lists], "query")
    encoder.close()
    for query, found in zip(queries, candidates.lists, strict=True):
        yield passages[found.rows] @ query


def _cross_encoder_scores(candidates: CandidateSet, folder: ModelFolder) -> Iterator[NDArray[np.float32]]:
    cross_encoder = CrossEncoder.load(folder)
    for found in candidates.lists:
        # A passage found by both searches is in the list twice.
        rows = list(dict.fromkeys(found.rows))
        scores = cross_encoder.score(found.query, [candidates.passages[row].text for row in rows])
        by_row = dict(zip(rows, scores.tolist(), strict=True))
        yield np.array([by_row[row] for row in found.rows], dtype=np.float32)
