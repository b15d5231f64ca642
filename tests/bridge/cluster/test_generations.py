"""Which generation serves, and which profile a change of models gets."""

from typing import Any

import msgspec
import pytest

from bridge.cluster.generations import newer, next_generation, older
from bridge.cluster.index import IndexState
from bridge.errors import IndexUnsuitable
from bridge.profile import (
    IMAGE_WEIGHT,
    STATIC_FUSION,
    FusionSettings,
    ImageSettings,
    IndexProfile,
    Measurement,
    ModelReference,
    SparseSettings,
    StageVerdict,
    TuningRecord,
)
from bridge.profile import GateRecord as Gate

FIRST = IndexProfile(
    ["title"],
    ModelReference("old", "0" * 12),
    4,
    window=50,
    gate=Gate([StageVerdict("lexical", enabled=True)], tolerance=0.0),
    tuning=TuningRecord(Measurement("j", 1, "m", "t"), 5, None, 0.1, 0.2, 0.0, 0.1, []),
)
OTHER_MODELS = IndexProfile(["title"], ModelReference("new", "1" * 12), 8)


def state(
    profile: IndexProfile | None, beside: IndexProfile | None = None, fields: dict[str, Any] | None = None
) -> IndexState:
    mapping = {"properties": {"_neural": {"properties": fields or {}}}}
    return IndexState("shop", mapping, {}, profile, beside)


def test_a_change_of_models_keeps_choices_and_drops_evidence_of_other_models() -> None:
    profile = next_generation(state(FIRST), OTHER_MODELS)
    assert (profile.generation, profile.encoder.name, profile.dimension, profile.window) == (2, "new", 8, 50)
    assert (profile.gate, profile.tuning) == (None, None)


def test_the_weight_that_pictures_get_by_default_is_no_choice_and_their_encoder_is_that_of_the_new_models() -> None:
    image = ImageSettings("photo", ModelReference("clip", "6" * 12), 8)
    weights = {**FusionSettings().weights, "image": IMAGE_WEIGHT}
    first = msgspec.structs.replace(FIRST, image=image, fusion=FusionSettings(weights=weights))
    other = msgspec.structs.replace(image, encoder=ModelReference("clip", "7" * 12))
    made_by = msgspec.structs.replace(first, image=other, fusion=STATIC_FUSION)
    profile = next_generation(state(first), made_by)
    assert (profile.image, profile.fusion) == (other, STATIC_FUSION)
    with pytest.raises(IndexUnsuitable, match="clip@666666666666 already"):
        next_generation(state(first), first)


@pytest.mark.parametrize("default", [FusionSettings(), STATIC_FUSION])
def test_a_default_fusion_goes_with_the_encoder_and_a_chosen_one_stays(default: FusionSettings) -> None:
    chosen = FusionSettings(weights={"expansion": 1.0, "vector": 0.4})
    for serving, made_by, expected in (
        (default, FusionSettings(), FusionSettings()),
        (default, STATIC_FUSION, STATIC_FUSION),
        (chosen, default, chosen),
    ):
        first = msgspec.structs.replace(FIRST, fusion=serving)
        profile = next_generation(state(first), msgspec.structs.replace(OTHER_MODELS, fusion=made_by))
        assert profile.fusion == expected


def test_a_number_is_never_used_again() -> None:
    assert next_generation(state(FIRST, fields={"generation_4": {}}), OTHER_MODELS).generation == 5


def test_a_second_generation_of_the_same_models_is_gone_on_with() -> None:
    second = next_generation(state(FIRST), OTHER_MODELS)
    assert next_generation(state(FIRST, second), OTHER_MODELS) == second


def test_another_sparse_encoder_is_a_change_of_models() -> None:
    sparse = SparseSettings(ModelReference("sparse", "4" * 12))
    with_terms = msgspec.structs.replace(FIRST, sparse=sparse)
    second = next_generation(state(FIRST), with_terms)
    assert (second.generation, second.sparse, second.terms_field) == (2, sparse, "_neural.generation_2.terms")
    with pytest.raises(IndexUnsuitable, match="made by old@000000000000 and sparse@444444444444 already"):
        next_generation(state(with_terms), with_terms)


@pytest.mark.parametrize(
    ("profile", "beside", "message"),
    [
        (None, None, "begin with `neural-bridge backfill shop`"),
        (OTHER_MODELS, None, "already: name the models to change to"),
        (
            FIRST,
            msgspec.structs.replace(FIRST, generation=2, dimension=3, encoder=ModelReference("x", "2" * 12)),
            "drop",
        ),
    ],
)
def test_a_change_that_is_none_names_the_remedy(
    profile: IndexProfile | None, beside: IndexProfile | None, message: str
) -> None:
    with pytest.raises(IndexUnsuitable, match=message):
        next_generation(state(profile, beside), OTHER_MODELS)


def test_cutover_goes_to_a_newer_generation_and_rollback_to_an_older_one() -> None:
    second = msgspec.structs.replace(OTHER_MODELS, generation=2)
    assert newer(state(FIRST, second)) == second
    assert older(state(second, FIRST)) == FIRST
    with pytest.raises(IndexUnsuitable, match="rollback shop"):
        newer(state(second, FIRST))
    with pytest.raises(IndexUnsuitable, match="nothing to roll back"):
        older(state(FIRST, second))
