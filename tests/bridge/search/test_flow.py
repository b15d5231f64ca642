"""A search asks its questions in order, and ranks alike whoever answers them: the proxy, tune, or models in memory."""

import asyncio
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from bridge.cluster.dialects import code_of
from bridge.errors import CascadeMissing, StageFailed
from bridge.evaluation.memory import Corpus, MemoryBackend, TermWeights, Vectors
from bridge.evaluation.tuning.answers import EncodedQuery, RememberedSearch, Source
from bridge.profile import (
    LEGS,
    SPARSE_WEIGHTS,
    Calibration,
    CascadeSettings,
    FusionSettings,
    ImageSettings,
    IndexProfile,
    Measurement,
    ModelReference,
    PassageSettings,
    RerankSettings,
    SearchRules,
    SparseSettings,
    Stage,
    VectorType,
)
from bridge.proxy.upgrade.model_client import ReadingPace
from bridge.proxy.upgrade.planning import Plan
from bridge.proxy.upgrade.ranking import CallersBackend, Notes
from bridge.records import Hit, Key, Passage, Terms
from bridge.search import json_tree, legs
from bridge.search.cascade import CascadeRequest, merge_scores, select_for_large_model
from bridge.search.collapse import first_of_each
from bridge.search.flow import ANY_DISTANCE, READ_CHARS, Backend, Distance, Ranking, codes_of, rank
from bridge.search.fusion import blended
from bridge.search.json_tree import Json
from bridge.search.request import Repair, SearchRequest, parse
from bridge.search.response import ShownHit, found_hits
from tests.bridge.proxy.scripted_index import leg_of

PROFILE = IndexProfile(
    text_fields=["title"],
    encoder=ModelReference("toy", "0" * 12),
    generator=ModelReference("toy", "1" * 12),
    dimension=2,
    window=3,
    fusion=FusionSettings(method="rrf"),
    rerank=RerankSettings(depth=2, blend=0.0, cascade=CascadeSettings(candidates=3, depth=1)),
)
QUERY = {"query": {"match": {"title": "red shoe"}}}


def understood(**more: Json) -> SearchRequest:
    request = parse(json.dumps(QUERY | more).encode(), "", text_fields=["title"], object_field="_neural")
    assert isinstance(request, SearchRequest)
    return request


def kind_of(body: Json) -> str:
    return leg_of(json.loads(json_tree.write(body)))


def hits(*doc_ids: str) -> list[Hit]:
    return [Hit("i", doc_id, 10.0 - rank) for rank, doc_id in enumerate(doc_ids)]


@dataclass
class Script(Backend):
    """Answers by hand, and writes down what it is asked. What `fails` names cannot be had."""

    lexical: Sequence[Hit] = field(default_factory=lambda: hits("a", "b", "c"))
    expansion: Sequence[Hit] = field(default_factory=lambda: hits("a", "b", "c"))
    vector: Sequence[Hit] = field(default_factory=lambda: hits("e", "d", "a"))
    sparse: Sequence[Hit] = field(default_factory=lambda: hits("f", "b"))
    terms: Terms = field(default_factory=lambda: {"shoe": 2.0, "red": 1.0})
    image: Sequence[Hit] = field(default_factory=lambda: hits("g", "b", "a"))
    exact: Sequence[Hit] = field(default_factory=lambda: hits("e", "d", "a"))
    scores: Mapping[str, float] = field(default_factory=dict)
    has_small_model: bool = True
    fails: frozenset[str] = frozenset()
    asked: list[str] = field(default_factory=list)
    meant: Repair | None = None
    read_for: str = ""

    async def repair(self, request: SearchRequest) -> Repair | None:
        self.asked.append(f"repair {request.text}")
        return self.meant

    async def embed(self, text: str) -> Sequence[float] | None:
        self.asked.append(f"embed {text}")
        return None if "embed" in self.fails else [1.0, 0.0]

    async def weigh(self, text: str) -> Terms | None:
        self.asked.append(f"weigh {text}")
        return None if "weigh" in self.fails else self.terms

    async def embed_for_images(self, text: str) -> Sequence[float] | None:
        self.asked.append(f"embed for images {text}")
        return None if "embed for images" in self.fails else [0.0, 1.0]

    async def search(self, bodies: Mapping[str, Json]) -> Mapping[str, Sequence[Hit]]:
        kinds = {leg: kind_of(body) for leg, body in bodies.items()}
        self.asked.append("search " + " ".join(kinds.values()))
        return {leg: getattr(self, kind) for leg, kind in kinds.items() if kind not in self.fails}

    async def read(
        self, keys: Sequence[Key], embedding: Sequence[float] | None, *, passages: int
    ) -> Mapping[Key, Sequence[Passage]]:
        near = "near the query" if embedding else "whole"
        self.asked.append(f"read {passages} {near} of {' '.join(doc_id for _, doc_id in keys)}")
        return {} if "read" in self.fails else {key: [Passage(f"text of {key[1]}", 0, 9)] for key in keys}

    def check_cascade(self) -> None:
        if not self.has_small_model:
            raise CascadeMissing("none here")

    async def score(
        self, text: str, passages: Sequence[str], *, cascade: CascadeRequest | None = None
    ) -> Sequence[float] | None:
        self.read_for = text
        self.asked.append(f"score {len(passages)}" + (f", {cascade.depth} by the large model" if cascade else ""))
        return None if "score" in self.fails else [self.scores.get(passage[-1], 0.0) for passage in passages]


def ranked(
    script: Script,
    stage: Stage,
    body: Mapping[str, Json] = MappingProxyType({}),
    *,
    profile: IndexProfile = PROFILE,
    explain: bool = False,
    distance: Distance = ANY_DISTANCE,
) -> Ranking:
    return asyncio.run(rank(understood(**body), profile, stage, script, explain=explain, distance=distance))


def ids(ranking: Ranking) -> str:
    return "".join(hit.doc_id for hit in ranking.hits)


QUESTIONS = ["embed red shoe", "search expansion vector"]


@pytest.mark.parametrize(
    ("stage", "asked", "stages"),
    [
        ("expansion", ["search expansion"], "expansion"),
        ("vector", ["embed red shoe", "search vector"], "vector"),
        ("hybrid", QUESTIONS, "hybrid"),
        ("rerank", [*QUESTIONS, "read 1 near the query of a e", "score 2"], "hybrid+rerank"),
        ("cascade", [*QUESTIONS, "read 1 near the query of a e b", "score 3, 1 by the large model"], "hybrid+cascade"),
    ],
)
def test_each_stage_asks_what_it_needs_and_no_more(stage: Stage, asked: list[str], stages: str) -> None:
    script = Script()
    assert ranked(script, stage).stages == stages
    assert script.asked == asked


