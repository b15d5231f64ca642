"""Texts → embeddings (Reimers & Gurevych 2019, "Sentence-BERT": https://arxiv.org/abs/1908.10084)."""

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from bridge.errors import ModelError
from bridge.models.artifact import ModelFolder, resolve, verify
from bridge.models.computing_threads import ComputingThreads
from bridge.models.session import CPU, Session, compute_threads
from bridge.models.tokenization import INPUT_NAMES, TextTokenizer, TokenArrays, load_tokenizer, padded

Role = Literal["query", "passage"]

_SELF_TEST = "self-test"
_TINY = float(np.finfo(np.float32).tiny)


def _mean(states: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(states.mean(axis=0), dtype=np.float32)


def _max(states: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(states.max(axis=0), dtype=np.float32)


def _cls(states: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.array(states[0], dtype=np.float32)


_POOLING = {"mean": _mean, "max": _max, "cls": _cls}
"""Token states, float32 (n_tokens, dimension) → one vector."""


class Encoder:
    """A bi-encoder. Safe to use from several threads.

    `encode` does a whole list; `sequences` and `embed_sequences` are its two halves, for a server that shares
    its threads among requests.
    """

    def __init__(self, folder: ModelFolder, session: Session, tokenizer: TextTokenizer, *, threads: int) -> None:
        """See `load`, which also verifies the folder."""
        self._manifest = folder.manifest
        self._session = session
        self._threads = ComputingThreads(threads, name="encoder")
        self.tokenizer = tokenizer
        self.dimension: int = folder.manifest.dimension or 0
        self.identity = folder.identity

    @classmethod
    def load(cls, model: ModelFolder | str, *, threads: int = 0, providers: Sequence[str] = (CPU,)) -> Self:
        """Opens a model: its folder, or what `resolve` takes (a path, a built-in name, a fetched one).

        `threads` 0 takes the CPUs that this process may use; `providers` as in `Session`.

        Raises:
            ModelError: the folder is not what its manifest says, or the model fails its self-test.
            SettingsError: a provider does not start.
        """
        folder = model if isinstance(model, ModelFolder) else resolve(model)
        verify(folder, kind="encoder")
        session = Session(folder.model_file, inputs=INPUT_NAMES, providers=providers)
        encoder = cls(folder, session, load_tokenizer(folder), threads=compute_threads(threads))
        encoder._check_fit(folder)
        return encoder

    def encode(self, texts: Sequence[str], role: Role = "query") -> NDArray[np.float32]:
        """Embeds `texts`: float32, (n_texts, dimension), rows of unit length, input order.

        Raises:
            ModelError: the model failed or gave a value that is not finite.
        """
        embeddings = self._threads.map(self.embed_sequence, self.sequences(texts, role))
        return np.stack(embeddings) if embeddings else np.zeros((0, self.dimension), dtype=np.float32)

    def sequences(self, texts: Sequence[str], role: Role = "query") -> list[TokenArrays]:
        """`texts` with the prefix that the model wants for their role, tokenised."""
        prefix = self._manifest.query_prefix if role == "query" else self._manifest.passage_prefix
        return self.tokenizer.sequences([prefix + text for text in texts])

    def embed_sequence(self, sequence: TokenArrays) -> NDArray[np.float32]:
        """One embedding, float32 (dimension,), computed on the calling thread.

        Raises:
            ModelError: the model failed or gave a value that is not finite.
        """
        return self._pooled(self._session.run(sequence)[0])

    def embed_sequences(self, sequences: Sequence[TokenArrays]) -> list[NDArray[np.float32]]:
        """One embedding for each of `sequences`, input order: one by one on a CPU, in one padded batch on what needs
        large batches.

        Raises:
            ModelError: the model failed or gave a value that is not finite.
        """
        if not self._session.wants_batches:
            return [self.embed_sequence(sequence) for sequence in sequences]
        states = self._session.run(padded(sequences))
        return [
            self._pooled(of_text[: sequence["input_ids"].size])
            for of_text, sequence in zip(states, sequences, strict=True)
        ]

    def _pooled(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """One text's embedding, float32 (dimension,), from the states of its tokens."""
        embedding = _POOLING[self._manifest.pooling](states)
        if self._manifest.normalise:
            embedding /= max(float(np.linalg.norm(embedding)), _TINY)
        return embedding

    def close(self) -> None:
        """Ends the threads; the encoder is of no use afterwards."""
        self._threads.close()

    def _check_fit(self, folder: ModelFolder) -> None:
        """Compares tokenizer, model and manifest by embedding a text that holds the highest id."""
        sequence = self.tokenizer.sequences([_SELF_TEST])[0]
        sequence["input_ids"][0, -1] = self.tokenizer.vocabulary_size - 1
        try:
            states = self._session.run(sequence)
        except ModelError as error:
            raise ModelError(
                f"model {folder.path} fails its self-test; its tokenizer has {self.tokenizer.vocabulary_size:,} "
                f"ids, perhaps more than the model: {error}"
            ) from error
        if states.ndim != 3 or states.shape[2] != self.dimension:
            raise ModelError(
                f"model {folder.path} gives an array of shape {states.shape}, expected (1, n_tokens, "
                f"{self.dimension}): correct `dimension` in its manifest, or export it anew"
            )
