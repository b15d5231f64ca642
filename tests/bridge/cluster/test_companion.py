"""Companions: their mapping, on paper and on a real node, and that nobody meets or loses them by accident."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from opensearchpy import OpenSearch

from bridge.cluster import companion
from bridge.cluster import index as indices
from bridge.cluster.connection import connect
from bridge.cluster.dialects import OpenSearchDialect
from bridge.cluster.index import IndexState
from bridge.errors import IndexUnsuitable
from bridge.node.node import EmbeddedNode
from bridge.profile import META_KEY, IndexProfile, ModelReference, PassageSettings, companion_of
from bridge.settings import ClusterSettings
from tests import servers

PROFILE = IndexProfile(["title", "body.en", "sku"], ModelReference("toy", "0" * 12), 4)
NESTED = msgspec.structs.replace(PROFILE, passages=PassageSettings("nested"))
PREFIX = "neural-bridge."

PROPERTIES: dict[str, Any] = {
    "title": {"type": "text", "analyzer": "shop", "copy_to": "all", "fields": {"raw": {"type": "keyword"}}},
    "body": {"properties": {"en": {"type": "text", "similarity": "flat", "fielddata": True}}},
    "sku": {"type": "keyword"},
    "all": {"type": "text"},
}
SETTINGS: dict[str, Any] = {
    "number_of_shards": "2",
    "number_of_replicas": "0",
    "uuid": "u1",
    "max_result_window": "5",
    "default_pipeline": "theirs",
    "blocks": {"write": "true"},
    "analysis": {"analyzer": {"shop": {"type": "custom", "tokenizer": "standard", "filter": ["lowercase"]}}},
    "similarity": {"flat": {"type": "boolean"}},
}


def test_predicted_queries_are_searched_as_the_first_text_field_is() -> None:
    title = {"type": "text", "analyzer": "shop", "search_analyzer": "synonyms"}
    body = companion.new_companion(state(properties={"title": title}), PROFILE, OpenSearchDialect((3, 6, 0)))
    assert body["mappings"]["properties"]["_neural"]["properties"]["predicted_queries"] == title
    assert body["mappings"]["_meta"]["neural_bridge"]["expanded_fields"] == []


def state(**mapping: Any) -> IndexState:
    return IndexState("products", {"properties": PROPERTIES, **mapping}, SETTINGS, None)


@pytest.mark.parametrize("profile", [pytest.param(PROFILE, id="single"), pytest.param(NESTED, id="nested")])
def test_texts_are_indexed_as_in_the_application_and_only_our_object_is_stored(profile: IndexProfile) -> None:
    body = companion.new_companion(state(), profile, OpenSearchDialect((3, 6, 0)))
    properties = body["mappings"]["properties"]
    assert properties["title"] == {"type": "text", "analyzer": "shop"}
    assert properties["body"]["properties"]["en"] == {"type": "text", "similarity": "flat"}
    assert properties["sku"] == {"type": "text"}
    assert properties.keys() == {"title", "body", "sku", "_neural"}
    assert {"stamp", "id", "predicted_queries"} < properties["_neural"]["properties"].keys()
    assert body["mappings"]["_source"] == {
        "excludes": ["title", "body.en", "sku", profile.embedding_field, "_neural.code"]
    }
    assert companion_of("products", PREFIX) == "neural-bridge.products"


def test_a_companion_takes_of_the_settings_what_decides_where_documents_lie_and_how_they_score() -> None:
    routed = state(_routing={"required": True}, _meta={"owner": "shop"}, dynamic="strict")
    body = companion.new_companion(routed, PROFILE, OpenSearchDialect((3, 6, 0)))
    assert body["settings"] == {
        "index.number_of_shards": "2",
        "index.number_of_replicas": "0",
        "index.analysis.analyzer.shop.type": "custom",
        "index.analysis.analyzer.shop.tokenizer": "standard",
        "index.analysis.analyzer.shop.filter": ["lowercase"],
        "index.similarity.flat.type": "boolean",
        "index.knn": True,
        "index.knn.derived_source.enabled": False,
        "index.hidden": True,
        "index.default_pipeline": "_none",
        "index.final_pipeline": "_none",
        "index.codec": "best_compression",
    }
    assert body["mappings"]["_routing"] == {"required": True}
    profile = msgspec.convert(body["mappings"]["_meta"][META_KEY], IndexProfile)
    assert (profile.beside, profile.vector_encoding, profile.expanded_fields) == ("products", "byte", ["title"])


@pytest.fixture
def products(opensearch: OpenSearch, fresh_index: str) -> Iterator[IndexState]:
    """An application's index on a real node, made without k-NN; its companion goes with it."""
    own = {name: value for name, value in SETTINGS.items() if name in ("analysis", "similarity", "number_of_shards")}
    opensearch.indices.create(index=fresh_index, body={"settings": own, "mappings": {"properties": PROPERTIES}})
    yield indices.look(opensearch, fresh_index)
    names = ",".join(companion_of(fresh_index, PREFIX, generation) for generation in (1, 2))
    opensearch.indices.delete(index=names, params={"ignore_unavailable": "true"})


