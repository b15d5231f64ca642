"""How true one form of a model is to another: int8 to float32, one engine's weights to another's."""

import math
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bridge.errors import ModelError
from bridge.models.artifact import ModelFolder
from bridge.models.cross_encoder import CrossEncoder
from bridge.models.encoder import Encoder
from bridge.models.image_encoder import ImageEncoder
from bridge.models.sparse_encoder import SparseEncoder
from bridge.records import Terms

LOWEST = {"cosine_to_reference": 0.98, "picture_cosine_to_reference": 0.98, "nearest_shared": 0.8, "kendall_tau": 0.8}
"""Figures below these tell of a broken conversion rather than of rounding: the shipped int8 files stand at .998,
.95 and above .9 if they read every token."""

_LOWEST_WITHOUT_ALL_TOKENS = {"kendall_tau": 0.7}
"""Where the upper layers leave out tokens: rerank-base stands at .87, and at .85 with a third of them."""

_NEAREST = 10
_COMPARED_QUERIES = 8


def fidelity(
    reference: ModelFolder, model: ModelFolder, pairs: Sequence[tuple[str, str]], pictures: Sequence[bytes] = ()
) -> dict[str, float]:
    """Figures of `model` beside `reference`, over `pairs` of query (may be empty) and passage, and over files of
    pictures.

    Encoders: mean cosine, of image encoders that of pictures too, and the share of each query's ten nearest passages
    that stays. Cross-encoders: mean difference of the logits, their standard deviation for scale, and Kendall's tau of
    the rankings of all passages for each of the first queries. Sparse encoders: mean cosine of the passages' weighted
    terms, and the share of the terms that stay. All: how many times as fast the model is, one sequence at a time on one
    thread.

    Raises:
        ModelError: the two are of different kinds, or of one that has no comparison; an image encoder without pictures.
    """
    kinds = {reference.manifest.kind, model.manifest.kind}
    if kinds in ({"encoder"}, {"static_encoder"}):
        return _encoders(reference, model, pairs)
    if kinds == {"cross_encoder"}:
        return _cross_encoders(reference, model, pairs)
    if kinds == {"sparse_encoder"}:
        return _sparse_encoders(reference, model, [passage for _, passage in pairs])
    if kinds == {"image_encoder"}:
        return _encoders(reference, model, pairs) | _of_pictures(reference, model, pictures)
    raise ModelError(
        f"model {model.path} of kind {model.manifest.kind} cannot be compared with {reference.path} of kind "
        f"{reference.manifest.kind}: name two models of one kind"
    )


def check(figures: dict[str, float], model: ModelFolder) -> None:
    """Refuses a model whose figures are below `LOWEST`; one that leaves out tokens may differ more.

    Raises:
        ModelError: they are.
    """
    lowest_of = LOWEST if model.manifest.keep_tokens == 1 else LOWEST | _LOWEST_WITHOUT_ALL_TOKENS
    for name, lowest in lowest_of.items():
        if figures.get(name, 1.0) < lowest:
            raise ModelError(
                f"model {model.path} is not the reference in another form: {name} is {figures[name]:.3f}, at least "
                f"{lowest} is rounding; export and quantise it anew"
            )


def _encoders(reference: ModelFolder, model: ModelFolder, pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    queries = [query for query, _ in pairs if query]
    passages = [passage for _, passage in pairs]
    seconds, embedded = [], []
    for folder in (reference, model):
        encoder = Encoder.load(folder, threads=1)
        began = time.perf_counter()
        embedded.append((encoder.encode(passages, "passage"), encoder.encode(queries, "query")))
        seconds.append(time.perf_counter() - began)
        encoder.close()
    (expected, expected_queries), (found, found_queries) = embedded
    figures = {"cosine_to_reference": float((expected * found).sum(axis=1).mean())}
    if queries:
        nearest = [
            np.argsort(-query @ embeddings.T, axis=1)[:, :_NEAREST]
            for query, embeddings in ((expected_queries, expected), (found_queries, found))
        ]
        shared = [len(set(a) & set(b)) / len(a) for a, b in zip(*nearest, strict=True)]
        figures["nearest_shared"] = float(np.mean(shared))
    return figures | {"speed_ratio": seconds[0] / seconds[1]}


def _of_pictures(reference: ModelFolder, model: ModelFolder, pictures: Sequence[bytes]) -> dict[str, float]:
    if not pictures:
        raise ModelError("image encoders are compared by texts and pictures: give a folder of pictures with --pictures")
    seconds, embedded = [], []
    for folder in (reference, model):
        encoder = ImageEncoder.load(folder, threads=1)
        read = [encoder.read(picture) for picture in pictures]
        began = time.perf_counter()
        embedded.append(encoder.encode(read))
        seconds.append(time.perf_counter() - began)
        encoder.close()
    expected, found = embedded
    cosine = float((expected * found).sum(axis=1).mean())
    return {"picture_cosine_to_reference": cosine, "picture_speed_ratio": seconds[0] / seconds[1]}


def _sparse_encoders(reference: ModelFolder, model: ModelFolder, passages: Sequence[str]) -> dict[str, float]:
    seconds, encoded = [], []
    for folder in (reference, model):
        encoder = SparseEncoder.load(folder, threads=1)
        began = time.perf_counter()
        encoded.append(encoder.encode(passages))
        seconds.append(time.perf_counter() - began)
        encoder.close()
    pairs = [(expected, found) for expected, found in zip(*encoded, strict=True) if expected]
    return {
        "cosine_to_reference": float(np.mean([_cosine(expected, found) for expected, found in pairs])),
        "terms_shared": float(
            np.mean([len(expected.keys() & found.keys()) / len(expected) for expected, found in pairs])
        ),
        "speed_ratio": seconds[0] / seconds[1],
    }


def _cosine(one: Terms, other: Terms) -> float:
    product = sum(weight * other.get(term, 0.0) for term, weight in one.items())
    return product / max(math.hypot(*one.values()) * math.hypot(*other.values()), float(np.finfo(np.float32).tiny))


def _cross_encoders(reference: ModelFolder, model: ModelFolder, pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    passages = [passage for _, passage in pairs]
    queries = [query for query, _ in pairs if query][:_COMPARED_QUERIES]
    if not queries:
        raise ModelError("cross-encoders are compared by their rankings: give texts that have a `query`")
    seconds, scores = [], []
    for folder in (reference, model):
        cross_encoder = CrossEncoder.load(folder, threads=1)
        began = time.perf_counter()
        scores.append(np.array([cross_encoder.score(query, passages) for query in queries]))
        seconds.append(time.perf_counter() - began)
        cross_encoder.close()
    expected, found = scores
    return {
        "logit_difference": float(np.abs(expected - found).mean()),
        "logit_deviation": float(expected.std()),
        "kendall_tau": float(np.mean([kendall_tau(a, b) for a, b in zip(expected, found, strict=True)])),
        "speed_ratio": seconds[0] / seconds[1],
    }


def kendall_tau(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Kendall's tau-a of two score lists, float32 (n,): pairs in the same order less pairs in the other, as a share of
    all (Kendall 1938)."""
    first, second = np.triu_indices(len(a), k=1)
    return float((np.sign(a[first] - a[second]) * np.sign(b[first] - b[second])).mean())
