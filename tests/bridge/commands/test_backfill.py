"""`neural-bridge backfill` reports what it did, and counts as enriched what has vectors or queries."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from opensearchpy import OpenSearch

from bridge.errors import ClusterBlocked
from tests.bridge.commands.products import Call, make_products, printed, refusal

SETTINGS: dict[str, Any] = {
    "index.query.default_field": ["title"],
    "index.highlight.max_analyzed_offset": 4321,
    "index.max_inner_result_window": 44,
    "index.max_terms_count": 555,
    "index.mapping.total_fields.limit": 5,
    "index.refresh_interval": "7s",
}


def test_a_second_backfill_needs_no_text_fields_and_finds_nothing_to_do(call: Call, products: str) -> None:
    first = printed(call("backfill", products, "--text-field", "title", "--json"))
    assert (first["ledger"]["written"], first["read_again"], first["left"]) == (30, 0, 0)
    second = call("backfill", products)
    assert (second.exit_code, "nothing to do" in second.stdout) == (0, True)


def test_text_fields_have_to_be_named_once(call: Call, products: str) -> None:
    refused = call("backfill", products)
    assert "name them with --text-field" in refusal(refused)


@pytest.mark.case("M4")
def test_documents_without_text_are_not_counted_as_enriched(call: Call, opensearch: OpenSearch, products: str) -> None:
    opensearch.index(index=products, id="empty", body={"title": ""}, params={"refresh": "true"})
    report = printed(call("backfill", products, "--text-field", "title", "--json"))
    assert (report["ledger"]["written"], report["without_text"]) == (31, 1)
    opensearch.indices.refresh(index=products)
    shown = printed(call("index", "show", products, "--json"))
    assert (shown["documents"], shown["enriched"]) == (31, 30)


@pytest.mark.case("I44")
@pytest.mark.parametrize("block", ["closed", "read", "metadata"])
def test_an_index_that_is_closed_or_blocked_is_said_to_be(
    call: Call, opensearch: OpenSearch, products: str, block: str
) -> None:
    if block == "closed":
        opensearch.indices.close(index=products)
    else:
        opensearch.indices.put_settings(index=products, body={f"index.blocks.{block}": True})
    refused = [
        call("plan", products, "--text-field", "title"),
        call("backfill", products, "--text-field", "title"),
        call("index", "show", products),
    ]
    if block != "closed":
        opensearch.indices.put_settings(index=products, body={f"index.blocks.{block}": False})

    words = "the index is closed" if block == "closed" else f"index {block} (api)"
    for result in refused:
        assert isinstance(result.exception, ClusterBlocked), result.output
        assert words in str(result.exception)


def test_beside_reads_the_index_only_and_undo_leaves_nothing(
    call: Call, opensearch: OpenSearch, fresh_index: str
) -> None:
    make_products(opensearch, fresh_index, **{"index.knn": False})
    before = opensearch.indices.get(index=fresh_index)
    companion = f"neural-bridge.{fresh_index}"
    refused = refusal(call("backfill", fresh_index, "--in-place", "--text-field", "title"))
    assert f"`neural-bridge backfill {fresh_index} --beside`" in refused
    planned = printed(call("plan", fresh_index, "--beside", "--text-field", "title", "--json"))
    assert (planned["way"], planned["companion"], planned["stale"]) == ("beside", companion, 30)
    assert not opensearch.indices.exists(index=companion)
    first = printed(call(*shlex.split(planned["command"])[1:], "--json"))
    assert (first["ledger"]["written"], first["companion"], first["removed"]) == (30, companion, 0)
    again = printed(call("plan", fresh_index, "--json"))
    assert (again["way"], again["stale"], again["mapping"]) == ("beside", 0, {})
    opensearch.delete(index=fresh_index, id="d1", params={"refresh": "true"})
    second = call("backfill", fresh_index)
    assert f"beside, in {companion}, where 1 that the application deleted are removed" in second.stdout
    shown = printed(call("index", "show", fresh_index, "--json"))
    assert (shown["documents"], shown["enriched"], shown["companion"]) == (29, 29, companion)
    assert shown["profile"]["beside"] == fresh_index
    for command in (["plan"], ["backfill"], ["undo", "--yes"]):
        assert f"the companion of {fresh_index}: name" in refusal(call(*command, companion))
    assert "leave out --in-place" in refusal(call("backfill", fresh_index, "--in-place"))
    undone = printed(call("undo", fresh_index, "--yes", "--json"))
    assert undone == {"documents": 29, "companion": companion, "mapped_fields": []}
    assert not opensearch.indices.exists(index=companion)
    assert opensearch.indices.get(index=fresh_index) == before


@pytest.mark.case("I42")
@pytest.mark.case("I43")
def test_aliases_settings_and_pipelines_of_an_application_stay_as_they_are(
    call: Call, opensearch: OpenSearch, fresh_index: str, companion: str
) -> None:
    counts = f"{fresh_index}-counts"
    opensearch.ingest.put_pipeline(
        id=counts, body={"processors": [{"script": {"source": "ctx.seen = (ctx.seen ?: 0) + 1"}}]}
    )
    make_products(opensearch, fresh_index, **SETTINGS, **{"index.default_pipeline": counts})
    alias = {"filter": {"term": {"shop.city": "Rome"}}, "routing": "r", "is_write_index": True}
    opensearch.indices.put_alias(index=fresh_index, name=f"{fresh_index}-alias", body=alias)
    before, document = opensearch.indices.get(index=fresh_index), opensearch.get(index=fresh_index, id="d3")
    report = printed(call("backfill", f"{fresh_index}-alias", "--text-field", "title", "--json"))
    assert (report["ledger"]["written"], report["companion"]) == (30, companion)
    assert any("pipeline" in reason for reason in report["reasons"])
    assert call("undo", fresh_index, "--yes").exit_code == 0
    assert opensearch.indices.get(index=fresh_index) == before
    assert opensearch.get(index=fresh_index, id="d3") == document
    assert document["_source"]["seen"] == 1
    opensearch.indices.delete(index=fresh_index)
    opensearch.ingest.delete_pipeline(id=counts)


@pytest.mark.case("I41")
def test_documents_with_external_versions_go_beside_and_an_option_decides_what_they_are(
    call: Call, opensearch: OpenSearch, fresh_index: str, companion: str
) -> None:
    make_products(opensearch, fresh_index)
    external = {"version": 5_000, "version_type": "external", "refresh": "true"}
    opensearch.index(index=fresh_index, id="row", body={"title": "a row"}, params=external)
    for command in ("plan", "backfill"):
        refused = refusal(call(command, fresh_index, "--in-place", "--text-field", "title"))
        assert "external versions (document row has version 5,000" in refused
    known = call("plan", fresh_index, "--external-versions", "no", "--text-field", "title", "--json")
    assert printed(known)["way"] == "in_place"
    planned = printed(call("plan", fresh_index, "--text-field", "title", "--json"))
    assert "external versions" in planned["reasons"][0]
    report = printed(call("backfill", fresh_index, "--text-field", "title", "--json"))
    assert (report["ledger"]["written"], report["companion"]) == (31, companion)
    opensearch.index(index=fresh_index, id="row", body={"title": "a row"}, params={**external, "version": 5_001})


@pytest.mark.case("I41")
def test_external_versions_that_no_sample_shows_are_announced_by_an_option(
    call: Call, opensearch: OpenSearch, products: str, companion: str
) -> None:
    planned = printed(call("plan", products, "--text-field", "title", "--json"))
    assert planned["way"] == "in_place"
    announced = ("--external-versions", "yes", "--text-field", "title", "--json")
    assert printed(call("plan", products, *announced))["way"] == "beside"
    report = printed(call("backfill", products, *announced))
    assert report["companion"] == companion
    assert "_neural" not in opensearch.get(index=products, id="d1")["_source"]


# The embedded node has a template of its own, see docs/decisions/0002-embedded-node.md.
@pytest.mark.filterwarnings("ignore:index template .* matching patterns from existing older templates")
def test_each_index_of_a_data_stream_gets_a_companion(
    call: Call, opensearch: OpenSearch, fresh_index: str, tmp_path: Path
) -> None:
    mapping = {"properties": {"title": {"type": "text"}}}
    template = {"index_patterns": [fresh_index], "data_stream": {}, "template": {"mappings": mapping}}
    opensearch.indices.put_index_template(name=fresh_index, body=template)

    def write(title: str) -> None:
        event = {"@timestamp": "2026-01-01T00:00:00Z", "title": title}
        opensearch.index(index=fresh_index, body=event, params={"op_type": "create", "refresh": "true"})

    write("cat dog")
    opensearch.indices.rollover(alias=fresh_index)
    write("fish")
    first, second = sorted(before := opensearch.indices.get(index=fresh_index))
    companions = [f"neural-bridge.{first}", f"neural-bridge.{second}"]
    try:
        planned = printed(call("plan", fresh_index, "--text-field", "title", "--json"))["indices"]
        assert [(each["index"], each["companion"], each["stale"]) for each in planned] == [
            (first, companions[0], 1),
            (second, companions[1], 1),
        ]
        folder = ("--state-folder", str(tmp_path / "books"))
        done = printed(call("backfill", fresh_index, "--text-field", "title", *folder, "--json"))["indices"]
        assert [(each["companion"], each["ledger"]["written"]) for each in done] == [(each, 1) for each in companions]
        write("cat fish")
        again = call("backfill", fresh_index)
        assert again.exit_code == 0
        assert all(f"{each}: " in again.stdout for each in companions)
        assert [opensearch.count(index=each)["count"] for each in companions] == [1, 2]
        undone = printed(call("undo", fresh_index, "--yes", "--json"))["indices"]
        assert [(each["companion"], each["documents"]) for each in undone] == [(companions[0], 1), (companions[1], 2)]
        assert not opensearch.indices.exists(index=",".join(companions))
        assert opensearch.indices.get(index=fresh_index) == before
    finally:
        opensearch.indices.delete(index=",".join(companions), params={"ignore_unavailable": "true"})
        opensearch.indices.delete_data_stream(name=fresh_index)
        opensearch.indices.delete_index_template(name=fresh_index)


@pytest.mark.parametrize("way", [(), ("--in-place",), ("--beside",)])
def test_an_index_that_stores_no_texts_is_refused_whichever_way(
    call: Call, opensearch: OpenSearch, fresh_index: str, companion: str, way: tuple[str, ...]
) -> None:
    mapping = {"_source": {"enabled": False}, "properties": {"title": {"type": "text"}}}
    opensearch.indices.create(index=fresh_index, body={"settings": {"index.knn": True}, "mappings": mapping})
    for command in ("plan", "backfill"):
        assert "_source is disabled" in refusal(call(command, fresh_index, *way, "--text-field", "title"))
    assert not opensearch.indices.exists(index=companion)


def test_an_index_that_is_enriched_in_place_is_not_enriched_beside(
    call: Call, opensearch: OpenSearch, products: str
) -> None:
    assert call("backfill", products, "--text-field", "title").exit_code == 0
    for command in ("plan", "backfill"):
        refused = refusal(call(command, products, "--beside", "--text-field", "title"))
        assert f"index {products} is enriched in place" in refused
    assert not opensearch.indices.exists(index=f"neural-bridge.{products}")
