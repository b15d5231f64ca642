"""What is said of a hit: where plain BM25 had it, and what each leg and the cross-encoder made of it."""

import pytest

from bridge.demo.comparison import QUESTIONS, ExplainedHit
from bridge.evaluation.known_items import read_questions


@pytest.mark.parametrize(
    ("hit", "said"),
    [
        (ExplainedHit("a", 3, {"expansion": 2, "vector": 1}, 4.26), "BM25 3 · expansion 2 · vector 1 · score +4.3"),
        (ExplainedHit("a", None, {"vector": 7}, None), "BM25 – · vector 7"),
        (ExplainedHit("a", 1, {"lexical": 1}, None), "BM25 1"),
    ],
)
def test_contributions_name_every_stage_that_knew_the_document(hit: ExplainedHit, said: str) -> None:
    assert hit.contributions() == said


def test_shown_questions_are_not_the_measured_ones() -> None:
    assert not set(QUESTIONS) & {question.text for question in read_questions()}
