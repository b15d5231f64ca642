"""Makes a static encoder of another encoder, as Model2Vec does it (Tulkens & van Dongen 2024:
https://github.com/MinishLab/model2vec).

Every piece of the vocabulary is embedded as a text of its own, principal components shorten these embeddings, and
smoothed inverse frequency weighs them (Arora et al. 2017: https://openreview.net/forum?id=SyK00v5xx).
"""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bridge.errors import ModelError
from bridge.models.artifact import TOKENIZER, Manifest, ModelFolder, names_only, verify, write_manifest
from bridge.models.encoder import Encoder
from bridge.models.token_vectors import VECTORS_FILE, save
from bridge.models.tokenization import TextTokenizer, TokenArrays

SMOOTHING = 1e-3
"""A piece as frequent as this weighs half of what a rare one does (Arora et al. 2017, Model2Vec)."""

_TEXTS_AT_ONCE = 1_000


def make_static_encoder(
    model: ModelFolder, out: Path, *, name: str, dimension: int, texts: Sequence[str], sources: Sequence[str] = ()
) -> ModelFolder:
    """Writes a static encoder of the encoder `model` to `out`; `texts` are what its pieces are counted in.

    `sources` name the texts in the manifest, before the sources of `model`.

    Raises:
        ModelError: `model` is no encoder, has fewer dimensions, or the texts have too few different pieces.
    """
    verify(model, kind="encoder")
    encoder = Encoder.load(model, threads=1)
    counts = _counts(encoder.tokenizer, texts)
    if dimension > encoder.dimension:
        raise ModelError(
            f"model {model.path} gives {encoder.dimension} numbers, a static encoder made of it cannot have "
            f"{dimension}: ask for at most {encoder.dimension}"
        )
    if dimension > (seen := int((counts > 0).sum())):
        raise ModelError(f"the texts have {seen:,} different pieces of words, {dimension} are needed: add texts")
    embeddings = np.stack(encoder.embed_sequences(_each_piece_alone(encoder)))
    encoder.close()
    vectors, variance_kept = _shortened(embeddings, dimension, typical=counts > 0)
    vectors *= inverse_frequency(counts)[:, None]
    vectors[encoder.tokenizer.special_ids] = 0
    out.mkdir(parents=True, exist_ok=True)
    save(vectors, out / VECTORS_FILE)
    (out / TOKENIZER).write_bytes(model.tokenizer_file.read_bytes())
    manifest = Manifest(
        kind="static_encoder",
        name=name,
        licence=model.manifest.licence,
        max_tokens=model.manifest.max_tokens,
        files=names_only([VECTORS_FILE, TOKENIZER]),
        file=VECTORS_FILE,
        dimension=dimension,
        languages=model.manifest.languages,
        sources=[f"every piece of the vocabulary, embedded by {model.identity}", *sources, *model.manifest.sources],
        figures={"variance_kept": variance_kept},
    )
    return write_manifest(out, manifest)


def inverse_frequency(counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """The weight of each piece, float32 (n_ids,), in (0, 1): a / (a + p), with p its share of all counts, each piece
    counted once more than it was seen."""
    shares = (counts + 1) / (counts.sum() + len(counts))
    return np.asarray(SMOOTHING / (SMOOTHING + shares), dtype=np.float32)


def _counts(tokenizer: TextTokenizer, texts: Sequence[str]) -> NDArray[np.int64]:
    """How often each id stands in the texts: int64 (n_ids,)."""
    counts = np.zeros(tokenizer.vocabulary_size, dtype=np.int64)
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        ids = chain.from_iterable(tokenizer.ids(texts[start : start + _TEXTS_AT_ONCE]))
        counts += np.bincount(np.fromiter(ids, dtype=np.int64), minlength=len(counts))
    counts[tokenizer.special_ids] = 0
    return counts


def _each_piece_alone(encoder: Encoder) -> list[TokenArrays]:
    """For each id, the sequence of a text that has this token only; a part of a word cannot be typed as a text."""
    n_special = encoder.tokenizer.sequences([""])[0]["input_ids"].size
    frame = encoder.sequences([""], "passage")[0]["input_ids"][0]
    place = frame.size - (n_special - n_special // 2)  # before what ends a text
    pieces = []
    for piece in range(encoder.tokenizer.vocabulary_size):
        ids = np.insert(frame, place, piece)[None]
        pieces.append({"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)})
    return pieces


def _shortened(
    embeddings: NDArray[np.float32], dimension: int, *, typical: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], float]:
    """The embeddings along the first principal components of the `typical` ones, float32 (n, dimension), and the share
    of these ones' variance that is left."""
    mean = embeddings[typical].mean(axis=0)
    centred = embeddings - mean
    variances, components = np.linalg.eigh(centred[typical].T @ centred[typical])
    variances, components = variances[::-1], components[:, ::-1][:, :dimension]
    # A component's sign is chance: the largest number is positive, so that the same models make the same vectors.
    components *= np.sign(components[np.abs(components).argmax(axis=0), range(dimension)])
    return centred @ components, float(variances[:dimension].sum() / variances.sum())
