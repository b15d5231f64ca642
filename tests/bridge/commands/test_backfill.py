"""`neural-bridge backfill` reports what it did, and counts as enriched what has vectors or queries."""

import pytest
from opensearchpy import OpenSearch

from tests.bridge.commands.products import Call, printed, refusal


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
