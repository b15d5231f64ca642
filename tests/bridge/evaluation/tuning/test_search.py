"""The search for settings, on legs and scores that were written by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from bridge.evaluation.judged_queries import JudgedQueries
from bridge.evaluation.tuning.answers import AverageTime, Costs, RememberedSearch, Source
from bridge.evaluation.tuning.plot import plot_front
from bridge.evaluation.tuning.search import choose, cross_validate, front
from bridge.evaluation.tuning.setting import Setting
from bridge.evaluation.tuning.trials import Trials, estimated_ms
from bridge.profile import IndexProfile, ModelReference, RerankSettings, Stage
from bridge.records import Hit, Key, Passage
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

N_QUERIES = 20
ALL_STAGES = frozenset(("lexical", "expansion", "hybrid", "rerank", "cascade"))


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

    def search(self, bodies: Mapping[str, Json]) -> Mapping[str, Sequence[Hit]]:
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
) -> RememberedSearch:
    """A query whose right document stands at these ranks (first is 1) among wrong ones of each leg; None: the leg
    does not find it. `small` is as `large` if it is not given. Reading a document costs 6 ms."""
    text = [f"t{n}" for n in range(12)]
    near = [f"v{n}" for n in range(12)]
    if text_rank is not None:
        text.insert(text_rank - 1, RIGHT)
    if vector_rank is not None:
        near.insert(vector_rank - 1, RIGHT)
    words = words_request("words", ["body"], size=100)
    source = Written(hits(*text), hits(*near), large, large if small is None else small)
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
    return Costs(own=5, embed=5, text_leg=5, hybrid_legs=15, texts=texts, large=large, small=small)


def trials(searches: Sequence[RememberedSearch]) -> Trials:
    judged = JudgedQueries(
        "by hand", {each.query_id: "words" for each in searches}, {each.query_id: {RIGHT: 1} for each in searches}
    )
    return Trials(searches, PROFILE, judged, measure="RR@10")


@pytest.fixture
def vectors_know_best() -> Trials:
    """Vectors have the right document second, texts do not find it; the cross-encoders put it last."""
    return trials([search(f"q{n}", text_rank=None, vector_rank=2, large=BAD) for n in range(N_QUERIES)])


def seeds(stage: Stage = "rerank") -> list[Setting]:
    default = Setting.of(PROFILE, stage)
    return [default, *(replace(default, stage=each) for each in ("hybrid", "expansion", "lexical"))]


EVERY_ROW = np.arange(N_QUERIES)


def test_a_harmful_reranker_is_left_out_and_the_right_leg_weighs_more(vectors_know_best: Trials) -> None:
    chosen = choose(vectors_know_best, seeds(), EVERY_ROW, budget_ms=None, allowed=ALL_STAGES)
    assert chosen.mean(EVERY_ROW) == 0.5
    assert chosen.setting.stage == "hybrid"
    assert dict(chosen.setting.weights)["vector"] > dict(chosen.setting.weights)["expansion"]


def test_a_good_reranker_is_chosen_where_there_is_time_for_it() -> None:
    tried = trials([search(f"q{n}", text_rank=5 + n % 2, vector_rank=None) for n in range(N_QUERIES)])
    unlimited = choose(tried, seeds("hybrid"), EVERY_ROW, budget_ms=None, allowed=ALL_STAGES)
    assert unlimited.setting.stage in ("rerank", "cascade")
    assert unlimited.mean(EVERY_ROW) == 1.0
    limited = choose(tried, seeds("hybrid"), EVERY_ROW, budget_ms=25, allowed=ALL_STAGES)
    assert limited.setting.stage in ("lexical", "expansion", "hybrid")
    assert limited.p95_ms(EVERY_ROW) <= 25


def test_documents_are_not_read_for_what_is_surely_too_slow() -> None:
    """A document costs 6 ms to read, beside 20 ms for the legs."""
    tried = trials([search(f"q{n}", text_rank=5, vector_rank=6) for n in range(N_QUERIES)])
    choose(tried, seeds("hybrid"), EVERY_ROW, budget_ms=85, allowed=ALL_STAGES)
    read = {trial.setting.depth for trial in tried.tried() if trial.setting.stage == "rerank"}
    assert read == {10}


def test_where_nothing_is_quick_enough_the_quickest_is_chosen(vectors_know_best: Trials) -> None:
    chosen = choose(vectors_know_best, seeds(), EVERY_ROW, budget_ms=0.1, allowed=ALL_STAGES)
    assert chosen.p95_ms(EVERY_ROW) == 5.0


def test_only_stages_that_are_allowed_are_chosen() -> None:
    tried = trials([search(f"q{n}", text_rank=6, vector_rank=7) for n in range(N_QUERIES)])
    allowed = frozenset(("lexical", "expansion", "hybrid"))
    chosen = choose(tried, seeds("hybrid"), EVERY_ROW, budget_ms=None, allowed=allowed)
    assert chosen.setting.stage in allowed


def test_of_equally_good_settings_the_first_seed_or_a_quicker_one_stays() -> None:
    tried = trials([search(f"q{n}", text_rank=1, vector_rank=1) for n in range(N_QUERIES)])
    chosen = choose(tried, seeds("hybrid"), EVERY_ROW, budget_ms=None, allowed=ALL_STAGES)
    assert chosen.setting.stage in ("lexical", "expansion")


def test_what_is_reported_had_no_part_in_the_choice() -> None:
    """For each query another leg is right, at random: what fits the other folds is no better than chance here."""
    chance = np.random.default_rng(5)
    searches = []
    for n in range(N_QUERIES):
        text_is_right = bool(chance.integers(2))
        ranks = (1, 12) if text_is_right else (12, 1)
        searches.append(search(f"q{n}", text_rank=ranks[0], vector_rank=ranks[1], large={}))
    tried = trials(searches)
    held_out = cross_validate(tried, seeds("hybrid")[0], seeds("hybrid"), budget_ms=None, allowed=ALL_STAGES)
    fitted = max(trial.mean(EVERY_ROW) for trial in tried.tried())
    assert held_out.tuned <= fitted
    assert held_out.difference.low <= held_out.difference.mean <= held_out.difference.high


def test_a_gain_that_holds_everywhere_is_found_and_shown(vectors_know_best: Trials) -> None:
    held_out = cross_validate(vectors_know_best, seeds()[0], seeds(), budget_ms=None, allowed=ALL_STAGES)
    assert held_out.tuned == 0.5
    assert held_out.difference.low > 0.3
    assert held_out.p_value < 0.01


def test_the_front_rises_with_time(tmp_path: Path) -> None:
    tried = trials([search(f"q{n}", text_rank=6, vector_rank=7) for n in range(N_QUERIES)])
    chosen = cross_validate(tried, seeds("hybrid")[0], seeds("hybrid"), budget_ms=None, allowed=ALL_STAGES)
    points = front(tried, seeds("hybrid")[0], seeds("hybrid"), allowed=ALL_STAGES)
    assert len(points) >= 2
    assert [point.p95_ms for point in points] == sorted(point.p95_ms for point in points)
    assert points[0].tuned < points[-1].tuned == chosen.tuned
    plot_front(tmp_path / "new" / "front.png", "title", "RR@10", points, chosen)
    assert (tmp_path / "new" / "front.png").read_bytes().startswith(b"\x89PNG")


def test_the_applications_own_results_follow_the_window() -> None:
    tried = trials([search("q0", text_rank=4, vector_rank=None)])
    first_alone = replace(Setting.of(PROFILE, "hybrid").weighing(vector=0.0), window=1)
    assert tried.of(first_alone).values.tolist() == [0.25]


def test_a_confident_text_leg_ranks_alone_and_saves_the_time_of_reading() -> None:
    """The first hit of twelve scores twelve elevenths of the second."""
    tried = trials([search("q0", text_rank=1, vector_rank=None, large=BAD)])
    always = replace(Setting.of(PROFILE, "rerank"), blend=0.0)
    read, alone = tried.of(always), tried.of(replace(always, lead=1.05))
    assert read.values[0] < alone.values[0] == 1.0
    assert (read.took_ms[0], alone.took_ms[0]) == (pytest.approx(200.0), pytest.approx(20.0))
    assert tried.of(replace(always, lead=1.5)).values[0] == read.values[0]


def test_documents_are_read_once() -> None:
    remembered = search("q0", text_rank=3, vector_rank=4)
    tried = trials([remembered])
    setting = Setting.of(PROFILE, "rerank")
    for depth in (10, 20, 10):
        tried.of(replace(setting, depth=depth))
    assert isinstance(source := remembered.source, Written)
    assert len(source.scored) == len(set(source.scored)) == 20


def test_a_cascade_orders_its_best_by_the_large_model_and_the_others_by_the_small_one() -> None:
    large = {RIGHT: 9.0, "t0": 1.0, "t1": 2.0}
    small = {RIGHT: 3.0, "t1": 4.0, "t0": 5.0, "t2": 2.0, "t3": 1.0}
    tried = trials([search("q0", text_rank=12, vector_rank=12, large=large, small=small)])
    setting = replace(
        Setting.of(PROFILE, "cascade").weighing(vector=0.0), blend=0.0, cascade_candidates=100, cascade_depth=3
    )
    assert tried.of(setting).values.tolist() == [1.0]
    assert tried.of(replace(setting, cascade_depth=2)).values.tolist() == [pytest.approx(1 / 3)]


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("lexical", 5.0),
        ("expansion", 5.0),
        ("hybrid", 20.0),
        ("rerank", 20.0 + 30 * 6.0),
        ("cascade", 20.0 + 100 * 1.5 + 20 * 5.0),
    ],
)
def test_times_add_up_from_their_parts(stage: Stage, expected: float) -> None:
    assert estimated_ms(Setting.of(PROFILE, stage), costs()) == pytest.approx(expected)
