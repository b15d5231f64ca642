"""The index profile: what is written under `_meta` is what is read back."""

import msgspec
import pytest

from bridge.errors import IndexUnsuitable
from bridge.profile import (
    META_KEY,
    Calibration,
    Codes,
    GateRecord,
    IndexProfile,
    Measurement,
    ModelReference,
    PassageSettings,
    RerankSettings,
    SparseSettings,
    StageVerdict,
    TunedPoint,
    TuningRecord,
    VectorType,
    profile_of,
)

SPARSE = SparseSettings(ModelReference("sparse", "4" * 12))
PROFILE = IndexProfile(
    text_fields=["title", "body.text"],
    encoder=ModelReference("embed-base", "0123456789ab"),
    dimension=384,
    generator=ModelReference("doc2query-small", "ba9876543210"),
    passages=PassageSettings(layout="nested", max_tokens=200, overlap_tokens=20),
    rerank=RerankSettings(depth=30, blend=0.2),
)


def test_a_profile_survives_the_mapping() -> None:
    stored = msgspec.json.decode(msgspec.json.encode({META_KEY: PROFILE.to_meta(), "owner": "shop"}))
    assert profile_of(stored, index="products") == PROFILE


CALIBRATION = Calibration(
    40.0, 0.7, PROFILE.encoder.identity, 1, 0.97, 0.95, 0.99, 148, Measurement("label-free", 100, "AUC", "2026-01-02")
)


def test_a_calibration_survives_the_mapping_and_older_profiles_have_none() -> None:
    profile = msgspec.structs.replace(PROFILE, calibration=CALIBRATION)
    stored = msgspec.json.decode(msgspec.json.encode({META_KEY: profile.to_meta()}))
    assert profile_of(stored, index="products") == profile
    del stored[META_KEY]["calibration"]
    assert profile_of(stored, index="products") == PROFILE


def test_a_calibration_counts_for_the_models_and_the_generation_that_it_was_made_with() -> None:
    profile = msgspec.structs.replace(PROFILE, calibration=CALIBRATION)
    assert profile.valid_calibration == CALIBRATION
    for change in ({"encoder": ModelReference("embed-base", "f" * 12)}, {"generation": 2}):
        assert msgspec.structs.replace(profile, **change).valid_calibration is None


def test_a_calibration_that_falls_with_the_score_is_refused() -> None:
    meta = msgspec.structs.replace(PROFILE, calibration=msgspec.structs.replace(CALIBRATION, slope=-1.0)).to_meta()
    with pytest.raises(IndexUnsuitable, match="slope"):
        profile_of({META_KEY: meta}, index="products")


def test_the_sparse_encoder_survives_the_mapping() -> None:
    sparse = SparseSettings(ModelReference("sparse-tiny", "0123456789ab"), 64, "model", "sparse_vector")
    profile = msgspec.structs.replace(PROFILE, sparse=sparse, generation=2)
    stored = msgspec.json.decode(msgspec.json.encode({META_KEY: profile.to_meta()}))
    assert profile_of(stored, index="products") == profile
    assert profile.terms_field == "_neural.generation_2.terms"
    assert (PROFILE.has_terms, profile.has_terms) == (False, True)
    assert profile.encoded_fields == ["_neural.generation_2.passages.embedding", profile.terms_field]


def test_the_evidence_of_gate_and_tuning_survives_the_mapping() -> None:
    measured = Measurement("judgements.csv", 40, "nDCG@10", "2026-01-02T03:04:05Z")
    verdicts = [
        StageVerdict("lexical", enabled=True, mean=0.4, p50_ms=5.0, p95_ms=9.0),
        StageVerdict("rerank", enabled=False, mean=0.3, against="lexical", difference=-0.1, low=-0.2, high=0.0),
    ]
    judged = msgspec.structs.replace(
        PROFILE,
        gate=GateRecord(verdicts, tolerance=0.02, measurement=measured),
        tuning=TuningRecord(measured, 5, 100.0, 0.4, 0.45, 0.01, 0.09, [TunedPoint(80.0, 0.45, "zscore")]),
    )
    stored = msgspec.json.decode(msgspec.json.encode({META_KEY: judged.to_meta()}))
    assert profile_of(stored, index="products") == judged


def test_an_index_without_our_block_has_no_profile() -> None:
    assert profile_of({"owner": "shop"}, index="products") is None
    assert profile_of(None, index="products") is None


