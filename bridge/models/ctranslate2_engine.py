"""Query generation by CTranslate2 (https://github.com/OpenNMT/CTranslate2)."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ctranslate2
from tokenizers import Tokenizer

from bridge.errors import ModelError
from bridge.models.artifact import TOKENIZER, ModelFolder
from bridge.models.generation import TOP_K, Sample

BATCH_TOKENS = 2048

FREQUENT_PIECES = 8000
"""Vocabularies list their pieces of words by frequency. A query has the first ones and those of its batch's passages:
with all 30,522 of BERT's, choosing the next piece takes most of a small decoder's time."""


def vocabulary_map(pieces: Sequence[str]) -> bytes:
    """CTranslate2's file of the pieces that can follow from which pieces of a batch's passages: the frequent ones from
    every passage, any other one from itself. `pieces`: the vocabulary in its order."""
    lines = ["\t" + " ".join(pieces[:FREQUENT_PIECES]), *(f"{piece}\t{piece}" for piece in pieces[FREQUENT_PIECES:])]
    return "".join(f"{line}\n" for line in lines).encode()


class CTranslate2Engine:
    """Samples with CTranslate2: each thread has a model of its own and a fixed share of the passages.

    A thread of CTranslate2 seeds its random numbers once, when it first needs one. So each call opens the
    model anew (0.05 s from memory), and the same call gives the same samples.
    """

    def __init__(self, folder: ModelFolder, *, threads: int) -> None:
        """Opens a verified folder; only files that its manifest lists are read.

        Raises:
            ModelError: CTranslate2 refuses the files.
        """
        self._path = folder.path
        self._threads = threads
        names = [name for name in folder.manifest.files if name != TOKENIZER]
        self._ids: dict[str, int] = Tokenizer.from_file(str(folder.tokenizer_file)).get_vocab()
        self._tokens = {number: token for token, number in self._ids.items()}
        self._files = {name: (folder.path / name).read_bytes() for name in names}
        self._files["vmap.txt"] = vocabulary_map([self._tokens[number] for number in sorted(self._tokens)])
        self._open()

    def sample(
        self, passages: Sequence[Sequence[int]], *, n_samples: int, max_new_tokens: int, seed: int
    ) -> list[list[Sample]]:
        """See `Engine.sample`."""
        ctranslate2.set_random_seed(seed)
        # Neighbours in length go to different threads, so that all have as much to do.
        order = sorted(range(len(passages)), key=lambda row: -len(passages[row]))
        shares = [order[start :: self._threads] for start in range(min(self._threads, len(order)))]
        samples: list[list[Sample]] = [[] for _ in passages]
        with ThreadPoolExecutor(len(shares)) as executor:
            answers = executor.map(
                lambda rows: self._sample([passages[row] for row in rows], n_samples, max_new_tokens), shares
            )
            for rows, answer in zip(shares, answers, strict=True):
                for row, drawn in zip(rows, answer, strict=True):
                    samples[row] = drawn
        return samples

    def _sample(self, passages: Sequence[Sequence[int]], n_samples: int, max_new_tokens: int) -> list[list[Sample]]:
        tokens = [[self._tokens[number] for number in passage] for passage in passages]
        try:
            results = self._open().translate_batch(
                tokens,
                max_batch_size=BATCH_TOKENS,
                batch_type="tokens",
                beam_size=1,
                num_hypotheses=n_samples,
                sampling_topk=TOP_K,
                max_decoding_length=max_new_tokens,
                disable_unk=True,
                use_vmap=True,
                return_scores=True,
            )
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"model {self._path}: CTranslate2 failed: {error}") from error
        return [
            [
                Sample([self._ids[token] for token in words], score)
                for words, score in zip(result.hypotheses, result.scores, strict=True)
            ]
            for result in results
        ]

    def _open(self) -> Any:
        try:
            return ctranslate2.Translator(
                str(self._path), device="cpu", inter_threads=1, intra_threads=1, files=self._files
            )
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"model {self._path}: CTranslate2 cannot load it: {error}") from error
