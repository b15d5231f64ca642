"""Texts → weighted terms for the inverted index (Formal et al. 2021, "SPLADE": https://arxiv.org/abs/2107.05720)."""

import re
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bridge.errors import ModelError
from bridge.models.artifact import IDF, ModelFolder, Role
from bridge.models.session import CPU, Session, compute_threads
from bridge.models.text_model import ComputingThreads, open_text_model
from bridge.models.tokenization import TextTokenizer, TokenArrays
from bridge.records import Terms

MOST_TERMS = 128
"""So many terms of a text leave the model's graph, the largest; more hardly improve a ranking."""

OUTPUTS = ["weights", "ids"]
"""What the graph gives of a text: float32 and int64, (1, n_terms), the largest weight first."""

_SPECIAL = re.compile(r"\[\w+\]|<.*>")


def is_term(piece: str) -> bool:
    """Whether a word piece may be a term: no special token, and without a dot, which separates names in an index."""
    return bool(piece) and "." not in piece and _SPECIAL.fullmatch(piece) is None


class SparseEncoder:
    """A sparse encoder. Safe to use from several threads.

    `encode` does a whole list; `sequences` and `terms_of_sequences` are its two halves, for a server that shares its
    threads among requests. `query_terms` needs no model.
    """

    def __init__(self, folder: ModelFolder, session: Session, tokenizer: TextTokenizer, *, threads: int) -> None:
        """See `load`, which also verifies the folder."""
        self._manifest = folder.manifest
        self._session = session
        self._threads = ComputingThreads(threads, name="sparse-encoder")
        self._pieces = tokenizer.pieces
        self._idf = _idf(folder, self._pieces)
        self.ids = {piece: number for number, piece in enumerate(self._pieces)}
        self.tokenizer = tokenizer
        self.identity = folder.identity

    @classmethod
    def load(cls, model: ModelFolder | str, *, threads: int = 0, providers: Sequence[str] = (CPU,)) -> Self:
        """Opens a model: its folder, or what `resolve` takes (a path, a built-in name, a fetched one).

        `threads` 0 takes the CPUs that this process may use; `providers` as in `Session`.

        Raises:
            ModelError: the folder is not what its manifest says, or the model fails its self-test.
            SettingsError: a provider does not start.
        """
        folder, session, tokenizer, _ = open_text_model(model, "sparse_encoder", providers)
        if session.outputs != OUTPUTS:
            raise ModelError(
                f"model {folder.path} gives {session.outputs}, expected {OUTPUTS}: export it with "
                f"`neural-bridge models export --kind sparse_encoder`"
            )
        return cls(folder, session, tokenizer, threads=compute_threads(threads))

    def encode(self, texts: Sequence[str], role: Role = "passage") -> list[Terms]:
        """The terms of each text, at most `MOST_TERMS`, input order.

        Raises:
            ModelError: the model failed or gave a value that is not finite.
        """
        return self._threads.map(self.terms_of_sequence, self.sequences(texts, role))

    def sequences(self, texts: Sequence[str], role: Role = "passage") -> list[TokenArrays]:
        """`texts` with the prefix that the model wants for their role, tokenised."""
        return self.tokenizer.sequences([self._manifest.prefix(role) + text for text in texts])

    def terms_of_sequence(self, sequence: TokenArrays) -> Terms:
        """The terms of one text, computed on the calling thread.

        Raises:
            ModelError: the model failed or gave a value that is not finite.
        """
        found = self._session.run_all(sequence)
        weights, ids = found["weights"][0], found["ids"][0]
        if not np.isfinite(weights).all():
            raise ModelError(f"model {self.identity} gave a weight that is not finite (NaN or infinity)")
        return {
            self._pieces[number]: weight
            for number, weight in zip(ids.tolist(), weights.tolist(), strict=True)
            if weight > 0
        }

    def terms_of_sequences(self, sequences: Sequence[TokenArrays]) -> list[Terms]:
        """The terms of each of `sequences`, one by one, input order.

        Raises:
            ModelError: the model failed or gave a value that is not finite.
        """
        return [self.terms_of_sequence(sequence) for sequence in sequences]

    def query_terms(self, text: str) -> Terms:
        """A query's own word pieces, weighted by their inverse document frequency, without the model (Geng et al. 2024,
        "Towards Competitive Search Relevance For Inference-Free Learned Sparse Retrievers")."""
        [sequence] = self.tokenizer.sequences([text])
        weights = {self._pieces[number]: float(self._idf[number]) for number in sequence["input_ids"][0].tolist()}
        return {piece: weight for piece, weight in sorted(weights.items(), key=lambda term: -term[1]) if weight > 0}

    def close(self) -> None:
        """Ends the threads; the encoder cannot encode afterwards."""
        self._threads.close()


def _idf(folder: ModelFolder, pieces: Sequence[str]) -> NDArray[np.float32]:
    """The folder's weights of word pieces, or 1 for each; 0 for what is never a term."""
    terms = np.array([is_term(piece) for piece in pieces], dtype=np.float32)
    if IDF not in folder.manifest.files:
        return terms
    file = folder.path / IDF
    try:
        idf: NDArray[np.float32] = np.load(file, allow_pickle=False)
        return idf.astype(np.float32) * terms
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(
            f"model file {file} has no weight for each of {len(pieces):,} word pieces ({error}): export the model anew"
        ) from error
