import pytest

from bridge.training.windows import best_window, rarity

FILLER = " ".join(f"filler{number}" for number in range(40))


def test_a_short_passage_comes_back_whole() -> None:
    passage = "wing  pressure\nflow"
    assert best_window("wing", passage, 3, {}) == passage


@pytest.mark.parametrize(
    "passage",
    [f"{FILLER} the answer is here", f"the answer is here {FILLER}", f"{FILLER} the answer is here {FILLER}"],
    ids=["at the end", "at the start", "in the middle"],
)
def test_the_window_holds_the_words_of_the_query_wherever_they_stand(passage: str) -> None:
    window = best_window("Answer?", passage, 8, rarity([passage]))
    assert "answer" in window.split()
    assert len(window.split()) == 8
    assert window in passage


def test_one_rare_word_outweighs_two_frequent_ones() -> None:
    weights = rarity(["of the", "of the", "of the", "of the", "of the boundary"])
    passage = f"of the {FILLER} boundary"
    assert "boundary" in best_window("of the boundary", passage, 8, weights)


def test_rarer_words_weigh_more() -> None:
    weights = rarity(["Wing flow", "flow", "flow flow"])
    assert weights["wing"] > weights["flow"] > 0