def test_a_companion_comes_and_goes_without_a_trace(opensearch: OpenSearch, products: IndexState) -> None:
    before = opensearch.cat.indices(params={"h": "index", "s": "index"})
    assert companion.find(opensearch, products.name, PREFIX) is None
    companion.create(opensearch, products, NESTED, PREFIX)
    found = companion.find(opensearch, products.name, PREFIX)
    assert found is not None
    assert found.profile is not None
    assert found.profile.beside == products.name
    assert companion.is_of(found, products)
    assert not companion.is_of(found, IndexState(products.name, {}, {"uuid": "another"}, None))
    assert found.name not in opensearch.indices.get(index="*")
    assert indices.look(opensearch, products.name) == products
    assert companion.remove(opensearch, products.name, PREFIX) == 0
    assert companion.remove(opensearch, products.name, PREFIX) is None
    assert opensearch.cat.indices(params={"h": "index", "s": "index"}) == before


def test_the_profile_of_an_index_is_its_own_or_its_companions(opensearch: OpenSearch, products: IndexState) -> None:
    with pytest.raises(IndexUnsuitable, match=f"{products.name} is not enriched.*`neural-bridge backfill"):
        companion.enriched(opensearch, products.name, PREFIX)
    made = companion.create(opensearch, products, PROFILE, PREFIX)
    opensearch.indices.put_alias(index=products.name, name=f"{products.name}-alias")
    for name in (products.name, f"{products.name}-alias"):
        assert companion.enriched(opensearch, name, PREFIX) == made
    with pytest.raises(IndexUnsuitable, match=f"is the companion of {products.name}"):
        companion.enriched(opensearch, made.name, PREFIX)
    opensearch.indices.delete(index=products.name)
    opensearch.indices.create(index=products.name)
    with pytest.raises(IndexUnsuitable, match="made anew"):
        companion.enriched(opensearch, products.name, PREFIX)
    opensearch.indices.put_mapping(index=products.name, body={"_meta": {META_KEY: PROFILE.to_meta()}})
    assert companion.enriched(opensearch, products.name, PREFIX).name == products.name


@pytest.mark.case("I51")
def test_a_companion_that_cannot_be_counted_is_removed(node: EmbeddedNode, products: IndexState) -> None:
    with connect(ClusterSettings(url=node.url)) as client:
        made = companion.create(client, products, PROFILE, PREFIX)
        client.indices.close(index=made.name)
        assert companion.remove(client, products.name, PREFIX) == 0
        assert companion.find(client, products.name, PREFIX) is None


