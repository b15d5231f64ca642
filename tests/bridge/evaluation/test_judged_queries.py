"""Judgements: which queries they leave, and which of those can measure an index."""

import pytest

from bridge.errors import UsageError
from bridge.evaluation.judged_queries import JudgedQueries

QUERIES = {"q1": "red shoe", "q2": "blue hat", "q3": "green coat"}
QRELS = {"q1": {"sku-1": 1, "sku-2": 0}, "q2": {"sku-3": 2}, "q3": {"sku-2": 0, "sku-4": 1}}
JUDGED = JudgedQueries("judged.csv", QUERIES, QRELS)


def test_queries_without_judgements_and_judgements_without_queries_are_left_out() -> None:
    joined = JudgedQueries.joined("two files", QUERIES, {"q2": {"d": 1}, "q9": {"d": 1}})
    assert (joined.queries, joined.qrels) == ({"q2": "blue hat"}, {"q2": {"d": 1}})
    assert joined.remarks == ["1 judged queries have no text and are left out, first q9"]
    with pytest.raises(UsageError, match="none of its 3 queries is among the 1 that are judged"):
        JudgedQueries.joined("two files", QUERIES, {"q9": {"d": 1}})


@pytest.mark.case("M1")
@pytest.mark.case("M3")
@pytest.mark.parametrize("present", [frozenset[str](), frozenset({"17", "18"})])
def test_judgements_of_other_documents_are_refused(present: frozenset[str]) -> None:
    with pytest.raises(UsageError, match=r"0 of 4 judged documents are in products: are these its _id\?.*'sku-1'"):
        JUDGED.of_index("products", present)


@pytest.mark.case("M1")
def test_judgements_without_a_relevant_document_in_the_index_are_refused() -> None:
    with pytest.raises(UsageError, match="none of 3 judged queries has a relevant document in products"):
        JUDGED.of_index("products", {"sku-2"})


def test_queries_without_a_relevant_document_in_the_index_are_left_out_and_counted() -> None:
    usable = JUDGED.of_index("products", {"sku-1", "sku-2", "sku-4"})
    assert list(usable.queries) == ["q1", "q3"]
    assert usable.qrels == {"q1": QRELS["q1"], "q3": QRELS["q3"]}
    assert usable.remarks == (
        "3 of 4 judged documents are in products",
        "1 queries have no relevant document in products and are left out",
    )
    assert JUDGED.of_index("products", {"sku-1", "sku-2", "sku-3", "sku-4"}) == JUDGED


@pytest.mark.parametrize(
    ("n_queries", "chosen"), [(None, ["q1", "q2", "q3"]), (9, ["q1", "q2", "q3"]), (2, ["q1", "q2"])]
)
def test_queries_are_chosen_at_even_distances(n_queries: int | None, chosen: list[str]) -> None:
    spread = JUDGED.spread(n_queries)
    assert list(spread.queries) == list(spread.qrels) == chosen


def test_a_measurement_names_its_judgements() -> None:
    record = JUDGED.measurement("nDCG@10")
    assert (record.judgements, record.queries, record.measure) == ("judged.csv", 3, "nDCG@10")
    assert record.measured_at.endswith("Z")
