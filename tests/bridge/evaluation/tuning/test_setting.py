"""Settings go into a profile and come out of it unchanged, and vary only what their stage uses."""

from dataclasses import replace

import msgspec
import pytest

from bridge.evaluation.tuning.search import STEPS
from bridge.evaluation.tuning.setting import BOOSTS, WINDOWS, Setting, further_legs, rerankings
from bridge.profile import (
    CascadeSettings,
    FusionSettings,
    ImageSettings,
    IndexProfile,
    ModelReference,
    RerankSettings,
    SearchRules,
    SparseSettings,
    Stage,
)

PROFILE = IndexProfile(
    text_fields=["body"],
    encoder=ModelReference("encoder", "0" * 12),
    dimension=8,
    fusion=FusionSettings("rrf", 12, {"lexical": 0.5, "expansion": 1.0, "vector": 0.3}),
    rerank=RerankSettings(model="mine", depth=7, blend=0.1, cascade=CascadeSettings(60, 6)),
    window=70,
    expansion_boost=0.9,
    rules=SearchRules(leave_quoted=False, confident_lead=2.5),
)


def test_what_an_index_has_is_what_it_gets_back() -> None:
    assert Setting.of(PROFILE, "rerank").applied_to(PROFILE) == PROFILE


def test_searches_stop_at_the_stage_of_the_setting() -> None:
    changed = Setting.of(PROFILE, "hybrid").applied_to(PROFILE)
    stages: list[Stage] = ["lexical", "expansion", "vector", "smoothing", "rerank", "hybrid"]
    assert changed == msgspec.structs.replace(PROFILE, stages=stages)


def test_a_setting_smooths_as_far_as_its_own_stage_does() -> None:
    coded = msgspec.structs.replace(PROFILE, codes="sign")
    assert [Setting.of(coded, stage).smoothing for stage in ("hybrid", "smoothing", "rerank")] == [0.0, 0.3, 0.3]
    assert Setting.of(coded, "rerank").applied_to(coded).stages[-2:] == ["smoothing", "rerank"]
    for varied in rerankings(Setting.of(coded, "hybrid")):
        assert varied.applied_to(coded).fusion.smoothing == 0.0
    for varied in rerankings(replace(Setting.of(coded, "smoothing"), smoothing=0.2)):
        assert varied.applied_to(coded).fusion.smoothing == 0.2
    without: list[Stage] = ["lexical", "hybrid", "rerank"]
    gated = msgspec.structs.replace(coded, stages=without)
    assert "smoothing" not in Setting.of(gated, "rerank").applied_to(gated).stages


def test_weights_of_the_sparse_leg_are_tried_if_documents_have_terms() -> None:
    weighed = msgspec.structs.replace(PROFILE, sparse=SparseSettings(ModelReference("sparse", "0" * 12)))
    setting = Setting.of(weighed, "hybrid")
    tried = [dict(varied.weights) for varied in further_legs(setting)]
    assert {weights["sparse"] for weights in tried} >= {0.0, 0.5}
    assert all(weights | {"sparse": 0.0} == PROFILE.fusion.weights | {"sparse": 0.0} for weights in tried)
    assert setting.applied_to(weighed).fusion.weights == PROFILE.fusion.weights | {"sparse": 0.0}
    assert str(setting.weighing(sparse=0.2)).startswith(
        "hybrid, expansion boost 0.9, rrf k 12 (expansion 1 lexical 0.5 sparse 0.2 vector 0.3)"
    )
    assert list(further_legs(Setting.of(weighed, "rerank"))) == []


def test_weights_of_pictures_are_tried_if_documents_have_vectors_of_some() -> None:
    image = ImageSettings("photo", ModelReference("image-encoder", "0" * 12), 8)
    setting = Setting.of(msgspec.structs.replace(PROFILE, image=image), "hybrid")
    tried = [dict(varied.weights) for varied in further_legs(setting)]
    assert {weights["image"] for weights in tried} >= {0.0, 0.5}
    assert all("sparse" not in weights for weights in tried)
    assert list(further_legs(Setting.of(PROFILE, "hybrid"))) == []


def test_a_weight_changes_alone() -> None:
    assert dict(Setting.of(PROFILE, "hybrid").weighing(vector=2.0).weights) == {
        "lexical": 0.5,
        "expansion": 1.0,
        "vector": 2.0,
    }


@pytest.mark.parametrize(
    ("stage", "varied"),
    [
        ("lexical", (0, 0, 0, 0, 0, 0, 0, 0)),
        ("expansion", (0, 0, 0, len(BOOSTS), 0, 0, 0, 0)),
        ("hybrid", (28, 3, 0, len(BOOSTS) * len(WINDOWS), 5, 70, 0, 5)),
        ("smoothing", (0, 0, 0, 0, 0, 70, 0, 5)),
        ("rerank", (0, 0, 0, 0, 0, 0, 4, 5)),
        ("cascade", (0, 0, 0, 0, 0, 0, 0, 5)),
    ],
)
def test_a_step_varies_what_its_stage_uses(stage: Stage, varied: tuple[int, ...]) -> None:
    setting = Setting.of(PROFILE, stage)
    assert tuple(len(set(step(setting))) for step in STEPS) == varied


def test_a_setting_tells_what_it_does_and_no_more() -> None:
    hybrid = Setting.of(PROFILE, "hybrid")
    told = "hybrid, expansion boost 0.9, rrf k 12 (expansion 1 lexical 0.5 vector 0.3), window 70"
    assert str(hybrid) == f"{told}, words alone from a lead of 2.5 on"
    assert str(replace(hybrid, lead=None)) == told
    assert str(replace(hybrid, stage="cascade", lead=None)).endswith("cascade 60 → 6, blend 0.1")
    smoothed = replace(hybrid, stage="smoothing", lead=None, smoothing=0.3)
    assert str(smoothed) == told.replace("hybrid", "smoothing") + ", smoothing 0.3"
    assert str(replace(hybrid, stage="lexical")) == "lexical"