def test_cross_encoders_order_the_documents_that_they_read() -> None:
    assert ids(ranked(Script(), "hybrid")) == "aeb"
    assert ids(ranked(Script(scores={"e": 5.0}), "rerank")) == "eab"
    assert ids(ranked(Script(scores={"b": 5.0}), "cascade")) == "bae"


def test_too_few_vectors_are_compared_exactly() -> None:
    script = Script(vector=hits("e"), exact=hits("d", "b"))
    assert [hit.doc_id for hit in ranked(script, "hybrid").legs["vector"]] == ["d", "b"]
    assert script.asked == [*QUESTIONS, "search exact"]


def test_vectors_that_the_caller_may_not_see_are_not_compared_with_passages() -> None:
    script = Script(vector=[], exact=[])
    ranking = ranked(script, "rerank")
    assert ranking.embedding is None
    assert script.asked[-2:] == ["read 1 whole of a b", "score 2"]


def test_a_vector_alone_does_not_reach_min_score() -> None:
    assert set(ids(ranked(Script(), "hybrid", {"min_score": 0.5}))) == set("abc")


def test_a_confident_text_leg_ranks_alone_and_nothing_is_read() -> None:
    profile = msgspec.structs.replace(PROFILE, rules=SearchRules(confident_lead=1.05))
    script = Script()
    ranking = ranked(script, "rerank", profile=profile)
    assert (ids(ranking), ranking.stages) == ("abc", "expansion+confident")
    assert script.asked == QUESTIONS


def test_a_page_beyond_the_reranked_documents_reads_none() -> None:
    script = Script()
    assert ranked(script, "rerank", {"from": 2}).stages == "hybrid"
    assert script.asked == QUESTIONS


def test_an_explained_search_runs_the_applications_own_query_too() -> None:
    script = Script(lexical=hits("c", "z"))
    ranking = ranked(script, "hybrid", explain=True)
    assert script.asked == ["embed red shoe", "search lexical expansion vector"]
    assert "z" not in ids(ranking)
    assert {hit.doc_id: hit.legs["lexical"].rank for hit in ranking.hits if "lexical" in hit.legs} == {}


def test_without_a_small_model_the_large_one_reads_alone() -> None:
    script = Script(has_small_model=False)
    assert ranked(script, "cascade").stages == "hybrid+rerank"
    assert script.asked == [*QUESTIONS, "read 1 near the query of a e", "score 2"]


@pytest.mark.parametrize(
    ("fails", "stages", "found"),
    [
        ({"embed"}, "expansion+rerank", "abc"),
        ({"vector"}, "expansion+rerank", "abc"),
        ({"expansion"}, "vector+rerank", "eda"),
        ({"expansion", "vector"}, "lexical", ""),
        ({"read"}, "hybrid", "aeb"),
        ({"score"}, "hybrid", "aeb"),
    ],
)
def test_what_cannot_be_had_takes_only_its_stage_out(fails: set[str], stages: str, found: str) -> None:
    ranking = ranked(Script(fails=frozenset(fails)), "rerank")
    assert (ranking.stages, ids(ranking)) == (stages, found)


def test_a_ranking_is_complete_if_nothing_that_matches_is_outside_the_window() -> None:
    few = Script(expansion=hits("a"), vector=hits("a", "b", "c"))
    assert ranked(few, "hybrid").complete
    assert not ranked(Script(), "hybrid").complete


def test_the_best_passage_of_a_document_counts_and_is_kept() -> None:
    class Long(Script):
        async def read(
            self, keys: Sequence[Key], embedding: Sequence[float] | None, *, passages: int
        ) -> Mapping[Key, Sequence[Passage]]:
            return {key: [Passage("x" * 3_000 + "q", 0, 3_001), Passage(f"of {key[1]}", 5, 9)] for key in keys}

        async def score(
            self, text: str, passages: Sequence[str], *, cascade: CascadeRequest | None = None
        ) -> Sequence[float] | None:
            assert max(map(len, passages)) == READ_CHARS
            return await super().score(text, passages, cascade=cascade)

    nested = msgspec.structs.replace(PROFILE, passages=PassageSettings(layout="nested"))
    ranking = ranked(Long(scores={"e": 5.0, "x": 1.0}), "rerank", profile=nested)
    assert ids(ranking)[:2] == "ea"
    assert {key[1]: passage.start for key, passage in ranking.passages.items()} == {"e": 5, "a": 0}


# --- pictures ---------------------------------------------------------------------------------------------------


PICTURED = msgspec.structs.replace(
    PROFILE,
    image=ImageSettings("photo", ModelReference("clip", "3" * 12), 2),
    fusion=FusionSettings("rrf", weights={"lexical": 0.0, "expansion": 1.0, "vector": 1.0, "image": 4.0}),
)
"""An index whose documents have vectors of their pictures, too."""
FOR_IMAGES = "embed for images red shoe"


@pytest.mark.parametrize(
    ("stage", "asked", "stages"),
    [
        ("image", [FOR_IMAGES, "search image"], "image"),
        ("hybrid", ["embed red shoe", FOR_IMAGES, "search expansion vector image"], "hybrid"),
        ("expansion", ["search expansion"], "expansion"),
        ("vector", ["embed red shoe", "search vector"], "vector"),
    ],
)
def test_pictures_are_searched_if_their_leg_has_a_weight(stage: Stage, asked: list[str], stages: str) -> None:
    script = Script()
    ranking = ranked(script, stage, profile=PICTURED)
    assert (ranking.stages, script.asked) == (stages, asked)
    assert ("g" in ids(ranking)) is (FOR_IMAGES in asked)


def test_without_pictures_in_documents_their_leg_has_no_weight() -> None:
    for profile in (msgspec.structs.replace(PICTURED, image=None), PROFILE):
        script = Script()
        ranked(script, "image", profile=profile)
        assert script.asked == QUESTIONS


@pytest.mark.parametrize("fails", ["embed for images", "image"])
def test_without_pictures_the_other_legs_rank(fails: str) -> None:
    ranking = ranked(Script(fails=frozenset({fails})), "hybrid", profile=PICTURED)
    assert (ranking.stages, ids(ranking)) == ("hybrid", "aeb")


