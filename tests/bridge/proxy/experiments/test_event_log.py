"""Events are logged without texts, and rankings are compared by their first pages."""

from pathlib import Path
from typing import Any

import pytest

from bridge.proxy.experiments.event_log import Impression, overlap, rank_biased_overlap
from bridge.proxy.experiments.event_report import read_events
from tests.bridge.proxy.conftest import MakeStack, Stack
from tests.bridge.proxy.scripted_index import QUERY, ScriptedIndex


async def search(stack: Stack, **more: Any) -> tuple[dict[str, Any], dict[str, str]]:
    async with stack.client.post(f"{stack.proxy.url}/docs/_search", json=QUERY | more) as answer:
        return await answer.json(), dict(answer.headers)


async def test_words_of_queries_are_logged_where_that_is_allowed(make_stack: MakeStack, tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    stack = await make_stack(ScriptedIndex(), mode="interleave", event_log=log, event_log_queries=True)

    answer, _ = await search(stack, size=2, **{"from": 1})

    [page] = read_events(log)
    assert isinstance(page, Impression)
    assert (page.query, page.first_rank) == (QUERY["query"]["match"]["title"], 2)
    assert [doc_id for _, doc_id in page.shown] == [hit["_id"] for hit in answer["hits"]["hits"]]


A, B, C, D = (("docs", name) for name in "abcd")


def test_overlap_counts_shared_documents() -> None:
    assert overlap([A, B], [B, A]) == 1.0
    assert overlap([A, B], [B, C]) == 0.5
    assert overlap([A], [A, B, C, D]) == 0.25


def test_rank_biased_overlap_weighs_the_first_ranks_most() -> None:
    assert rank_biased_overlap([A, B, C], [A, B, C]) == pytest.approx(1.0)
    assert rank_biased_overlap([A, B], [C, D]) == 0.0
    assert rank_biased_overlap([A, B, C], [A, C, B]) > rank_biased_overlap([A, B, C], [B, A, C]) > 0
    # At depth 1 they share nothing, at depth 2 both: 0.9 of 1 + 0.9.
    assert rank_biased_overlap([A, B], [B, A]) == pytest.approx(0.9 / 1.9)
