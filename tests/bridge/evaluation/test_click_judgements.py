"""Clicks as judgements: what a rank lets expect is no merit of the document that stands there."""

from collections.abc import Sequence

import pytest

from bridge.errors import UsageError
from bridge.evaluation.click_judgements import FEWEST_PAGES, ShownPage, judgements_of_clicks


def page(query: str, shown: Sequence[str], *clicked: str, first_rank: int = 1) -> ShownPage:
    return ShownPage(query, first_rank, shown, frozenset(clicked))


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