def test_too_few_pictures_are_compared_exactly_beside_too_few_vectors() -> None:
    script = Script(image=hits("g"), vector=hits("e"))
    ranked(script, "hybrid", profile=PICTURED)
    assert script.asked[-2:] == ["search expansion vector image", "search exact image"]
    alone = Script(image=hits("g"))
    ranked(alone, "hybrid", profile=PICTURED)
    assert alone.asked[-1] == "search image"
    beside = Script(image=hits("g"))
    ranked(beside, "hybrid", profile=msgspec.structs.replace(PICTURED, beside="shop"))
    assert beside.asked[-1] == "search expansion vector image"


def test_pictures_alone_do_not_reach_min_score() -> None:
    assert "g" not in ids(ranked(Script(), "hybrid", {"min_score": 0.5}, profile=PICTURED))


# --- weighted terms ---------------------------------------------------------------------------------------------


SPARSE = SparseSettings(ModelReference("toy", "2" * 12))
WEIGHED = msgspec.structs.replace(
    PROFILE,
    sparse=SPARSE,
    window=8,
    fusion=FusionSettings("rrf", weights={"lexical": 0.0, "expansion": 1.0, "vector": 1.0, "sparse": 1.0}),
)
"""An index whose documents have embeddings and weighted terms."""
ONLY_WEIGHED = msgspec.structs.replace(WEIGHED, vector_type="none", fusion=FusionSettings(weights=SPARSE_WEIGHTS))
"""One of a cluster that cannot search vectors."""


@pytest.mark.parametrize(
    ("stage", "profile", "asked", "stages"),
    [
        ("sparse", WEIGHED, ["weigh red shoe", "search sparse"], "sparse"),
        ("hybrid", WEIGHED, ["embed red shoe", "weigh red shoe", "search expansion vector sparse"], "hybrid"),
        ("hybrid", ONLY_WEIGHED, ["weigh red shoe", "search expansion sparse"], "hybrid"),
        ("expansion", WEIGHED, ["search expansion"], "expansion"),
        ("vector", WEIGHED, ["embed red shoe", "search vector"], "vector"),
    ],
)
def test_the_sparse_leg_is_searched_if_it_has_a_weight(
    stage: Stage, profile: IndexProfile, asked: list[str], stages: str
) -> None:
    script = Script(vector=hits("e", "d", "a"), exact=hits("e", "d", "a"))
    ranking = ranked(script, stage, profile=profile)
    assert ranking.stages == stages
    assert [each for each in script.asked if each != "search exact"] == asked
    assert ("f" in ids(ranking)) is ("weigh red shoe" in asked)


def test_beside_vectors_the_sparse_leg_has_no_weight_unless_the_profile_gives_it_one() -> None:
    script = Script()
    ranking = ranked(script, "hybrid", profile=msgspec.structs.replace(PROFILE, sparse=SPARSE))
    assert (script.asked, ranking.terms) == (QUESTIONS, {})


def test_without_terms_in_documents_the_sparse_leg_has_no_weight() -> None:
    script = Script()
    ranked(script, "sparse", profile=msgspec.structs.replace(WEIGHED, sparse=None, window=3))
    assert script.asked == QUESTIONS


@pytest.mark.parametrize(
    ("more", "stages", "found"),
    [
        pytest.param({"fails": frozenset({"weigh"})}, "expansion", "abc", id="the query has not come"),
        pytest.param({"fails": frozenset({"sparse"})}, "expansion", "abc", id="the leg fails"),
        pytest.param({"terms": {}}, "expansion", "abc", id="no term in the query"),
        pytest.param({"fails": frozenset({"expansion"})}, "sparse", "fb", id="the text leg fails"),
    ],
)
def test_without_the_sparse_leg_the_others_rank(more: dict[str, Any], stages: str, found: str) -> None:
    ranking = ranked(Script(**more), "hybrid", profile=ONLY_WEIGHED)
    assert (ranking.stages, ids(ranking)) == (stages, found)


def test_terms_alone_do_not_reach_min_score() -> None:
    assert set(ids(ranked(Script(), "hybrid", {"min_score": 0.5}, profile=ONLY_WEIGHED))) == set("abc")


def test_a_ranking_names_the_terms_of_its_query() -> None:
    assert ranked(Script(), "hybrid", profile=ONLY_WEIGHED).terms == {"shoe": 2.0, "red": 1.0}


# --- smoothing --------------------------------------------------------------------------------------------------


CODED = msgspec.structs.replace(PROFILE, codes="sign", window=8, fusion=FusionSettings(method="minmax", smoothing=0.5))
"""The last of three documents resembles the first one, and not the second."""
ALIKE, OTHER = b"\xff", b"\x00"


def coded(**codes: bytes) -> list[Hit]:
    found = [Hit("i", doc_id, score) for doc_id, score in (("a", 4.0), ("b", 2.0), ("c", 1.0))]
    return [with_code(hit, codes[hit.doc_id]) for hit in found]


def with_code(hit: Hit, code: bytes) -> Hit:
    return msgspec.structs.replace(hit, fields={"_neural.code": [b64encode(code).decode()]})


def smoothing(stage: Stage = "smoothing", profile: IndexProfile = CODED, **more: Any) -> Ranking:
    found = coded(a=ALIKE, b=OTHER, c=ALIKE)
    script = Script(lexical=found, expansion=found, vector=found, exact=found, **more)
    return ranked(script, stage, profile=profile)


def test_a_document_that_resembles_the_first_one_rises() -> None:
    assert (ids(smoothing()), smoothing().stages) == ("acb", "hybrid+smoothing")
    assert (ids(smoothing("hybrid")), smoothing("hybrid").stages) == ("abc", "hybrid")


def test_reranking_begins_with_the_smoothed_ranking_unless_the_gate_left_smoothing_out() -> None:
    """All logits are equal, so that the first stage decides."""
    of_its_own = msgspec.structs.replace(CODED, rerank=RerankSettings(depth=3, blend=0.5))
    assert ids(smoothing("rerank", of_its_own)) == "acb"
    without = msgspec.structs.replace(of_its_own, stages=["lexical", "expansion", "vector", "hybrid", "rerank"])
    assert ids(smoothing("rerank", without)) == "abc"


DIVERSE = msgspec.structs.replace(CODED, rules=SearchRules(diversity=0.75))


