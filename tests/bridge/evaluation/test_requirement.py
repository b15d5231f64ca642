"""Conditions for builds: what they mean, and what is said of one that means nothing."""

import pytest

from bridge.errors import UsageError
from bridge.evaluation.requirement import Requirement

FIGURES = {
    "bm25": {"ndcg@10": 0.4, "p95_ms": 10.0},
    "rerank": {"ndcg@10": 0.45, "p95_ms": 200.0},
    "hybrid": {"ndcg@10": 0.41, "p95_ms": 50.0},
}


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("ndcg@10>=bm25+0.01", True),
        ("ndcg@10 > bm25 + 0.01", False),
        ("rerank:ndcg@10>=bm25+0.05", True),
        ("rerank:ndcg@10>=bm25+0.051", False),
        ("nDCG@10>=0.41", True),
        ("ndcg@10<bm25", False),
        ("p95_ms<=60", True),
        ("rerank:p95_ms<=bm25+100", False),
        ("bm25:ndcg@10>=rerank-0.05", True),
    ],
)
def test_requirements(text: str, met: bool) -> None:
    assert Requirement.parse(text).is_met(FIGURES) is met


@pytest.mark.parametrize("text", ["", "ndcg@10", "ndcg@10>=", "ndcg@10==0.4", "ndcg@10>=bm25+much"])
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"for example 'ndcg@10>=bm25\+0.01'"):
        Requirement.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [("cascade:ndcg@10>=0", "cascade was not measured"), ("map>=0.1", "no figure map: there are ndcg@10, p95_ms")],
)
def test_what_was_not_measured_is_named(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Requirement.parse(text).is_met(FIGURES)
