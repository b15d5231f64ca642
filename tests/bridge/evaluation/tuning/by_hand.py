"""Legs and scores that were written by hand, and trials of settings on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from bridge.evaluation.judged_queries import JudgedQueries
from bridge.evaluation.tuning.answers import AverageTime, Costs, EncodedQuery, RememberedSearch, Source
from bridge.evaluation.tuning.trials import Trials
from bridge.profile import IndexProfile, ModelReference, RerankSettings
from bridge.records import Hit, Key, Passage, Terms
from bridge.search.collapse import Collapse
from bridge.search.json_tree import Json
from bridge.search.request import words_request

PROFILE = IndexProfile(
    text_fields=["body"],
    encoder=ModelReference("encoder", "0" * 12),
    generator=ModelReference("generator", "0" * 12),
    dimension=8,
    rerank=RerankSettings(depth=30, blend=0.5),
)
RIGHT = "z"
"""The right document; of equal scores it comes last."""


def hits(*doc_ids: str) -> list[Hit]:
    return [Hit("i", doc_id, float(len(doc_ids) - n)) for n, doc_id in enumerate(doc_ids)]


@dataclass
class Written(Source):
    """Answers by hand: the hits of legs, and a score for each document."""

    text: Sequence[Hit]
    near: Sequence[Hit]
    large: Mapping[str, float]
    small: Mapping[str, float]
    scored: list[str] = field(default_factory=list)
    """Passages that the large model read."""

    def embed(self, text: str) -> Sequence[float]:
        return [1.0] * PROFILE.dimension

    def weigh(self, text: str) -> Terms | None:
        return None

    def search(
        self, bodies: Mapping[str, Json], profile: IndexProfile, encoded: EncodedQuery
    ) -> Mapping[str, Sequence[Hit]]:
        return {leg: self.near if leg == "vector" else self.text for leg in bodies}

    def read(
        self, keys: Sequence[Key], embedding: Sequence[float] | None, *, passages: int
    ) -> Mapping[Key, Sequence[Passage]]:
        return {key: [Passage(key[1], 0, len(key[1]))] for key in keys}

    def score(self, text: str, passages: Sequence[str], *, small: bool) -> Sequence[float]:
        if not small:
            self.scored += passages
        scores = self.small if small else self.large
        return [scores.get(passage, -5.0) for passage in passages]


GOOD: Mapping[str, float] = {RIGHT: 5.0}
BAD: Mapping[str, float] = {RIGHT: -9.0}


def search(
    query_id: str,
    *,
    text_rank: int | None,
    vector_rank: int | None,
    large: Mapping[str, float] = GOOD,
    small: Mapping[str, float] | None = None,
    brands: Mapping[str, str] | None = None,
) -> RememberedSearch:
    """A query whose right document stands at these ranks (first is 1) among wrong ones of each leg; None: the leg
    does not find it. `small` is as `large` if it is not given. Reading a document costs 6 ms. With `brands`, documents
    that have one, the search is collapsed by it."""
    text = [f"t{n}" for n in range(12)]
    near = [f"v{n}" for n in range(12)]
    if text_rank is not None:
        text.insert(text_rank - 1, RIGHT)
    if vector_rank is not None:
        near.insert(vector_rank - 1, RIGHT)
    words = words_request("words", ["body"], size=100)
    of_text, of_near = hits(*text), hits(*near)
    if brands is not None:
        words = replace(words, collapse=Collapse.of({"field": "brand"}))
        of_text, of_near = (
            [msgspec.structs.replace(hit, fields={"brand": [brands.get(hit.doc_id)]}) for hit in found]
            for found in (of_text, of_near)
        )
    source = Written(of_text, of_near, large, large if small is None else small)
    remembered = RememberedSearch(query_id, words, source, most_hits=200, most_passages=3)
    remembered.measure(PROFILE)
    remembered.costs = costs()
    return remembered


class Fixed(AverageTime):
    """An average that no request changes."""

    def add(self, took_ms: float, n_things: int) -> None:
        pass


def costs() -> Costs:
    texts, large, small = (Fixed(total, 10) for total in (10, 50, 5))
    legs = {"text_leg": 5, "hybrid_legs": 15, "all_legs": 17}
    return Costs(own=5, embed=5, weigh=6, **legs, texts=texts, large=large, small=small)


def trials(searches: Sequence[RememberedSearch]) -> Trials:
    judged = JudgedQueries(
        "by hand", {each.query_id: "words" for each in searches}, {each.query_id: {RIGHT: 1} for each in searches}
    )
    return Trials(searches, PROFILE, judged, measure="RR@10")