def test_a_document_that_resembles_one_before_it_sinks_if_the_ranking_is_to_be_diverse() -> None:
    plain, diverse = (smoothing("smoothing", profile) for profile in (CODED, DIVERSE))
    assert (ids(plain), plain.stages) == ("acb", "hybrid+smoothing")
    assert (ids(diverse), diverse.stages) == ("abc", "hybrid+smoothing+diverse")
    assert [hit.nearest_above for hit in diverse.hits] == [0.0, 0.0, 1.0]
    assert [hit.score for hit in diverse.hits] == [hit.score for hit in plain.hits]


@pytest.mark.parametrize("stage", ["lexical", "expansion"])
def test_a_text_leg_alone_is_not_made_diverse(stage: Stage) -> None:
    assert smoothing(stage, DIVERSE).stages == smoothing(stage).stages


@pytest.mark.parametrize(
    "profile",
    [
        pytest.param(msgspec.structs.replace(CODED, codes="none"), id="an index without codes"),
        pytest.param(msgspec.structs.replace(CODED, fusion=FusionSettings("minmax", smoothing=0.0)), id="no share"),
        pytest.param(msgspec.structs.replace(CODED, dimension=16), id="codes of another length"),
    ],
)
def test_without_codes_of_ours_the_fusion_stands(profile: IndexProfile) -> None:
    assert (ids(smoothing(profile=profile)), smoothing(profile=profile).stages) == ("abc", "hybrid")


@pytest.mark.parametrize("written", ["+/8=", "-_8", "+/8", "-_8="])
def test_codes_are_read_as_either_engine_writes_them(written: str) -> None:
    hit = Hit("i", "a", 1.0, fields={"_neural.code": [written]})
    assert codes_of({"vector": [hit]}, msgspec.structs.replace(CODED, dimension=16)) == {("i", "a"): b"\xfb\xff"}


@pytest.mark.parametrize("values", [["a"], ["8A==", "8A=="], [7], []])
def test_what_is_no_code_is_left_out(values: list[object]) -> None:
    assert codes_of({"vector": [Hit("i", "a", 1.0, fields={"_neural.code": values})]}, CODED) == {}


def test_every_page_is_of_the_same_smoothed_ranking() -> None:
    found = coded(a=ALIKE, b=OTHER, c=ALIKE)
    script = Script(lexical=found, expansion=found, vector=found)
    first, later = (ranked(script, "smoothing", {"from": start}, profile=CODED) for start in (0, 2))
    assert first.hits == later.hits


# --- collapse ---------------------------------------------------------------------------------------------------


BY_BRAND: dict[str, Json] = {"collapse": {"field": "brand"}}
BRANDS = {"a": ["acme"], "b": ["acme"], "c": ["other"], "d": [], "e": ["other"]}


def grouped(found: Sequence[Hit], brands: Mapping[str, Sequence[object]] = MappingProxyType(BRANDS)) -> list[Hit]:
    return [msgspec.structs.replace(hit, fields={"brand": brands[hit.doc_id]}) for hit in found]


def collapsing(stage: Stage, profile: IndexProfile = PROFILE, **scores: float) -> Ranking:
    text, near = grouped(hits("a", "b", "c")), grouped(hits("e", "d", "a"))
    script = Script(lexical=text, expansion=text, vector=near, exact=near, scores=scores)
    return ranked(script, stage, BY_BRAND, profile=profile, explain=True)


def test_the_best_of_each_group_after_all_stages_stays() -> None:
    deep = msgspec.structs.replace(PROFILE, rerank=RerankSettings(depth=3, blend=0.0))
    assert ids(collapsing("hybrid")) == "aed"
    assert ids(collapsing("rerank", e=5.0)) == "ead"
    assert ids(collapsing("rerank", deep, b=5.0, e=4.0)) == "bed"


def test_the_window_is_cut_when_only_one_of_each_group_is_left() -> None:
    """Of the first three documents two are of one group."""
    assert ids(ranked(Script(), "hybrid")) == "aeb"
    assert len(collapsing("hybrid").hits) == 3
    assert ids(collapsing("hybrid", msgspec.structs.replace(PROFILE, window=2))) == "ae"


def test_the_applications_own_ranking_is_collapsed_to_be_compared() -> None:
    assert [doc_id for _, doc_id in collapsing("hybrid").own] == ["a", "c"]
    plain = ranked(Script(), "hybrid", explain=True)
    assert [doc_id for _, doc_id in plain.own] == ["a", "b", "c"]


def test_what_the_cluster_cannot_collapse_is_not_found() -> None:
    several = {**BRANDS, "e": ["acme", "other"]}
    script = Script(expansion=grouped(hits("a", "b", "c")), vector=grouped(hits("e", "d", "a"), several))
    assert ids(ranked(script, "hybrid", BY_BRAND)) == "adc"


# --- distant documents ------------------------------------------------------------------------------------------


CALIBRATED = msgspec.structs.replace(
    PROFILE,
    window=8,
    calibration=Calibration(2.0, 9.0, "toy@" + "0" * 12, 1, 0.9, 0.8, 1.0, 148, Measurement("", 40, "AUC", "")),
)
"""Scores of 10, 9 and 8 are probabilities of 0.88, 0.5 and 0.12."""
NOTHING: dict[str, Any] = {"lexical": (), "expansion": ()}


def test_the_nearest_document_says_how_probable_an_answer_is() -> None:
    stages: list[Stage] = ["vector", "hybrid", "rerank"]
    for stage in stages:
        assert ranked(Script(), stage, profile=CALIBRATED).confidence == pytest.approx(0.8808, abs=1e-4)
    assert ranked(Script(), "hybrid", profile=PROFILE).confidence is None
    assert ranked(Script(), "expansion", profile=CALIBRATED).confidence is None
    for script in (Script(fails=frozenset({"vector"})), Script(vector=(), exact=())):
        assert ranked(script, "hybrid", profile=CALIBRATED).confidence is None


def test_distant_documents_without_a_word_are_left_out_and_not_read() -> None:
    assert set(ids(ranked(Script(), "hybrid", profile=CALIBRATED))) == set("abcde")
    script = Script()
    ranking = ranked(script, "rerank", profile=CALIBRATED, distance=Distance(0.6))
    assert set(ids(ranking)) == set("abce")
    assert not any("d" in asked.removeprefix("read 1 near the query of ") for asked in script.asked if "read" in asked)
    assert ranked(Script(), "hybrid", profile=PROFILE, distance=Distance(0.9)) == ranked(Script(), "hybrid")


