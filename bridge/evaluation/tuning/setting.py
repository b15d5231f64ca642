"""One way to answer searches: the part of a profile that can vary without rewriting documents."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from bridge.profile import CascadeSettings, FusionSettings, IndexProfile, PassageScores, RerankSettings, Stage
from bridge.search.fusion import smooths

Method = Literal["rrf", "minmax", "zscore"]

RERANKED: tuple[Stage, ...] = ("rerank", "cascade")
FUSED: tuple[Stage, ...] = ("hybrid", "smoothing", *RERANKED)


@dataclass(frozen=True, slots=True)
class Setting:
    """Values as in the profile; hashable, so each setting is evaluated once. `weights`: pairs of leg and weight,
    sorted, of the legs `sparse` and `image` only if documents have terms and vectors of pictures; `lead`: the profile's
    `rules.confident_lead`; `smoothing`: 0 if the stage does not smooth."""

    stage: Stage
    method: Method
    k: int
    weights: tuple[tuple[str, float], ...]
    expansion_boost: float
    window: int
    depth: int
    blend: float
    passages: int
    passage_scores: PassageScores
    cascade_candidates: int
    cascade_depth: int
    lead: float | None
    smoothing: float = 0.0

    @classmethod
    def of(cls, profile: IndexProfile, stage: Stage) -> "Setting":
        """The index's present setting, for searches that stop at `stage`."""
        fusion, rerank = profile.fusion, profile.rerank
        has_field = {"sparse": profile.has_terms, "image": profile.image is not None}
        further = {leg: 0.0 for leg, has in has_field.items() if has}
        return cls(
            stage=stage,
            method=fusion.method,
            k=fusion.k,
            weights=tuple(sorted((further | fusion.weights).items())),
            expansion_boost=profile.expansion_boost,
            window=profile.window,
            depth=rerank.depth,
            blend=rerank.blend,
            passages=rerank.passages,
            passage_scores=rerank.passage_scores,
            cascade_candidates=rerank.cascade.candidates,
            cascade_depth=rerank.cascade.depth,
            lead=profile.rules.confident_lead,
            smoothing=fusion.smoothing if smooths(profile, stage) else 0.0,
        )

    def weighing(self, **weights: float) -> "Setting":
        """The same setting with other weights of some legs."""
        return replace(self, weights=tuple(sorted({**dict(self.weights), **weights}.items())))

    def applied_to(self, profile: IndexProfile) -> IndexProfile:
        """The profile with these values; `stages` ends with the stage."""
        unsmoothed = not self.smoothing and self.stage in RERANKED and profile.has_codes
        share = 0.0 if unsmoothed else self.smoothing or profile.fusion.smoothing
        used: list[Stage] = ["smoothing", self.stage] if self.smoothing and self.stage in RERANKED else [self.stage]
        return msgspec.structs.replace(
            profile,
            fusion=FusionSettings(self.method, self.k, dict(self.weights), share),
            rerank=RerankSettings(
                model=profile.rerank.model,
                depth=self.depth,
                blend=self.blend,
                passages=self.passages,
                passage_scores=self.passage_scores,
                cascade=CascadeSettings(self.cascade_candidates, self.cascade_depth),
            ),
            window=self.window,
            expansion_boost=self.expansion_boost,
            rules=msgspec.structs.replace(profile.rules, confident_lead=self.lead),
            stages=[*(stage for stage in profile.stages if stage not in used), *used],
        )

    def __str__(self) -> str:
        """One line, without values that the stage does not use."""
        parts: list[str] = [self.stage]
        if self.stage not in ("lexical", "vector", "sparse", "image"):
            parts.append(f"expansion boost {self.expansion_boost:g}")
        if self.stage in FUSED:
            weights = " ".join(f"{leg} {weight:g}" for leg, weight in self.weights if weight)
            method = f"rrf k {self.k}" if self.method == "rrf" else self.method
            parts.append(f"{method} ({weights}), window {self.window}")
        if self.smoothing and self.stage in ("smoothing", *RERANKED):
            parts.append(f"smoothing {self.smoothing:g}")
        if self.stage == "rerank":
            parts.append(f"depth {self.depth}")
            if self.passages > 1:
                parts.append(f"{self.passage_scores} of {self.passages} passages")
        if self.stage == "cascade":
            parts.append(f"cascade {self.cascade_candidates} → {self.cascade_depth}")
        if self.stage in RERANKED:
            parts.append(f"blend {self.blend:g}")
        if self.lead is not None and self.stage in FUSED:
            parts.append(f"words alone from a lead of {self.lead:g} on")
        return ", ".join(parts)


