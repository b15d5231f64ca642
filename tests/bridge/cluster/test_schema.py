"""The mapping of our object, and every reason why an index cannot hold it."""

from typing import Any

import msgspec
import pytest

from bridge.cluster.dialects import Dialect, ElasticsearchDialect, OpenSearchDialect
from bridge.cluster.schema import (
    Bm25,
    count_fields,
    differences,
    field_mapping,
    in_place_obstacles,
    new_index,
    read_profile,
    without_text,
    write_blocks,
)
from bridge.errors import IndexUnsuitable
from bridge.profile import (
    IMAGE_WEIGHT,
    SEPARATE_BOOST,
    TOGETHER_BOOST,
    FusionSettings,
    ImageSettings,
    IndexProfile,
    ModelReference,
    PassageSettings,
    SparseSettings,
)

ENCODER = ModelReference("toy", "0123456789ab")
SINGLE = IndexProfile(text_fields=["title", "body.en"], encoder=ENCODER, dimension=8)
WITH_TERMS = msgspec.structs.replace(SINGLE, sparse=SparseSettings(ModelReference("sparse", "4" * 12)))
NESTED = IndexProfile(text_fields=["title"], encoder=ENCODER, dimension=8, passages=PassageSettings("nested"))


def index(profile: IndexProfile, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Mapping and settings as the cluster would give them back."""
    body = new_index(profile, OpenSearchDialect((3, 6, 0)), **options)
    return body["mappings"], {"knn": "true"}


@pytest.mark.parametrize("profile", [pytest.param(SINGLE, id="single"), pytest.param(NESTED, id="nested")])
def test_new_index_fits_the_profile_that_made_it(profile: IndexProfile) -> None:
    mapping, settings = index(profile)
    assert differences(profile, mapping, settings) == []
    names = profile.text_fields
    kept = msgspec.structs.replace(
        profile, vector_encoding="byte", codes="planes", expanded_fields=names, expansion_boost=TOGETHER_BOOST
    )
    assert read_profile(mapping, index="x") == kept
    assert field_mapping(mapping, "_neural.code") == {"type": "binary", "doc_values": True}
    assert differences(kept, mapping, settings) == []
    del mapping["properties"]["_neural"]["properties"]["code"]
    assert differences(kept, mapping, settings) == ["field _neural.code is not in the mapping"]


@pytest.mark.parametrize(
    ("dialect", "properties", "together"),
    [
        pytest.param(OpenSearchDialect((3, 2, 0)), {}, ["title", "body.en"], id="all"),
        pytest.param(OpenSearchDialect((3, 1, 0)), {}, [], id="old-opensearch"),
        pytest.param(ElasticsearchDialect((7, 12, 0)), {}, [], id="old-elasticsearch"),
        pytest.param(OpenSearchDialect((3, 2, 0)), {"title": {"type": "keyword"}}, ["body.en"], id="first-is-no-text"),
        pytest.param(
            OpenSearchDialect((3, 2, 0)),
            {"title": {"type": "text", "analyzer": "names"}},
            ["body.en"],
            id="first-is-analysed-otherwise",
        ),
        pytest.param(
            OpenSearchDialect((3, 2, 0)),
            {"body": {"properties": {"en": {"type": "text", "analyzer": "standard"}}}},
            ["title"],
            id="another-analyzer",
        ),
        pytest.param(
            OpenSearchDialect((3, 2, 0)),
            {"title": {"type": "text", "analyzer": "english", "similarity": "boolean"}},
            ["body.en"],
            id="another-similarity",
        ),
    ],
)
def test_predicted_queries_are_scored_with_the_fields_that_the_cluster_can_join_to_them(
    dialect: Dialect, properties: dict[str, Any], together: list[str]
) -> None:
    kept = read_profile(new_index(SINGLE, dialect, properties=properties)["mappings"], index="x")
    assert kept is not None
    assert kept.expanded_fields == together
    assert kept.expansion_boost == (TOGETHER_BOOST if together else SEPARATE_BOOST)


def test_text_fields_and_predicted_queries_share_the_analyzer() -> None:
    mapping, _ = index(SINGLE, analyzer="standard")
    for name in ("title", "body.en", "_neural.predicted_queries"):
        assert field_mapping(mapping, name) == {"type": "text", "analyzer": "standard"}


def test_the_applications_own_mapping_overrides_a_text_field() -> None:
    mapping, _ = index(SINGLE, properties={"title": {"type": "text", "analyzer": "french"}})
    assert field_mapping(mapping, "title") == {"type": "text", "analyzer": "french"}


def test_predicted_queries_are_searched_as_the_first_text_field_is() -> None:
    title = {"type": "text", "analyzer": "english", "search_analyzer": "synonyms"}
    mapping, _ = index(SINGLE, properties={"title": title})
    assert field_mapping(mapping, "_neural.predicted_queries") == title
    kept = read_profile(mapping, index="x")
    assert kept is not None
    assert kept.expanded_fields == []


@pytest.mark.parametrize(
    ("version", "settings"),
    [
        pytest.param((8, 16, 6), {}, id="8"),
        pytest.param((9, 4, 3), {"index.mapping.exclude_source_vectors": False}, id="9"),
    ],
)
def test_elasticsearch_gets_its_own_vector_field(version: tuple[int, int, int], settings: dict[str, Any]) -> None:
    body = new_index(SINGLE, ElasticsearchDialect(version))
    embedding = field_mapping(body["mappings"], "_neural.embedding")
    assert embedding is not None
    assert (embedding["type"], embedding["dims"], body["settings"]) == ("dense_vector", 8, settings)
    assert differences(SINGLE, body["mappings"], {}) == []
    profile = read_profile(body["mappings"], index="x")
    assert profile is not None
    assert profile.vector_type == "dense_vector"


@pytest.mark.parametrize("profile", [pytest.param(SINGLE, id="single"), pytest.param(NESTED, id="nested")])
@pytest.mark.parametrize(
    "dialect",
    [
        pytest.param(OpenSearchDialect((2, 19, 1), "none"), id="opensearch"),
        pytest.param(ElasticsearchDialect((7, 17, 0), "none"), id="elasticsearch"),
    ],
)
def test_a_cluster_without_vectors_gets_the_rest(profile: IndexProfile, dialect: Dialect) -> None:
    body = new_index(profile, dialect)
    kept = read_profile(body["mappings"], index="x")
    assert kept is not None
    assert (kept.vector_type, kept.stages, body["settings"]) == ("none", ["lexical", "expansion", "rerank"], {})
    assert sorted(body["mappings"]["properties"]["_neural"]["properties"]) == ["predicted_queries", "stamp"]
    assert differences(kept, body["mappings"], {}) == []


@pytest.mark.parametrize(
    ("dialect", "terms_type"),
    [
        pytest.param(OpenSearchDialect((2, 19, 1)), "rank_features", id="opensearch"),
        pytest.param(ElasticsearchDialect((8, 14, 3)), "rank_features", id="elasticsearch-before-8.15"),
        pytest.param(ElasticsearchDialect((8, 15, 0)), "sparse_vector", id="elasticsearch"),
    ],
)
def test_terms_get_the_field_that_the_cluster_searches(dialect: Dialect, terms_type: str) -> None:
    mapping = new_index(WITH_TERMS, dialect)["mappings"]
    kept = read_profile(mapping, index="x")
    assert kept is not None
    assert kept.sparse is not None
    assert kept.sparse.terms_type == terms_type
    assert field_mapping(mapping, kept.terms_field) == {"type": terms_type}
    assert differences(kept, mapping, {"knn": "true"}) == []
    assert "sparse" not in kept.fusion.weights
    del mapping["properties"]["_neural"]["properties"]["terms"]
    assert differences(kept, mapping, {"knn": "true"}) == ["field _neural.terms is not in the mapping"]


def test_terms_take_the_place_of_vectors_in_a_cluster_that_searches_none() -> None:
    mapping = new_index(WITH_TERMS, OpenSearchDialect((2, 19, 1), "none"))["mappings"]
    kept = read_profile(mapping, index="x")
    assert kept is not None
    assert kept.stages == ["lexical", "expansion", "hybrid", "smoothing", "rerank"]
    assert kept.codes == "terms"
    assert {leg: kept.fusion.weights[leg] for leg in ("expansion", "sparse")} == {"expansion": 0.6, "sparse": 0.4}
    assert sorted(mapping["properties"]["_neural"]["properties"]) == ["code", "predicted_queries", "stamp", "terms"]


def test_a_chosen_weight_of_terms_stays() -> None:
    chosen = msgspec.structs.replace(WITH_TERMS, fusion=FusionSettings(weights={"expansion": 1.0, "sparse": 0.0}))
    kept = read_profile(new_index(chosen, OpenSearchDialect((2, 19, 1), "none"))["mappings"], index="x")
    assert kept is not None
    assert kept.fusion.weights == {"expansion": 1.0, "sparse": 0.0}


def test_our_object_of_an_older_enrichment_may_lack_terms() -> None:
    """After `undo` an index keeps the fields, and no profile says whose they are."""
    mapping, settings = index(SINGLE)
    del mapping["_meta"]
    assert in_place_obstacles(WITH_TERMS, OpenSearchDialect((3, 6, 0)), mapping, settings) == []


def without(mapping: dict[str, Any], name: str) -> dict[str, Any]:
    owner, _, last = name.rpartition(".")
    found = field_mapping(mapping, owner)
    assert found is not None
    del found["properties"][last]
    return mapping


def changed(mapping: dict[str, Any], name: str, **change: Any) -> dict[str, Any]:
    found = field_mapping(mapping, name)
    assert found is not None
    found.update(change)
    return mapping


@pytest.mark.case("I22")
@pytest.mark.parametrize(
    ("profile", "spoil", "settings", "finding"),
    [
        pytest.param(
            SINGLE, lambda m: without(m, "_neural.embedding"), {}, "_neural.embedding is not in", id="no-vector"
        ),
        pytest.param(
            SINGLE, lambda m: changed(m, "_neural.embedding", type="float"), {}, "is of type float", id="no-vector-type"
        ),
        pytest.param(
            SINGLE,
            lambda m: changed(m, "_neural.embedding", dimension=4),
            {},
            "dimension 4, the encoder",
            id="dimension",
        ),
        pytest.param(SINGLE, lambda m: changed(m, "_neural.stamp", type="text"), {}, "expected keyword", id="stamp"),
        pytest.param(
            NESTED, lambda m: changed(m, "_neural.passages", type="object"), {}, "not nested", id="flat-passages"
        ),
        pytest.param(SINGLE, lambda m: m, {"knn": "false"}, "index.knn was never set to true", id="knn-off"),
        pytest.param(
            SINGLE, lambda m: m, {"mapping": {"total_fields": {"limit": "3"}}}, "limit allows 3", id="field-limit"
        ),
    ],
)
def test_every_difference_is_named(profile: IndexProfile, spoil: Any, settings: dict[str, Any], finding: str) -> None:
    mapping, normal = index(profile)
    (sentence,) = differences(profile, spoil(mapping), {**normal, **settings})
    assert finding in sentence


def test_fields_are_counted_as_the_cluster_counts_them() -> None:
    keyword = {"type": "keyword"}
    mapping = {"properties": {"a": {"type": "text", "fields": {"raw": keyword}}, "b": {"properties": {"c": keyword}}}}
    assert count_fields(mapping) == 4


@pytest.mark.parametrize(
    ("settings", "blocks"),
    [
        pytest.param({"blocks": {"write": "true"}}, ["setting index.blocks.write is true"], id="write-block"),
        pytest.param({"blocks": {"read_only": "false"}}, [], id="no-block"),
        pytest.param({"verified_before_close": "true"}, ["it is closed"], id="closed"),
        pytest.param({}, [], id="open"),
    ],
)
def test_what_keeps_documents_out_of_an_index_is_named(settings: dict[str, Any], blocks: list[str]) -> None:
    assert list(write_blocks(settings)) == blocks


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"derived_source": {"enabled": "true"}}, id="opensearch"),
        pytest.param({"mapping": {"source": {"mode": "synthetic"}}}, id="elasticsearch"),
    ],
)
def test_a_source_that_is_put_together_anew_is_not_updated_in_place(settings: dict[str, Any]) -> None:
    mapping, _ = index(SINGLE)
    plain = in_place_obstacles(SINGLE, ElasticsearchDialect((9, 4, 3)), mapping, {})
    found = in_place_obstacles(SINGLE, ElasticsearchDialect((9, 4, 3)), mapping, settings)
    assert next(sentence for sentence in found if sentence not in plain).endswith("start from a reconstruction")


@pytest.mark.case("M4")
@pytest.mark.parametrize(
    ("name", "finding"),
    [
        ("label", "field label is an alias: name title, for which it stands"),
        ("shop", "field shop is an object: name fields in it, such as shop.city"),
        ("items", "field items is an object: name fields in it, such as items.name"),
        ("sold", "field sold is of type boolean, which holds no text"),
        ("place", "field place is of type geo_point, which holds no text"),
    ],
)
def test_a_field_without_text_is_named(name: str, finding: str) -> None:
    properties = {
        "title": {"type": "text"},
        "label": {"type": "alias", "path": "title"},
        "shop": {"properties": {"city": {"type": "keyword"}}},
        "items": {"type": "nested", "properties": {"name": {"type": "text"}}},
        "sold": {"type": "boolean"},
        "place": {"type": "geo_point"},
        "price": {"type": "float"},
    }
    with_text = ["title", "shop.city", "items.name", "price"]
    assert list(without_text({"properties": properties}, [*with_text, name])) == [finding]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({}, Bm25(1.2, 0.75), id="default"),
        pytest.param({"similarity": {"default": {"type": "BM25", "b": "0.4"}}}, Bm25(1.2, 0.4), id="one"),
        pytest.param({"similarity": {"default": {"k1": "0.9", "b": "0"}}}, Bm25(0.9, 0.0), id="both"),
        pytest.param({"similarity": {"default": {"type": "boolean"}}}, None, id="another"),
    ],
)
def test_an_index_tells_how_it_scores_words(settings: dict[str, Any], expected: Bm25 | None) -> None:
    assert Bm25.of(settings) == expected


PICTURED = msgspec.structs.replace(
    SINGLE, image=ImageSettings("shop.photo", ModelReference("clip", "5" * 12), 6), passages=PassageSettings("nested")
)


@pytest.mark.parametrize(
    ("dialect", "type_and_size"),
    [
        pytest.param(OpenSearchDialect((3, 6, 0)), {"type": "knn_vector", "dimension": 6}, id="opensearch"),
        pytest.param(ElasticsearchDialect((9, 4, 3)), {"type": "dense_vector", "dims": 6}, id="elasticsearch"),
    ],
)
def test_pictures_get_a_vector_field_of_their_own_and_are_no_words(
    dialect: Dialect, type_and_size: dict[str, Any]
) -> None:
    mapping = new_index(PICTURED, dialect)["mappings"]
    kept = read_profile(mapping, index="x")
    assert kept is not None
    assert kept.image == PICTURED.image
    assert kept.fusion.weights["image"] == IMAGE_WEIGHT
    vector = field_mapping(mapping, "_neural.image_embedding")
    assert vector is not None
    assert vector.items() >= type_and_size.items()
    photo = field_mapping(mapping, "shop.photo")
    assert photo == {"type": "keyword", "index": False, "doc_values": False}
    assert differences(kept, mapping, {"knn": "true"}) == []
    for name in ("dimension", "dims"):
        vector.pop(name, None)
    vector["dimension"] = 7
    assert differences(kept, mapping, {"knn": "true"}) == [
        "field _neural.image_embedding has dimension 7, the encoder clip gives 6"
    ]
    del mapping["properties"]["_neural"]["properties"]["image_embedding"]
    assert differences(kept, mapping, {"knn": "true"}) == ["field _neural.image_embedding is not in the mapping"]


def test_a_chosen_weight_of_pictures_stays() -> None:
    chosen = msgspec.structs.replace(PICTURED, fusion=FusionSettings(weights={"expansion": 1.0, "image": 3.0}))
    kept = read_profile(new_index(chosen, OpenSearchDialect((3, 6, 0)))["mappings"], index="x")
    assert kept is not None
    assert kept.fusion.weights == {"expansion": 1.0, "image": 3.0}


def test_pictures_need_a_cluster_that_searches_vectors() -> None:
    with pytest.raises(IndexUnsuitable, match=r"leave out --image-field shop\.photo"):
        new_index(PICTURED, OpenSearchDialect((2, 19, 1), "none"))


def test_our_object_of_an_older_enrichment_may_lack_vectors_of_pictures() -> None:
    mapping, settings = index(NESTED)
    del mapping["_meta"]
    wanted = msgspec.structs.replace(NESTED, image=PICTURED.image)
    assert in_place_obstacles(wanted, OpenSearchDialect((3, 6, 0)), mapping, settings) == []