def test_a_search_by_vectors_alone_asks_which_documents_match() -> None:
    script = Script()
    assert ids(ranked(script, "vector", profile=CALIBRATED, distance=Distance(0.6))) == "ea"
    assert script.asked[1] == "search lexical vector"


def test_nothing_is_left_out_if_nobody_can_say_which_documents_match() -> None:
    script = Script(fails=frozenset({"expansion"}))
    assert ids(ranked(script, "hybrid", profile=CALIBRATED, distance=Distance(0.9))) == "eda"


def test_the_closest_documents_are_the_way_out_of_no_hits() -> None:
    every = ids(ranked(Script(**NOTHING), "rerank", profile=CALIBRATED))
    strict = ranked(Script(**NOTHING), "rerank", profile=CALIBRATED, distance=Distance(0.95))
    assert (ids(strict), strict.closest) == ("", False)
    closest = ranked(Script(**NOTHING), "rerank", profile=CALIBRATED, distance=Distance(0.95, fallback=True))
    assert (ids(closest), closest.closest, closest.stages) == (every, True, "hybrid+rerank")
    assert set(every) == set("ade")


def test_documents_found_by_predicted_queries_are_a_way_out_too() -> None:
    ranking = ranked(Script(lexical=()), "hybrid", profile=CALIBRATED, distance=Distance(0.6, fallback=True))
    assert (set(ids(ranking)), ranking.closest) == (set("abce"), True)


def test_a_search_that_matches_needs_no_way_out() -> None:
    script = Script()
    ranking = ranked(script, "hybrid", profile=CALIBRATED, distance=Distance(0.6, fallback=True))
    assert (set(ids(ranking)), ranking.closest) == (set("abce"), False)
    assert not ranked(Script(**NOTHING), "hybrid", profile=CALIBRATED).closest


def test_an_index_whose_stages_end_before_vectors_has_a_way_out_by_them() -> None:
    ranking = ranked(Script(**NOTHING), "expansion", profile=CALIBRATED, distance=Distance(fallback=True))
    assert (ids(ranking), ranking.closest, ranking.stages) == ("eda", True, "vector")


def test_there_is_no_way_out_without_vectors_or_without_answers() -> None:
    without = msgspec.structs.replace(CALIBRATED, vector_type="none")
    assert not ranked(Script(**NOTHING), "expansion", profile=without, distance=Distance(fallback=True)).hits
    failing = Script(fails=frozenset({"lexical", "expansion", "vector", "exact"}))
    assert not ranked(failing, "hybrid", profile=CALIBRATED, distance=Distance(0.9, fallback=True)).hits
    assert len([asked for asked in failing.asked if asked.startswith("search")]) == 1


def test_collapsed_searches_have_a_way_out() -> None:
    near = grouped(hits("e", "d", "a"))
    script = Script(**NOTHING, vector=near, exact=near)
    ranking = ranked(script, "hybrid", BY_BRAND, profile=CALIBRATED, distance=Distance(0.95, fallback=True))
    assert ranking.closest
    assert [hit.key for hit in ranking.hits] == [hit.key for hit in first_of_each(near, ranking.groups)]


# --- boosts of the application's own ----------------------------------------------------------------------------


BOOSTED: dict[str, Json] = {
    "query": {"bool": {"must": QUERY["query"], "should": {"term": {"brand": {"value": "acme", "boost": 2}}}}}
}


@dataclass
class BoostedScript(Script):
    """Words are worth 10 at most; `boosts` are documents' scores if the words of each are worth as much."""

    boosts: Mapping[str, float] = field(default_factory=dict)

    async def search(self, bodies: Mapping[str, Json]) -> Mapping[str, Sequence[Hit]]:
        self.asked.append("search " + " ".join(bodies))
        found: dict[str, Sequence[Hit]] = {"lexical": self.lexical, "expansion": self.expansion, "vector": self.vector}
        found |= {"words": hits("a"), "boosts": [Hit("i", *scored) for scored in self.boosts.items()]}
        return {leg: found[leg] for leg in bodies if leg not in self.fails}


DEEP = msgspec.structs.replace(PROFILE, window=8, rerank=RerankSettings(depth=4, blend=0.0))
EQUAL = {"a": 10.0, "b": 10.0, "c": 10.0, "d": 10.0, "e": 10.0}


def boosted(stage: Stage = "rerank", profile: IndexProfile = DEEP, start: int = 0, **script: Any) -> Ranking:
    near = hits(*"edabc", "f", "g", "h")
    made = BoostedScript(vector=near, exact=near, **script)
    return ranked(made, stage, BOOSTED | {"from": start}, profile=profile)


def test_boosts_order_what_is_equal_otherwise() -> None:
    assert ids(boosted(boosts=EQUAL))[:4] == ids(boosted(boosts={}))[:4]
    ranking = boosted(boosts=EQUAL | {"d": 12.0, "e": 9.0})
    assert next(hit.doc_id for hit in ranking.hits if hit.rerank_score is not None) == "d"
    lifts = {hit.doc_id: hit.lift for hit in ranking.hits}
    assert lifts["a"] == 0.0
    assert (lifts["d"] or 0) > 0 > (lifts["e"] or 0)


def test_a_boost_is_bounded_and_what_answers_the_words_far_better_stays_before_it() -> None:
    assert ids(boosted(boosts=EQUAL | {"d": 12.0}, scores={"a": 9.0}))[0] == "a"
    assert ids(boosted(boosts=EQUAL | {"d": 38.0}, scores={"a": 9.0, "d": 8.0}))[0] == "d"


def test_a_pin_stays_where_it_is_and_is_not_read() -> None:
    pins = EQUAL | {"c": 1_000.0, "b": 900.0}
    script = BoostedScript(lexical=hits("c", "b", "a"), vector=hits(*"edabcfgh"), boosts=pins, scores={"e": 9.0})

    ranking = ranked(script, "rerank", BOOSTED, profile=DEEP)

    assert ids(ranking)[:3] == "cbe"
    assert [hit.pinned for hit in ranking.hits[:3]] == [True, True, False]
    assert script.asked[-2].split(" of ")[1].split() == ["a", "e"]
    assert script.asked[1:3] == ["search words lexical expansion vector", "search boosts"]
    assert [hit.score for hit in ranking.hits] == sorted((hit.score for hit in ranking.hits), reverse=True)