def test_fields_follow_the_object_and_the_layout() -> None:
    assert PROFILE.embedding_field == "_neural.passages.embedding"
    single = msgspec.structs.replace(PROFILE, object_field="nb", passages=PassageSettings())
    assert single.embedding_field == "nb.embedding"
    assert single.predicted_queries_field == "nb.predicted_queries"


@pytest.mark.parametrize(
    ("vector_type", "sparse", "codes", "fields"),
    [
        pytest.param("knn_vector", None, "sign", ["_neural.passages.embedding", "_neural.code"], id="signs"),
        pytest.param("knn_vector", None, "planes", ["_neural.passages.embedding", "_neural.code"], id="planes"),
        pytest.param("dense_vector", None, "none", ["_neural.passages.embedding"], id="no-codes"),
        pytest.param("none", SPARSE, "terms", ["_neural.code", "_neural.terms"], id="terms"),
        pytest.param("none", SPARSE, "sign", ["_neural.terms"], id="terms-of-an-older-index"),
        pytest.param("none", None, "planes", [], id="no-vectors"),
        pytest.param("none", None, "terms", [], id="no-terms"),
        pytest.param("none", None, "none", [], id="neither"),
    ],
)
def test_there_are_no_codes_without_what_they_are_made_of(
    vector_type: VectorType, sparse: SparseSettings | None, codes: Codes, fields: list[str]
) -> None:
    profile = msgspec.structs.replace(PROFILE, vector_type=vector_type, codes=codes, sparse=sparse)
    assert profile.encoded_fields == fields
    assert profile.has_vectors == (vector_type != "none")
    assert profile.has_codes == ("_neural.code" in fields)


def test_a_newer_version_is_refused_by_name() -> None:
    meta = {META_KEY: {**PROFILE.to_meta(), "version": 99}}
    with pytest.raises(IndexUnsuitable, match=r"products.*version 99"):
        profile_of(meta, index="products")


def test_keys_of_a_later_minor_change_are_ignored() -> None:
    assert profile_of({META_KEY: {**PROFILE.to_meta(), "colour": "red"}}, index="products") == PROFILE


@pytest.mark.parametrize("damage", [{"dimension": "many"}, {"text_fields": None}, {"passages": {"layout": "odd"}}])
def test_a_damaged_block_is_an_error_that_names_the_index(damage: dict[str, object]) -> None:
    with pytest.raises(IndexUnsuitable, match="products"):
        profile_of({META_KEY: {**PROFILE.to_meta(), **damage}}, index="products")


def test_text_fields_are_kept_by_name_and_read_in_either_form() -> None:
    profile = IndexProfile(["title", "body.en"], ModelReference("toy", "0" * 12), 4)
    meta = profile.to_meta()
    assert meta["text_fields"] == ["title", "body.en"]
    as_objects = {**meta, "text_fields": [{"name": "title"}, {"name": "body.en"}]}
    assert profile_of({META_KEY: meta}, index="x") == profile_of({META_KEY: as_objects}, index="x") == profile


@pytest.mark.case("P41")
@pytest.mark.parametrize(
    "damage",
    [
        {"dimension": 0},
        {"dimension": -4},
        {"window": 0},
        {"window": 10_001},
        {"stages": []},
        {"text_fields": []},
        {"generation": 0},
        {"expansion_boost": -0.5},
        {"passages": {"max_tokens": 0}},
        {"passages": {"overlap_tokens": -1}},
        {"fusion": {"k": -1}},
        {"fusion": {"weights": {"vector": -1.0}}},
        {"fusion": {"weights": {"vector": 1e308}}},
        {"rerank": {"depth": 0}},
        {"rerank": {"passages": 0}},
        {"rerank": {"blend": 1.5}},
        {"rerank": {"blend": -0.1}},
        {"rerank": {"cascade": {"depth": 0}}},
        {"rerank": {"cascade": {"candidates": -20}}},
        {"rules": {"confident_lead": 0}},
    ],
    ids=str,
)
def test_a_value_out_of_its_range_is_an_error_that_names_it(damage: dict[str, object]) -> None:
    *_, name = _path(damage)
    with pytest.raises(IndexUnsuitable, match=rf"products: .*Expected .*{name}"):
        profile_of({META_KEY: {**PROFILE.to_meta(), **damage}}, index="products")


def _path(damage: dict[str, object]) -> list[str]:
    """Keys on the way to the one wrong value, without names of legs."""
    path: list[str] = []
    inner: object = damage
    while isinstance(inner, dict):
        [(key, inner)] = inner.items()
        path.append(key)
    return [key for key in path if key != "vector"]
