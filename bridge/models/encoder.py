"""Texts → embeddings (Reimers & Gurevych 2019, "Sentence-BERT": https://arxiv.org/abs/1908.10084)."""

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bridge.errors import ModelError
from bridge.models.artifact import Kind, ModelFolder, Role, resolve, verify
from bridge.models.session import CPU, Session, compute_threads
from bridge.models.text_model import ComputingThreads, open_text_model
from bridge.models.token_vectors import TokenVectors
from bridge.models.tokenization import TextTokenizer, TokenArrays, load_tokenizer, padded

_TINY = float(np.finfo(np.float32).tiny)


_POOLING: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "mean": lambda states: states.mean(axis=0, dtype=np.float32),
    "max": lambda states: states.max(axis=0),
    "cls": lambda states: states[0].copy(),
}
"""Token states, float32 (n_tokens, dimension) → one vector."""


class Encoder:
    """A bi-encoder, static ones and the text towers of image encoders included. Safe to use from several threads.

    `encode` does a whole list; `sequences` and `embed_sequences` are its two halves, for a server that shares
    its threads among requests.
    """

    def __init__(
        self, folder: ModelFolder, engine: Session | TokenVectors, tokenizer: TextTokenizer, *, threads: int
    ) -> None:
        """See `load`, which also verifies the folder."""
        self._manifest = folder.manifest
        self._engine = engine
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
        if folder.manifest.kind == "static_encoder":
            return cls(folder, *_open_static(folder), threads=1)
        kind: Kind = "image_encoder" if folder.manifest.kind == "image_encoder" else "encoder"
        folder, session, tokenizer, shape = open_text_model(folder, kind, providers)
        dimension = folder.manifest.dimension
        expected = "(1, n_tokens, {})" if kind == "encoder" else "(1, {})"
        if len(shape) != expected.count(",") + 1 or shape[-1] != dimension:
            raise ModelError(
                f"model {folder.path} gives an array of shape {shape}, expected {expected.format(dimension)}: correct "
                f"`dimension` in its manifest, or export it anew"
            )
        return cls(folder, session, tokenizer, threads=compute_threads(threads))

    def encode(self, texts: Sequence[str], role: Role = "query") -> NDArray[np.float32]:
        """Embeds `texts`: float32, (n_texts, dimension), rows of unit length, input order.

        Raises:
            ModelError: the model failed or gave a value that is not finite.
        """
        if isinstance(self._engine, TokenVectors):
            return self._engine.embed(self.tokenizer.ids(self._prefixed(texts, role)))
        embeddings = self._threads.map(self.embed_sequence, self.sequences(texts, role))
        return np.stack(embeddings) if embeddings else np.zeros((0, self.dimension), dtype=np.float32)

    def sequences(self, texts: Sequence[str], role: Role = "query") -> list[TokenArrays]:
        """`texts` with the prefix that the model wants for their role, tokenised."""
        return self.tokenizer.sequences(self._prefixed(texts, role))

    def embed_sequence(self, sequence: TokenArrays) -> NDArray[np.float32]:
        """One embedding, float32 (dimension,), computed on the calling thread.

        Raises:
            ModelError: the model failed or gave a value that is not finite.
        """
        return self.embed_sequences([sequence])[0]

    def embed_sequences(self, sequences: Sequence[TokenArrays]) -> list[NDArray[np.float32]]:
        """One embedding for each of `sequences`, input order: one by one on a CPU, in one padded batch on what needs
        large batches.

        Raises:
            ModelError: the model failed or gave a value that is not finite.
        """
        if isinstance(self._engine, TokenVectors):
            return list(self._engine.embed([sequence["input_ids"][0] for sequence in sequences]))
        if not self._engine.wants_batches:
            return [self._pooled(self._engine.run(sequence)[0]) for sequence in sequences]
        states = self._engine.run(padded(sequences))
        return [
            self._pooled(of_text[: sequence["input_ids"].size])
            for of_text, sequence in zip(states, sequences, strict=True)
        ]

    def _prefixed(self, texts: Sequence[str], role: Role) -> list[str]:
        return [self._manifest.prefix(role) + text for text in texts]

    def _pooled(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """One text's embedding, float32 (dimension,), from the states of its tokens."""
        pooled_by_graph = self._manifest.kind == "image_encoder"
        embedding = states if pooled_by_graph else _POOLING[self._manifest.pooling](states)
        if self._manifest.normalise:
            embedding /= max(float(np.linalg.norm(embedding)), _TINY)
        return embedding

    def close(self) -> None:
        """Ends the threads; the encoder cannot embed afterwards."""
        self._threads.close()


def _open_static(folder: ModelFolder) -> tuple[TokenVectors, TextTokenizer]:
    verify(folder, kind="static_encoder")
    tokenizer = load_tokenizer(folder)
    dimension = folder.manifest.dimension or 0
    return TokenVectors.load(folder.model_file, n_ids=tokenizer.vocabulary_size, dimension=dimension), tokenizer