@pytest.mark.parametrize("start", [0, 1, 3, 5])
def test_every_page_is_of_the_same_boosted_ranking(start: int) -> None:
    pins = EQUAL | {"c": 1_000.0, "f": 11.0, "g": 4.0}
    script: dict[str, Any] = {"lexical": hits("c", "b", "a"), "boosts": pins, "scores": {"b": 9.0}}
    assert ids(boosted(start=start, **script))[start:] == ids(boosted(**script))[start:]


def test_what_is_pinned_spoils_no_score_of_the_others() -> None:
    """Standard scores beside one of a million would all be alike."""
    zscore = msgspec.structs.replace(DEEP, fusion=FusionSettings(method="zscore"))
    found = [Hit("i", "z", 1e6), *hits("b", "a")]
    pinned = boosted("hybrid", zscore, lexical=found, expansion=found, boosts=EQUAL | {"z": 1e6})
    plain = boosted("hybrid", zscore, expansion=found[1:], boosts=EQUAL)
    assert [(hit.doc_id, hit.fused_score) for hit in pinned.hits[1:]] == [
        (hit.doc_id, hit.fused_score) for hit in plain.hits[:-1]
    ]


@pytest.mark.parametrize(
    ("stage", "profile", "fails", "asked"),
    [
        ("expansion", DEEP, set[str](), ["search expansion"]),
        (
            "hybrid",
            msgspec.structs.replace(DEEP, rules=SearchRules(boosts=0.0)),
            set[str](),
            ["embed red shoe", "search expansion vector"],
        ),
        ("hybrid", DEEP, {"words"}, ["embed red shoe", "search words lexical expansion vector"]),
        ("hybrid", DEEP, {"boosts"}, ["embed red shoe", "search words lexical expansion vector", "search boosts"]),
    ],
)
def test_boosts_that_are_not_wanted_or_cannot_be_had_change_nothing(
    stage: Stage, profile: IndexProfile, fails: set[str], asked: list[str]
) -> None:
    script = BoostedScript(vector=hits(*"edabcfgh"), boosts=EQUAL | {"c": 99.0}, fails=frozenset(fails))
    ranking = ranked(script, stage, BOOSTED, profile=profile)
    assert script.asked == asked
    assert ids(ranking) == ids(ranked(Script(vector=hits(*"edabcfgh")), stage, profile=DEEP))


# --- the same search, whoever answers ---------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """Documents, what each leg says of them, and what the cross-encoders score; scores are exact in 32 bits."""

    lexical: Sequence[Hit]
    expansion: Sequence[Hit]
    near: Sequence[Hit]
    """All documents, nearest first."""
    weighed: Sequence[Hit]
    """Those that have a term of the query's."""
    large: Mapping[str, float]
    small: Mapping[str, float]
    profile: IndexProfile
    stage: Stage
    body: Mapping[str, Json]
    failing: frozenset[str] = frozenset()
    brands: Mapping[str, Sequence[object]] = field(default_factory=dict)
    """The doc values by which a search is collapsed."""
    boosts: Mapping[str, float] = field(default_factory=dict)
    """Scores of documents whose words are worth the same."""

    def search(self, body: Json) -> Sequence[Hit]:
        kind = kind_of(body)
        written = json_tree.write(body).decode()
        if "match_all" in written:
            return [Hit("i", *scored) for scored in self.boosts.items() if f'"{scored[0]}"' in written]
        found_by = {"lexical": self.lexical, "expansion": self.expansion, "sparse": self.weighed}
        found = found_by.get(kind, self.near)[: body["size"]]
        wanted = body.get("docvalue_fields", ())
        if self.profile.code_field in wanted:
            found = [with_code(hit, self.codes[hit.doc_id]) for hit in found]
        return [self.with_brand(hit) for hit in found] if "brand" in wanted else found

    def with_brand(self, hit: Hit) -> Hit:
        return msgspec.structs.replace(hit, fields={**hit.fields, "brand": self.brands[hit.doc_id]})

    @property
    def terms(self) -> Terms:
        """Of the query; none if there is nothing to find by them."""
        return {"shoe": 1.0} if self.weighed else {}

    @property
    def codes(self) -> Mapping[str, bytes]:
        """Of embeddings that point along the query's, or against it."""
        return {hit.doc_id: code_of(np.array([[hit.score, 0.0]], np.float32), {}, CODED) for hit in self.near}

    def scores(self, passages: Sequence[str], cascade: CascadeRequest | None) -> list[float]:
        large = [self.large[passage] for passage in passages]
        if cascade is None:
            return large
        small = [self.small[passage] for passage in passages]
        preferences = blended(small, cascade.prior_scores, cascade.prior_weight)
        chosen = select_for_large_model(small, depth=cascade.depth, preferences=preferences)
        return merge_scores(small, {place: large[place] for place in chosen})


def some_hits(doc_ids: Sequence[str], scores: Sequence[float]) -> list[Hit]:
    ordered = sorted(scores, reverse=True)
    return [Hit("i", doc_id, score) for doc_id, score in zip(doc_ids, ordered, strict=False)]


