"""`neural-bridge plan` prints a command that does what it says, or names what stands against it."""

import shlex

import pytest
from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from tests.bridge.commands.products import Call, make_products, printed, refusal


@pytest.mark.case("M5")
def test_the_printed_command_runs_as_printed(call: Call, products: str) -> None:
    planned = printed(call("plan", products, "--text-field", "title", "--no-expansion", "--json"))
    words = shlex.split(planned["command"])
    assert words == ["neural-bridge", "backfill", products, "--text-field", "title", "--no-expansion"]
    words_for_people = call("plan", products, "--text-field", "title", "--no-expansion").stdout
    assert f"in place: {planned['command']}" in words_for_people
    assert f"{planned['store_bytes'] / 30:,.0f} bytes a document before" in words_for_people
    done = printed(call(*words[1:], "--json"))
    assert done["ledger"]["written"] == 30


@pytest.mark.case("M5")
@pytest.mark.case("I45")
def test_a_plan_for_other_fields_than_the_profile_names_undo(call: Call, products: str) -> None:
    assert call("backfill", products, "--text-field", "title").exit_code == 0
    planned = printed(call("plan", products, "--text-field", "shop.city", "--json"))
    assert (planned["way"], planned["command"]) == ("undo", f"neural-bridge undo {products}")
    refused = call("backfill", products, "--text-field", "shop.city")
    assert f"neural-bridge undo {products}" in refusal(refused)


@pytest.mark.case("M4")
@pytest.mark.parametrize("command", ["plan", "backfill"])
def test_a_misspelt_text_field_is_refused_with_the_nearest_name_before_any_work(
    call: Call, opensearch: OpenSearch, products: str, command: str
) -> None:
    before = indices.look(opensearch, products)
    refused = call(command, products, "--text-field", "titel")
    assert f"index {products} has no field titel: did you mean title?" in refusal(refused)
    assert indices.look(opensearch, products) == before
    assert not opensearch.indices.exists(index=f"neural-bridge.{products}")


@pytest.mark.case("I45")
def test_plan_and_backfill_in_place_name_the_same_obstacles_and_nothing_is_changed(
    call: Call, opensearch: OpenSearch, fresh_index: str
) -> None:
    make_products(opensearch, fresh_index, **{"index.mapping.total_fields.limit": 5})
    before = indices.look(opensearch, fresh_index)
    refusals = [
        refusal(call(command, fresh_index, "--in-place", "--text-field", "title")) for command in ("plan", "backfill")
    ]
    assert "total_fields.limit allows 5: raise it" in refusals[0]
    assert refusals[0] == refusals[1]
    assert indices.look(opensearch, fresh_index) == before
    opensearch.indices.put_settings(index=fresh_index, body={"index.mapping.total_fields.limit": 8})
    done = printed(call("backfill", fresh_index, "--in-place", "--text-field", "title", "--json"))
    assert done["ledger"]["written"] == 30


@pytest.mark.case("I45")
def test_plan_and_backfill_choose_beside_for_the_same_reasons(
    call: Call, opensearch: OpenSearch, fresh_index: str, companion: str
) -> None:
    make_products(opensearch, fresh_index, **{"index.mapping.total_fields.limit": 5})
    before = opensearch.indices.get(index=fresh_index)
    planned = printed(call("plan", fresh_index, "--text-field", "title", "--json"))
    assert (planned["way"], planned["companion"]) == ("beside", companion)
    assert "total_fields.limit allows 5: raise it" in planned["reasons"][0]
    done = call(*shlex.split(planned["command"])[1:], "--json")
    assert f"{fresh_index}: enriched beside, in {companion}, because the mapping would have" in done.stderr
    assert "(--in-place decides otherwise)" in done.stderr
    report = printed(done)
    assert (report["ledger"]["written"], report["companion"]) == (30, companion)
    assert report["reasons"] == planned["reasons"]
    assert opensearch.indices.get(index=fresh_index) == before


@pytest.mark.case("I45")
def test_an_index_with_a_narrow_result_window_is_enriched(call: Call, opensearch: OpenSearch, fresh_index: str) -> None:
    make_products(opensearch, fresh_index, **{"index.max_result_window": 7})
    planned = printed(call("plan", fresh_index, "--text-field", "title", "--json"))
    assert (planned["way"], planned["sampled"], planned["reasons"]) == ("in_place", 7, ["nothing speaks against it"])
    assert printed(call("backfill", fresh_index, "--text-field", "title", "--json"))["ledger"]["written"] == 30
