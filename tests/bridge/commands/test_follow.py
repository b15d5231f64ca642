"""`neural-bridge follow` enriches what was written since, and says what it does without repeating itself."""

import pytest
from opensearchpy import OpenSearch

from bridge.commands.follow import _Lines
from bridge.errors import BridgeError
from ingest.books.ledger import Ledger
from ingest.follow.state import FollowStatus
from tests.bridge.commands.products import Call, printed


def test_one_pass_enriches_what_was_written_since(call: Call, opensearch: OpenSearch, products: str) -> None:
    assert call("backfill", products, "--text-field", "title").exit_code == 0
    opensearch.index(index=products, id="new", body={"title": "new"}, params={"refresh": "true"})
    ended = printed(call("follow", products, "--once", "--quiet", "--json"))
    assert [(last["index"], last["fields"], last["ledger"]["dead_lettered"]) for last in ended] == [
        (products, "all", 0)
    ]
    assert "embedding" in opensearch.get(index=products, id="new")["_source"]["_neural"]
    told = call("follow", products, "--once", "--quiet")
    assert (told.exit_code, f"{products}, generation 1, all fields:" in told.stdout) == (0, True)


def test_an_index_that_was_never_enriched_is_refused(call: Call, products: str) -> None:
    refused = call("follow", products, "--once")
    assert isinstance(refused.exception, BridgeError)
    assert "neural-bridge backfill" in str(refused.exception)


def test_a_line_is_written_at_once_when_waiting_begins_or_ends_and_seldom_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = _Lines()
    for written, waiting in [(1, None), (2, None), (2, "the cluster"), (3, "the cluster"), (3, None)]:
        lines(FollowStatus("shop", 1, "all", 0.5, Ledger(read=written, written=written), waiting))
    shown = capsys.readouterr().err.splitlines()
    assert [line.partition("; waits for ")[2] for line in shown] == ["", "the cluster", ""]
    assert all(line.startswith("follow shop, all fields: lag 0.5 s; ") for line in shown)