BOOSTS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
WINDOWS = (50, 100, 200)
MOST_PASSAGES = 3

_METHODS: tuple[tuple[Method, int], ...] = (("zscore", 60), ("minmax", 60), ("rrf", 10), ("rrf", 60))
_VECTOR_WEIGHTS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
_FURTHER_LEGS = ("sparse", "image")
_FURTHER_WEIGHTS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 2.0)
_TEXT_WEIGHTS = ((0.0, 1.0), (1.0, 1.0), (1.0, 0.0))
"""Weights of the application's own query and of the query with predicted queries."""

_DEPTHS = (10, 20, 30, 50, 100)
_BLENDS = (0.0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9)
_SMOOTHINGS = (0.2, 0.3, 0.4, 0.5, 0.6)
_LEADS = (None, 1.25, 1.5, 2.0, 3.0)
_PASSAGES: tuple[tuple[int, PassageScores], ...] = (
    (1, "max"),
    (2, "max"),
    (MOST_PASSAGES, "max"),
    (MOST_PASSAGES, "mean"),
)
_CASCADES = ((50, 10), (50, 20), (100, 10), (100, 20), (100, 30))


def fusions(setting: Setting) -> Iterable[Setting]:
    """Other fusion methods and weights of the vector leg; the text legs keep their weights."""
    if setting.stage == "hybrid":
        for method, k in _METHODS:
            for weight in _VECTOR_WEIGHTS:
                yield replace(setting.weighing(vector=weight), method=method, k=k)


def text_legs(setting: Setting) -> Iterable[Setting]:
    """The application's own query with a weight beside the expansion leg, or in its place."""
    if setting.stage == "hybrid":
        for lexical, expansion in _TEXT_WEIGHTS:
            yield setting.weighing(lexical=lexical, expansion=expansion)


def further_legs(setting: Setting) -> Iterable[Setting]:
    """Other weights of the sparse leg and of the leg of pictures, if documents have terms and vectors of pictures."""
    if setting.stage == "hybrid":
        for leg in _FURTHER_LEGS:
            for weight in _FURTHER_WEIGHTS if leg in dict(setting.weights) else ():
                yield setting.weighing(**{leg: weight})


def boosts_and_windows(setting: Setting) -> Iterable[Setting]:
    """Other boosts of the predicted queries, and other windows if legs are fused."""
    if setting.stage in ("expansion", "hybrid"):
        for boost in BOOSTS:
            for window in WINDOWS if setting.stage == "hybrid" else (setting.window,):
                yield replace(setting, expansion_boost=boost, window=window)


def smoothings(setting: Setting) -> Iterable[Setting]:
    """The same fusion, smoothed; without codes of documents that changes nothing."""
    if setting.stage == "hybrid":
        for share in _SMOOTHINGS:
            yield replace(setting, stage="smoothing", smoothing=share)


def rerankings(setting: Setting) -> Iterable[Setting]:
    """The same candidates, reranked by one cross-encoder or by a cascade of two."""
    if setting.stage in ("hybrid", "smoothing"):
        for blend in _BLENDS:
            for depth in _DEPTHS:
                yield replace(setting, stage="rerank", depth=depth, blend=blend)
            for candidates, depth in _CASCADES:
                yield replace(setting, stage="cascade", cascade_candidates=candidates, cascade_depth=depth, blend=blend)


def passages(setting: Setting) -> Iterable[Setting]:
    """Other numbers of passages per document, and other ways to combine their scores."""
    if setting.stage == "rerank":
        for n_passages, scores in _PASSAGES:
            yield replace(setting, passages=n_passages, passage_scores=scores)


def leads(setting: Setting) -> Iterable[Setting]:
    """Values of `confident_lead`: the lead of the first hit at which the words alone rank."""
    if setting.stage in FUSED:
        for lead in _LEADS:
            yield replace(setting, lead=lead)
