"""`neural-bridge copy` keeps what the old index and its alias said."""

from collections.abc import Iterator
from typing import Any

import pytest
from opensearchpy import OpenSearch

from tests.bridge.commands.products import Call, make_products, printed, refusal

SETTINGS: dict[str, Any] = {
    "index.query.default_field": ["title"],
    "index.highlight.max_analyzed_offset": 4321,
    "index.max_inner_result_window": 44,
    "index.max_terms_count": 555,
    "index.mapping.total_fields.limit": 5,
    "index.refresh_interval": "7s",
}


@pytest.fixture
def copy(opensearch: OpenSearch, fresh_index: str) -> Iterator[str]:
    """The name of an index to copy into; removed afterwards."""
    yield f"{fresh_index}-copy"
    opensearch.indices.delete(index=f"{fresh_index}-copy", params={"ignore_unavailable": "true"})


@pytest.mark.case("I42")
def test_an_alias_moves_with_its_filter_its_routing_and_its_write_flag(
    call: Call, opensearch: OpenSearch, products: str, copy: str
) -> None:
    alias = f"{products}-alias"
    properties = {"filter": {"term": {"shop.city": "Rome"}}, "routing": "r", "is_write_index": True}
    opensearch.indices.put_alias(index=products, name=alias, body=properties)
    [before] = opensearch.indices.get_alias(name=alias).values()
    done = call("copy", products, copy, "--alias", alias, "--text-field", "title")
    assert done.exit_code == 0, done.output
    assert opensearch.indices.get_alias(name=alias) == {copy: before}


@pytest.mark.case("I42")
def test_what_is_no_alias_of_the_index_is_refused_before_any_work(
    call: Call, opensearch: OpenSearch, products: str, copy: str
) -> None:
    refused = call("copy", products, copy, "--alias", "other", "--text-field", "title")
    assert f"other is no alias of {products}" in refusal(refused)
    assert not opensearch.indices.exists(index=copy)


@pytest.mark.case("I43")
def test_a_copy_keeps_every_setting_and_gets_the_pipelines_last(
    call: Call, opensearch: OpenSearch, fresh_index: str, copy: str
) -> None:
    opensearch.ingest.put_pipeline(
        id=f"{fresh_index}-counts", body={"processors": [{"script": {"source": "ctx.seen = (ctx.seen ?: 0) + 1"}}]}
    )
    pipelines = {"index.default_pipeline": f"{fresh_index}-counts"}
    make_products(opensearch, fresh_index, **SETTINGS, **pipelines)
    report = printed(call("copy", fresh_index, copy, "--text-field", "title", "--json"))
    assert (report["settled"], report["new_documents"]) == (True, 30)

    def settings_of(index: str) -> dict[str, Any]:
        [found] = opensearch.indices.get_settings(index=index, params={"flat_settings": "true"}).values()
        own = ("index.uuid", "index.creation_date", "index.provided_name", "index.version.created")
        return {name: value for name, value in found["settings"].items() if name not in own}

    old, new = settings_of(fresh_index), settings_of(copy)
    limit = "index.mapping.total_fields.limit"
    assert int(new.pop(limit)) > int(old.pop(limit))
    for settings in (new, old):
        settings.pop("index.knn.derived_source.enabled", None)  # Ours to set: see `bridge.cluster.dialects`.
    assert new == old
    assert opensearch.get(index=copy, id="d3")["_source"]["seen"] == 1
    opensearch.index(index=copy, id="new", body={"title": "new"})
    assert opensearch.get(index=copy, id="new")["_source"]["seen"] == 1
    again = call("copy", fresh_index, copy, "--text-field", "title", "--no-expansion")
    assert again.exit_code == 0, again.output
    assert settings_of(copy)["index.default_pipeline"] == f"{fresh_index}-counts"
    opensearch.indices.delete(index=fresh_index)
    opensearch.indices.delete(index=copy)
    opensearch.ingest.delete_pipeline(id=f"{fresh_index}-counts")
