"""Query and passages → scores (Nogueira & Cho 2019, "Passage re-ranking with BERT":
https://arxiv.org/abs/1901.04085)."""

import math
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bridge.errors import ModelError
from bridge.models.artifact import ModelFolder
from bridge.models.session import CPU, Session, compute_threads
from bridge.models.text_model import ComputingThreads, open_text_model
from bridge.models.tokenization import TextTokenizer, TokenArrays, padded


class CrossEncoder:
    """A cross-encoder: a sequence classifier with one label, or monoT5. Safe to use from several threads.

    `score` does a whole request; `pairs` and `score_pairs` are its two halves, for a server that shares its
    threads among requests.
    """

    def __init__(self, folder: ModelFolder, session: Session, tokenizer: TextTokenizer, *, threads: int) -> None:
        """See `load`, which also verifies the folder."""
        self._session = session
        self._threads = ComputingThreads(threads, name="cross-encoder")
        self.tokenizer = tokenizer
        self.identity = folder.identity
        self.providers = session.providers

    @classmethod
    def load(cls, model: ModelFolder | str, *, threads: int = 0, providers: Sequence[str] = (CPU,)) -> Self:
        """Opens a model: its folder, or what `resolve` takes (a path, a built-in name, a fetched one).

        `threads` 0 takes the CPUs that this process may use; `providers` as in `Session`.

        Raises:
            ModelError: the folder is not what its manifest says, or the model fails its self-test.
            SettingsError: a provider does not start.
        """
        folder, session, tokenizer, shape = open_text_model(model, "cross_encoder", providers)
        if math.prod(shape) != 1:
            raise ModelError(
                f"model {folder.path} gives an array of shape {shape}, expected one logit per pair: "
                f"train or export it with one label"
            )
        return cls(folder, session, tokenizer, threads=compute_threads(threads))

    def score(self, query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        """Raw logits: float32, (n_passages,), input order; higher is more relevant.

        Raises:
            ModelError: the model failed or gave a score that is not finite.
        """
        return np.array(self._threads.map(self.score_pair, self.pairs(query, passages)), dtype=np.float32)

    def pairs(self, query: str, passages: Sequence[str], *, max_tokens: int | None = None) -> list[TokenArrays]:
        """The query beside each passage, tokenised: see `TextTokenizer.pairs`."""
        return self.tokenizer.pairs(query, passages, max_tokens=max_tokens)

    def score_pair(self, pair: TokenArrays) -> float:
        """The logit of one pair, computed on the calling thread.

        Raises:
            ModelError: the model failed or gave a score that is not finite.
        """
        return float(self._session.run(pair).reshape(-1)[0])

    def score_pairs(self, pairs: Sequence[TokenArrays]) -> list[float]:
        """The logits of `pairs`, input order: one by one on a CPU, in one padded batch on what needs large batches.

        Raises:
            ModelError: the model failed or gave a score that is not finite.
        """
        if not self._session.wants_batches:
            return [self.score_pair(pair) for pair in pairs]
        scores: list[float] = self._session.run(padded(pairs)).reshape(-1).tolist()
        return scores

    def close(self) -> None:
        """Ends the threads; the cross-encoder cannot score afterwards."""
        self._threads.close()