def test_one_of_two_companions_serves_and_one_change_switches_them(
    opensearch: OpenSearch, products: IndexState
) -> None:
    def serving() -> list[int | None]:
        return [state.profile.generation if state and state.profile else None for state in both()]

    def both() -> tuple[IndexState | None, IndexState | None]:
        return companion.find_both(opensearch, products.name, PREFIX)

    def at(generation: int) -> IndexProfile:
        return msgspec.structs.replace(PROFILE, generation=generation)

    for generation in (1, 2):
        made = companion.create(opensearch, products, at(generation), PREFIX)
        assert made.name == companion_of(products.name, PREFIX, generation)
        found = companion.of(opensearch, products, at(generation), PREFIX)
        assert found is not None
        assert found.name == made.name
        with pytest.raises(IndexUnsuitable, match=f"is the companion of {products.name}"):
            indices.refuse_companion(made)
    assert serving() == [1, 2]
    for generation, other in ((2, 1), (2, 1), (1, 2), (1, 2), (2, 1)):
        companion.serve(opensearch, products.name, PREFIX, generation)
        assert serving() == [generation, other]
    with pytest.raises(IndexUnsuitable, match=r"generation 2 of .* serves searches"):
        companion.remove(opensearch, products.name, PREFIX, generation=2)
    assert companion.remove(opensearch, products.name, PREFIX, generation=1) == 0
    assert companion.remove(opensearch, products.name, PREFIX, generation=1) is None
    assert serving() == [2, None]
    companion.create(opensearch, products, at(3), PREFIX)
    assert serving() == [2, 3]
    companion.serve(opensearch, products.name, PREFIX, 3)
    assert serving() == [3, 2]
    companion.remove(opensearch, products.name, PREFIX)
    assert serving() == [None, None]
    with pytest.raises(IndexUnsuitable, match="no companion of generation 2"):
        companion.serve(opensearch, products.name, PREFIX, 2)


def test_another_index_of_a_companions_name_is_neither_used_nor_deleted(
    opensearch: OpenSearch, products: IndexState
) -> None:
    taken = servers.unused_index_name()
    opensearch.indices.create(index=taken)
    try:
        for use in (companion.find, companion.remove):
            with pytest.raises(IndexUnsuitable, match=r"no companion of .*companion\.prefix"):
                use(opensearch, taken[len("test-") :], "test-")
    finally:
        opensearch.indices.delete(index=taken)


def test_a_companion_cannot_be_made_twice(opensearch: OpenSearch, products: IndexState) -> None:
    companion.create(opensearch, products, PROFILE, PREFIX)
    with pytest.raises(IndexUnsuitable, match="exists already"):
        companion.create(opensearch, products, PROFILE, PREFIX)


@pytest.mark.case("I43")
# The node says that the template counts more than its own one for all indices.
@pytest.mark.filterwarnings("ignore:index template:opensearchpy.exceptions.OpenSearchWarning")
def test_no_template_of_the_cluster_puts_a_companion_behind_an_alias_or_a_pipeline(
    opensearch: OpenSearch, products: IndexState
) -> None:
    made_of = {"aliases": {f"{products.name}-all": {}}, "settings": {"default_pipeline": "x", "final_pipeline": "x"}}
    template = {"index_patterns": [f"*{products.name}"], "priority": 500, "template": made_of}
    opensearch.indices.put_index_template(name=products.name, body=template)
    try:
        name = companion.create(opensearch, products, PROFILE, PREFIX).name
    finally:
        opensearch.indices.delete_index_template(name=products.name)
    assert opensearch.indices.get(index=name)[name]["aliases"] == {}
    assert opensearch.index(index=name, id="d1", body={"title": "shoes"})["result"] == "created"


def test_words_of_the_text_are_found_though_they_are_not_stored(opensearch: OpenSearch, products: IndexState) -> None:
    companion.create(opensearch, products, PROFILE, PREFIX)
    name = companion_of(products.name, PREFIX)
    vector = [127, 0, 0, 0]
    document = {"title": "Red SHOES", "body.en": "to run", "sku": "a 1", "_neural": {"embedding": vector, "stamp": "s"}}
    opensearch.index(index=name, id="d1", body=document, params={"refresh": "true"})
    found = opensearch.search(index=name, body={"query": {"match": {"title": "shoes"}}})["hits"]["hits"]
    assert [(hit["_id"], hit["_source"]) for hit in found] == [("d1", {"_neural": {"stamp": "s"}})]
    nearest = {"knn": {"_neural.embedding": {"vector": vector, "k": 1}}}
    assert opensearch.search(index=name, body={"query": nearest})["hits"]["total"]["value"] == 1
