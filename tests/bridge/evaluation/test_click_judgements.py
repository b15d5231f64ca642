"""Clicks as judgements: what a rank lets expect is no merit of the document that stands there."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from bridge.errors import UsageError
from bridge.evaluation.click_judgements import (
    FEWEST_PAGES,
    ShownPage,
    judgements_of_clicks,
    pages_of_ubi,
    read_click_log,
)
from bridge.proxy.experiments.event_log import Click, EventLog, Impression
from bridge.proxy.experiments.event_report import read_events
from bridge.proxy.experiments.ubi import Attributes, Behaviour, Object, Position, Query, Record, to_ubi


def page(query: str, shown: Sequence[str], *clicked: str, first_rank: int = 1) -> ShownPage:
    return ShownPage(query, {doc_id: rank for rank, doc_id in enumerate(shown, start=first_rank)}, set(clicked))


def test_a_document_is_relevant_where_it_was_clicked_as_often_as_its_ranks_are() -> None:
    """The first rank is clicked by habit in half of all pages; `b` stands second, and is chosen every time."""
    habit = [page("habit", ["x", "y"], "x") for _ in range(4)]
    search = [page("shoe", ["a", "b"], *(("a", "b") if n == 0 else ("b",))) for n in range(4)]
    judged = judgements_of_clicks("log", [*habit, *search])
    assert judged.qrels["shoe"] == {"a": 0, "b": 1}
    assert judged.qrels["habit"] == {"x": 1, "y": 0}
    assert judged.queries == {"shoe": "shoe", "habit": "habit"}


def test_a_document_that_keeps_up_with_its_rank_exactly_is_relevant() -> None:
    pages = [page("shoe", ["a"], *clicked) for clicked in (("a",), (), ())]
    assert judgements_of_clicks("log", pages).qrels == {"shoe": {"a": 1}}


def test_further_pages_count_at_their_own_ranks_and_ask_nothing_anew() -> None:
    first = [page("shoe", ["a"], "a") for _ in range(FEWEST_PAGES)]
    second = [page("shoe", ["b"], "b", first_rank=2), page("shoe", ["c"], first_rank=2)]
    rare = [page("hat", ["d"], "d"), *(page("hat", ["e"], first_rank=2) for _ in range(FEWEST_PAGES))]
    judged = judgements_of_clicks("log", [*first, *second, *rare])
    assert judged.qrels == {"shoe": {"a": 1, "b": 1, "c": 0}}


@pytest.mark.parametrize(
    "pages",
    [
        [],
        [page("shoe", ["a"], "a")],
        [page("shoe", ["a"]) for _ in range(FEWEST_PAGES)],
    ],
    ids=["no pages", "asked too rarely", "never clicked"],
)
def test_a_log_that_judges_nothing_is_refused(pages: list[ShownPage]) -> None:
    with pytest.raises(UsageError, match="collect more clicks"):
        judgements_of_clicks("log", pages)


def seen(action: str, query_id: str, doc_id: str, ordinal: int) -> Behaviour:
    return Behaviour(action, query_id, event_attributes=Attributes(Object(doc_id), Position(ordinal)))


def test_pages_of_ubi_show_what_readers_saw_or_the_querys_hits() -> None:
    records: list[Record] = [
        Query("seen", user_query="tent", query_response_hit_ids=["a", "b", "c"]),
        seen("impression", "seen", "a", 11),
        seen("impression", "seen", "b", 12),
        seen("click", "seen", "b", 12),
        Query("hits", user_query="boot", query_response_hit_ids=[7, "8"]),
        seen("CLICK", "hits", "8", 2),
        Query("wordless", query_response_hit_ids=["a"]),
        Query("nothing shown", user_query="tent"),
    ]
    assert pages_of_ubi(records) == [
        ShownPage("tent", {"a": 11, "b": 12}, {"b"}),
        ShownPage("boot", {"7": 1, "8": 2}, {"8"}),
    ]


def test_ranks_of_ubi_that_begin_with_0_begin_with_1() -> None:
    records: list[Record] = [
        seen("impression", "q", "a", 0),
        seen("impression", "q", "b", 1),
        Query("q", user_query="tent"),
    ]
    assert pages_of_ubi(records) == [ShownPage("tent", {"a": 1, "b": 2}, set())]


def test_a_log_and_its_ubi_judge_alike(tmp_path: Path) -> None:
    log, exported = tmp_path / "events.jsonl", tmp_path / "events.ndjson"
    shown = [("shop", "a"), ("shop", "b"), ("shop", "c")]
    for n in range(FEWEST_PAGES):
        name = f"{n} with all of a page in its name"
        EventLog(log).append(Impression(1.0, name, "shop", "hybrid", shown[:1], shown[1:], 0, 0, 9, "tent", 4, shown))
        EventLog(log).append(
            Impression(1.0, f"first {name}", "shop", "hybrid", [], shown, 0, 0, 9, "tent", 1, shown[::-1])
        )
        EventLog(log).append(Click(2.0, name, "b"))
    exported.write_bytes(b"".join(to_ubi(read_events(log))))
    assert read_click_log(exported).qrels == read_click_log(log).qrels == {"tent": {"c": 0, "b": 1, "a": 0}}