@st.composite
def worlds(
    draw: st.DrawFn,
    *,
    may_fail: Sequence[str] = (),
    vector_types: Sequence[VectorType] = ("knn_vector", "none"),
    may_boost: bool = True,
) -> World:
    doc_ids = [f"d{n}" for n in range(draw(st.integers(1, 12)))]
    shuffled = st.permutations(doc_ids)
    some = st.integers(0, len(doc_ids))
    numbers = st.lists(st.integers(1, 64), min_size=12, max_size=12).map(lambda each: [n / 8 for n in each])
    cosines = draw(st.lists(st.integers(-255, 255), min_size=len(doc_ids), max_size=len(doc_ids), unique=True))
    logits = st.fixed_dictionaries({doc_id: st.integers(-8, 8).map(float) for doc_id in doc_ids})
    weights = st.sampled_from([0.0, 0.5, 1.0])
    fusion = FusionSettings(
        method=draw(st.sampled_from(["rrf", "minmax", "zscore"])),
        weights={leg: draw(weights) for leg in draw(st.sampled_from([LEGS[:3], LEGS]))},
        smoothing=draw(st.sampled_from([0.0, 0.5])),
    )
    rerank = RerankSettings(
        depth=draw(st.integers(1, 6)),
        blend=draw(st.sampled_from([0.0, 0.5])),
        cascade=CascadeSettings(draw(st.integers(1, 8)), draw(st.integers(1, 4))),
    )
    profile = msgspec.structs.replace(
        PROFILE,
        generator=PROFILE.generator if draw(st.booleans()) else None,
        fusion=fusion,
        rerank=rerank,
        window=draw(st.integers(1, 12)),
        rules=SearchRules(
            confident_lead=draw(st.sampled_from([None, 1.5])), diversity=draw(st.sampled_from([0.0, 0.5]))
        ),
        codes=draw(st.sampled_from(["none", "sign"])),
        sparse=draw(st.sampled_from([None, SPARSE])),
        vector_type=draw(st.sampled_from(vector_types)),
    )
    sums = draw(st.lists(st.integers(1, 255), max_size=len(doc_ids), unique=True))
    body: dict[str, Json] = {"from": draw(st.integers(0, 8))}
    if draw(st.booleans()):
        body["min_score"] = 0.5
    if draw(st.booleans()):
        body["query"] = {"bool": {"must": [QUERY["query"]], "filter": [{"term": {"public": True}}]}}
    if draw(st.booleans()):
        body |= BY_BRAND
    if may_boost and draw(st.booleans()):
        body |= BOOSTED
    boosts = st.sampled_from([2.0, 8.0, 8.0, 8.0, 9.0, 1_000.0, 2_000.0])
    brands: list[Sequence[object]] = [[], [None], ["x"], ["y"], [3], ["x", "y"]]
    brand = st.sampled_from(brands)
    return World(
        boosts=draw(st.fixed_dictionaries(dict.fromkeys(doc_ids, boosts))),
        brands=draw(st.fixed_dictionaries(dict.fromkeys(doc_ids, brand))),
        lexical=some_hits(draw(shuffled)[: draw(some)], draw(numbers)),
        expansion=some_hits(draw(shuffled)[: draw(some)], draw(numbers)),
        near=some_hits(draw(shuffled), [cosine / 256 for cosine in cosines]),
        weighed=some_hits(draw(shuffled), [weight / 8 for weight in sums]),
        large=draw(logits),
        small=draw(logits),
        profile=profile,
        stage=draw(st.sampled_from(["expansion", "vector", "sparse", "hybrid", "smoothing", "rerank", "cascade"])),
        body=body,
        failing=draw(st.frozensets(st.sampled_from(may_fail))) if may_fail else frozenset(),
    )


class ScriptedCluster:
    """The proxy's searches, answered by a world as the cluster would write it."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def msearch(self, plan: Plan, body: bytes, *, stage: str) -> bytes:
        items: list[dict[str, Any]] = []
        for line in body.splitlines()[1::2]:
            search = json.loads(line)
            kind = leg_of(search).replace("exact", "vector")
            if kind in self._world.failing:
                items.append({"error": {"type": "out_of_reach"}})
            else:
                found = self._world.search(search)
                written = [
                    {"_index": hit.index, "_id": hit.doc_id, "_score": hit.score}
                    | ({"fields": hit.fields} if hit.fields else {})
                    for hit in found
                ]
                items.append({"hits": {"hits": written}})
        return json.dumps({"responses": items}).encode()

    async def hits(self, plan: Plan, body: Json, *, stage: str, deadline: float) -> list[ShownHit]:
        if "read" in self._world.failing:
            raise StageFailed("texts_slow", "too late")
        found = [{"_index": "i", "_id": doc_id, "_source": {"title": doc_id}} for doc_id in sorted(self._world.large)]
        return found_hits(json.dumps({"hits": {"hits": found}}).encode())


class ScriptedModels:
    """The proxy's model servers, answered by a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.pace = ReadingPace()

    async def embed(self, text: str, **_: object) -> list[float]:
        if "embed" in self._world.failing:
            raise StageFailed("embedder_slow", "too late")
        return [1.0, 0.0]

    async def weigh(self, text: str, sparse: SparseSettings, **_: object) -> Terms:
        if "weigh" in self._world.failing:
            raise StageFailed("sparse_slow", "too late")
        return self._world.terms

    def check_cascade(self) -> None:
        pass

    async def rerank(
        self, text: str, passages: Sequence[str], *, cascade: CascadeRequest | None, deadline: float
    ) -> list[float]:
        if "score" in self._world.failing:
            raise StageFailed("rerank_slow", "too late")
        if cascade is not None and "small" in self._world.failing:
            raise CascadeMissing("none here")
        return self._world.scores(passages, cascade)


