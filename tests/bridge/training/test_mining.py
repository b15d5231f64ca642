from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from bridge.training.data import LabelledPair

pytest.importorskip("bm25s", reason="training needs the train extra")

from bridge.training.mining import (
    CandidateSet,
    bm25_index,
    bm25_scores,
    mine_candidates,
    without_overlaps,
)

WORDS = ("wing", "flow", "heat", "plate", "cylinder", "shock")


def count_words(texts: Sequence[str]) -> NDArray[np.float32]:
    """A bi-encoder whose cosine is the overlap of words."""
    counts = np.array([[text.lower().split().count(word) for word in WORDS] for text in texts], dtype=np.float32)
    unit: NDArray[np.float32] = counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)
    return unit


def pair(query: str, passage: str, *, relevant: bool = True, source: str = "own") -> LabelledPair:
    return LabelledPair(query, passage, "", relevant=relevant, source=source)


def mine(*pairs: LabelledPair) -> CandidateSet:
    return mine_candidates(pairs, count_words, depth=10)


def mined_texts(candidates: CandidateSet, query: str) -> set[str]:
    return {
        candidates.passages[row].text
        for found in candidates.lists
        if found.query == query
        for row in (*found.lexical, *found.dense)
    }


def test_no_relevant_passage_of_a_query_is_its_negative() -> None:
    candidates = mine(
        pair("wing flow", "wing flow"), pair("wing flow", "flow wing plate"), pair("heat", "heat wing shock shock")
    )
    assert mined_texts(candidates, "wing flow") == {"heat wing shock shock"}


def test_a_passage_as_close_as_the_judged_one_is_no_negative() -> None:
    candidates = mine(pair("wing flow", "wing flow flow"), pair("shock", "wing wing flow"), pair("plate", "plate wing"))
    assert "wing wing flow" not in mined_texts(candidates, "wing flow")
    assert "plate wing" in mined_texts(candidates, "wing flow")


def test_negatives_come_from_the_same_domain_only() -> None:
    candidates = mine(
        pair("wing", "wing"),
        pair("flow", "flow wing plate plate"),
        pair("heat", "heat wing shock shock", source="elsewhere"),
        pair("shock", "cylinder wing heat heat", source="elsewhere"),
    )
    assert mined_texts(candidates, "wing") == {"flow wing plate plate"}


def test_a_passage_in_files_of_two_domains_is_mined_in_the_first_ones() -> None:
    candidates = mine(
        pair("wing", "wing flow"),
        pair("heat", "heat flow plate"),
        pair("flow", "wing flow", source="other"),
        pair("shock", "shock wing flow", source="other"),
    )
    assert mined_texts(candidates, "flow") == mined_texts(candidates, "wing") == {"heat flow plate"}


def test_queries_that_a_passage_does_not_answer_become_its_rivals() -> None:
    candidates = mine(
        pair("wing", "wing"), pair("wing of what", "wing", relevant=False), pair("heat", "heat wing shock")
    )
    assert [found.rivals for found in candidates.lists if found.query == "wing"] == [["wing of what"]]
    assert "wing of what" not in {found.query for found in candidates.lists}


def test_cosines_belong_to_the_passages_of_the_list() -> None:
    candidates = mine(pair("wing", "wing"), pair("flow", "flow wing plate plate"), pair("heat", "heat wing"))
    for found in candidates.lists:
        rows = [found.positive, *found.lexical, *found.dense]
        expected = count_words([candidates.passages[row].text for row in rows]) @ count_words([found.query])[0]
        assert found.cosines == pytest.approx(expected.tolist(), abs=1e-4)


def test_sections_that_share_running_text_with_the_answer_are_dropped() -> None:
    story = " ".join(f"word{number}" for number in range(60))
    candidates = mine(
        pair("wing", f"wing {story}"),
        pair("flow", f"{story} wing plate heat"),
        pair("heat", "heat about a wing that shares no running text with that story at all"),
    )
    assert len(mined_texts(candidates, "wing")) == 2
    cleaned = without_overlaps(candidates)
    assert mined_texts(cleaned, "wing") == {"heat about a wing that shares no running text with that story at all"}
    assert all(len(found.cosines) == 1 + len(found.lexical) + len(found.dense) for found in cleaned.lists)


def test_every_text_has_a_score_of_bm25() -> None:
    index = bm25_index(["wing flow", "cat", "flow flow"])
    some, none = bm25_scores(index, "the flow"), bm25_scores(index, "of the")
    assert some.argsort().tolist() == [1, 0, 2]
    assert some[1] == 0
    assert none.tolist() == [0, 0, 0]
