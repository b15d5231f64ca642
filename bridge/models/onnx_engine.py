"""Query generation by ONNX Runtime: an own loop with a key-value cache, for where CTranslate2 is not installed.

A passage's samples form one batch, so nothing is padded but samples that have ended; threads share the passages.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridge.errors import ModelError
from bridge.models.artifact import ModelFolder
from bridge.models.generation import ONNX_FILES, TOP_K, Sample
from bridge.models.session import Session


class OnnxEngine:
    """Samples with ONNX Runtime. A passage's samples depend on the seed and its row only, not on the threads."""

    def __init__(self, folder: ModelFolder, *, threads: int) -> None:
        """Opens a verified folder.

        Raises:
            ModelError: ONNX Runtime refuses a file, or the manifest lacks the ids around a query.
        """
        manifest = folder.manifest
        if manifest.start_id is None or manifest.end_id is None:
            raise ModelError(f"model {folder.path}: its manifest lacks start_id or end_id: export it anew")
        self._start_id, self._end_id = manifest.start_id, manifest.end_id
        self._encoder, self._first_step, self._next_step = (Session(folder.path / name) for name in ONNX_FILES)
        self._threads = threads

    def sample(
        self, passages: Sequence[Sequence[int]], *, n_samples: int, max_new_tokens: int, seed: int
    ) -> list[list[Sample]]:
        """See `Engine.sample`."""
        with ThreadPoolExecutor(self._threads) as executor:
            return list(
                executor.map(
                    lambda row: self._sample(
                        passages[row], n_samples, max_new_tokens, np.random.default_rng((seed, row))
                    ),
                    range(len(passages)),
                )
            )

    def _sample(
        self, passage: Sequence[int], n_samples: int, max_new_tokens: int, chance: np.random.Generator
    ) -> list[Sample]:
        ids = np.array([passage], dtype=np.int64)
        states = self._encoder.run({"input_ids": ids, "attention_mask": np.ones_like(ids)})
        inputs: dict[str, NDArray[Any]] = {
            "encoder_hidden_states": np.repeat(states, n_samples, axis=0),
            "encoder_attention_mask": np.ones((n_samples, len(passage)), dtype=np.int64),
        }
        answer = self._first_step.run_all(inputs | {"input_ids": np.full((n_samples, 1), self._start_id)})
        cache = _as_past(answer)
        written: list[NDArray[np.int64]] = []
        log_probabilities = np.zeros(n_samples)
        lengths = np.zeros(n_samples, dtype=np.int64)
        has_ended = np.zeros(n_samples, dtype=np.bool_)
        while True:
            chosen, its_log_probability = sample_top_k(answer["logits"][:, -1], chance)
            written.append(np.where(has_ended, self._end_id, chosen))
            log_probabilities += np.where(has_ended, 0.0, its_log_probability)
            lengths += ~has_ended
            has_ended |= chosen == self._end_id
            if len(written) == max_new_tokens or has_ended.all():
                break
            answer = self._next_step.run_all(inputs | cache | {"input_ids": written[-1][:, None]})
            cache |= _as_past(answer)  # the passage's own keys and values stay as the first step gave them
        return [
            Sample([int(number) for number in row if number != self._end_id], float(score))
            for row, score in zip(np.stack(written, axis=1), log_probabilities / lengths, strict=True)
        ]


def sample_top_k(
    logits: NDArray[np.float32], chance: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """One id per row of `logits`, float32 (n_samples, n_ids), from its `TOP_K` likeliest; and the logarithm of its
    probability among all ids."""
    top = np.argpartition(-logits, min(TOP_K, logits.shape[1]) - 1, axis=1)[:, :TOP_K]
    largest = logits.max(axis=1, keepdims=True)
    weights = np.exp(np.take_along_axis(logits, top, axis=1) - largest).cumsum(axis=1)
    drawn = chance.random((len(logits), 1)) * weights[:, -1:]
    places = (weights <= drawn).sum(axis=1, keepdims=True)
    chosen = np.take_along_axis(top, places, axis=1)
    total = np.log(np.exp(logits - largest).sum(axis=1, keepdims=True, dtype=np.float64))
    log_probability = np.take_along_axis(logits, chosen, axis=1) - largest - total
    return chosen[:, 0].astype(np.int64), log_probability[:, 0].astype(np.float64)


def _as_past(answer: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """What a step gave as `present…`, under the names by which the next step takes it."""
    return {
        name.replace("present", "past_key_values", 1): array
        for name, array in answer.items()
        if name.startswith("present")
    }