class ScriptedSource(Source):
    """What tune asks, answered by a world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def embed(self, text: str) -> Sequence[float] | None:
        return None if "embed" in self._world.failing or not self._world.profile.has_vectors else [1.0, 0.0]

    def weigh(self, text: str) -> Terms | None:
        return None if "weigh" in self._world.failing or not self._world.profile.has_terms else self._world.terms

    def search(
        self, bodies: Mapping[str, Json], profile: IndexProfile, encoded: EncodedQuery
    ) -> Mapping[str, Sequence[Hit]]:
        return {leg: self._world.search(legs.coded(body, profile)) for leg, body in bodies.items()}

    def read(
        self, keys: Sequence[Key], embedding: Sequence[float] | None, *, passages: int
    ) -> Mapping[Key, Sequence[Passage]]:
        return {} if "read" in self._world.failing else {key: [Passage(key[1], 0, 2)] for key in keys}

    def score(self, text: str, passages: Sequence[str], *, small: bool) -> Sequence[float]:
        if small and "small" in self._world.failing:
            raise CascadeMissing("none here")
        scores = self._world.small if small else self._world.large
        return [scores[passage] for passage in passages]


def by_proxy(world: World, notes: Notes | None = None) -> Ranking:
    request = understood(**world.body)

    async def run() -> Ranking:
        now = asyncio.get_running_loop().time()
        plan = Plan(
            request, world.profile, "i", CIMultiDict(), world.stage, explain=False, deadline=now + 60, budget_s=60
        )
        cluster, models = ScriptedCluster(world), ScriptedModels(world)
        backend = CallersBackend(plan, cluster, models, notes or Notes())  # type: ignore[arg-type]
        return await rank(request, world.profile, world.stage, backend)

    return asyncio.run(run())


def by_tune(world: World) -> Ranking:
    request = understood(**world.body)
    search = RememberedSearch("q", request, ScriptedSource(world), most_hits=100, most_passages=3)
    search.measure(world.profile)
    return asyncio.run(rank(request, world.profile, world.stage, search))


def in_memory(world: World) -> Ranking:
    """As adapt and the benchmark of models rank."""
    cosine = {hit.doc_id: hit.score for hit in world.near}
    rows = np.array([[cosine[hit.doc_id], 0.0] for hit in world.near], dtype=np.float32)
    query = np.array([1.0, 0.0], dtype=np.float32)
    corpus = Corpus({hit.doc_id: [hit.doc_id] for hit in world.near}, {}, {}, world.profile, index="i")

    class Large:
        def score(self, query: str, passages: Sequence[str]) -> "np.typing.NDArray[np.float32]":
            return np.array([world.large[passage] for passage in passages], dtype=np.float32)

    class Branded(MemoryBackend):
        async def search(self, bodies: Mapping[str, Json]) -> Mapping[str, Sequence[Hit]]:
            found = await super().search(bodies)
            return {leg: [world.with_brand(hit) for hit in hits] for leg, hits in found.items()}

    scorer = None if "score" in world.failing else Large()
    weights = {hit.doc_id: {"shoe": hit.score, "bread": 9.0} for hit in world.weighed}
    terms = TermWeights([weights.get(doc_id, {}) for _, doc_id in corpus.keys], [world.terms])
    backend = Branded(corpus, world.lexical, Vectors(rows, query[None]), query, scorer, terms, world.terms)
    return asyncio.run(rank(understood(**world.body), world.profile, world.stage, backend))


def order(ranking: Ranking) -> tuple[str, bool, list[tuple[str, float]]]:
    return ranking.stages, ranking.complete, [(hit.doc_id, round(hit.score, 9)) for hit in ranking.hits]


@pytest.mark.case("M6")
@given(worlds(may_fail=["embed", "weigh", "read", "small"]))
def test_proxy_and_tune_rank_alike(world: World) -> None:
    assert order(by_tune(world)) == order(by_proxy(world))


@pytest.mark.case("M6")
@given(worlds(may_fail=["score"], may_boost=False).filter(lambda world: world.stage not in ("expansion", "cascade")))
def test_adapt_and_the_benchmark_of_models_rank_as_the_proxy_does_without_expansions(world: World) -> None:
    plain = msgspec.structs.replace(world.profile, generator=None)
    world = replace(world, profile=plain)
    assert order(in_memory(world)) == order(by_proxy(world))


@given(worlds())
def test_a_collapsed_ranking_is_the_first_of_each_group_of_the_whole_one(world: World) -> None:
    world = replace(world, profile=msgspec.structs.replace(world.profile, window=12))
    plain = by_proxy(replace(world, body={name: each for name, each in world.body.items() if name != "collapse"}))
    collapsed = by_proxy(replace(world, body={**world.body, **BY_BRAND}))
    brands = {("i", doc_id): [each for each in brand if each is not None] for doc_id, brand in world.brands.items()}
    single = {key: brand[0] if brand else None for key, brand in brands.items() if len(brand) < 2}
    assert list(collapsed.hits) == first_of_each(plain.hits, single)
    assert len({single[hit.key] for hit in collapsed.hits}) == len(collapsed.hits)


@given(worlds().filter(lambda world: "collapse" in world.body), st.integers(0, 8))
def test_every_page_is_of_the_same_groups(world: World, start: int) -> None:
    first, later = (by_proxy(replace(world, body={**world.body, "from": at})) for at in (0, start))
    assert len(first.hits) == len(later.hits) <= world.profile.window
    assert [hit.key for hit in first.hits][start:] == [hit.key for hit in later.hits][start:]


@given(worlds(), st.integers(0, 8))
def test_every_page_is_of_one_ranking_and_pins_are_the_applications_first(world: World, start: int) -> None:
    first, later = (by_proxy(replace(world, body={**world.body, "from": at})) for at in (0, start))
    assert [hit.key for hit in first.hits][start:] == [hit.key for hit in later.hits][start:]
    pins = [hit.key for hit in first.hits if hit.pinned]
    assert pins == first.own[: len(pins)] == [hit.key for hit in first.hits[: len(pins)]]
    scores = [hit.score for hit in first.hits]
    assert scores == sorted(scores, reverse=True)


@given(worlds(may_fail=["embed", "weigh", "lexical", "expansion", "vector", "sparse", "read", "score", "small"]))
def test_a_stage_that_fails_is_noted_and_only_it_is_left_out(world: World) -> None:
    notes = Notes()
    ranking = by_proxy(world, notes)
    if not notes.failures:
        assert order(ranking) == order(by_proxy(replace(world, failing=frozenset())))
    if ranking.stages.endswith(("+rerank", "+cascade")):
        assert not world.failing & {"read", "score"}
    assert all(leg not in ranking.legs for leg in world.failing)


@pytest.mark.case("M6")
def test_tune_ranks_a_body_with_min_score_as_the_proxy_serves_it() -> None:
    own = hits("a", "b", "c", "d")
    profile = msgspec.structs.replace(PROFILE, window=8)
    world = World(own, own, hits("e", "d", "a"), [], {}, {}, profile, "hybrid", {"min_score": 0.5})
    assert ids(by_proxy(world)) == ids(by_tune(world)) == "adbc"


REPAIRING = msgspec.structs.replace(PROFILE, rules=msgspec.structs.replace(PROFILE.rules, repair=True))
MEANT = Repair("red shoes", {"shoe": "shoes"})


def test_models_read_the_repaired_words_and_so_does_a_search_by_text() -> None:
    script = Script(meant=MEANT)
    ranking = ranked(script, "rerank", profile=REPAIRING)
    assert sorted(script.asked[:2]) == ["embed red shoe", "repair red shoe"]
    assert script.asked[2:4] == ["embed red shoes", "search expansion vector"]
    assert script.read_for == "red shoes"
    assert ranking.repair == MEANT


def test_words_that_need_no_repair_are_encoded_once() -> None:
    script = Script()
    ranking = ranked(script, "hybrid", profile=REPAIRING)
    assert sorted(script.asked) == ["embed red shoe", "repair red shoe", "search expansion vector"]
    assert ranking.repair is None


def test_nobody_asks_for_a_repair_that_is_off() -> None:
    script = Script(meant=MEANT)
    assert ranked(script, "rerank").repair is None
    assert "repair red shoe" not in script.asked


def test_the_closest_documents_are_those_of_the_repaired_words_which_are_looked_up_once() -> None:
    script = Script(meant=MEANT, lexical=[], expansion=[], vector=[], exact=[])
    ranking = ranked(script, "expansion", profile=REPAIRING, distance=Distance(fallback=True))
    assert script.asked.count("repair red shoe") == 1
    assert "embed red shoes" in script.asked
    assert ranking.repair == MEANT
