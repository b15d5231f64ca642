import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from bridge.models.artifact import resolve
from bridge.search.context import choose, cut, n_tokens

PANTHERS = "The defence of the Panthers gave up only 308 points and ranked sixth in the league that year."
KETTLE = "Boils a litre of water in three minutes, and turns itself off when it is done."
PROSE = {
    "english": "Keep your feet dry in wet weather. Made of natural rubber, they weigh 1.2 kilograms.",
    "german": "Die Verteidigung gab nur 308 Punkte ab und belegte den sechsten Platz in der Liga.",
    "spanish": "La defensa de los Panthers cedió solo 308 puntos y se clasificó sexta en la liga.",
    "russian": "Защита уступила всего 308 очков, заняв шестое место в лиге.",
    "chinese": "黑豹队的防守只丢了三百零八分，在联赛中排名第六。",
    "code": "with open(path, encoding='utf-8') as file:\n    rows = [line.rstrip() for line in file]",
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """The built-in encoder's own, without its limit."""
    read = Tokenizer.from_file(str(resolve("embed-base").path / "tokenizer.json"))
    read.no_truncation()
    read.no_padding()
    return read


@pytest.mark.parametrize("name", PROSE)
def test_the_estimate_is_no_less_than_what_the_encoder_counts(tokenizer: Tokenizer, name: str) -> None:
    assert n_tokens(PROSE[name]) >= len(tokenizer.encode(PROSE[name], add_special_tokens=False).ids)


def test_no_question_of_the_demo_has_more_tokens_than_estimated(tokenizer: Tokenizer) -> None:
    questions = Path("bridge/evaluation/data/stdlib_questions.jsonl").read_text("utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in questions]
    counted = sum(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts)
    assert counted <= sum(map(n_tokens, texts)) < 2 * counted


def test_the_best_come_first_and_no_more_than_are_wanted() -> None:
    chosen = choose(["a red shoe", "a blue dress", "a file"], max_passages=2, max_tokens=1000)
    assert chosen.texts == {0: "a red shoe", 1: "a blue dress"}


@pytest.mark.parametrize(
    ("again", "is_left_out"),
    [
        (PANTHERS, True),
        (PANTHERS.upper().replace(" ", "\n"), True),
        (PANTHERS.replace("308", "309"), True),
        (f"{PANTHERS} {KETTLE}", False),
        (KETTLE, False),
    ],
    ids=["the same", "other case and spaces", "another number", "half of it is new", "another text"],
)
def test_a_near_duplicate_of_a_better_passage_is_left_out(again: str, is_left_out: bool) -> None:
    chosen = choose([PANTHERS, again], max_passages=5, max_tokens=1000)
    assert (len(chosen.texts), chosen.near_duplicates) == ((1, 1) if is_left_out else (2, 0))


def test_short_texts_are_alike_only_if_they_are_the_same() -> None:
    assert choose(["red", "RED", "rod"], max_passages=5, max_tokens=100).texts == {0: "red", 2: "rod"}


def test_what_does_not_fit_is_left_out_and_a_shorter_one_follows() -> None:
    chosen = choose(["one two", "three four five six", "seven"], max_passages=5, max_tokens=5)
    assert chosen.texts == {0: "one two", 2: "seven"}
    assert (chosen.tokens, chosen.beyond_budget) == (4, 1)


def test_the_best_passage_is_cut_at_a_word_if_it_alone_does_not_fit() -> None:
    assert choose(["red green blue"], max_passages=5, max_tokens=4).texts == {0: "red green"}


def test_a_text_without_spaces_is_cut_where_the_budget_ends() -> None:
    assert cut("黑豹队的防守", 3) == "黑豹队"


@given(st.lists(st.text(max_size=80), max_size=8), st.integers(1, 60), st.integers(1, 5))
def test_the_budget_is_kept_and_texts_are_beginnings(texts: list[str], max_tokens: int, max_passages: int) -> None:
    chosen = choose(texts, max_passages=max_passages, max_tokens=max_tokens)
    assert sum(map(n_tokens, chosen.texts.values())) == chosen.tokens <= max_tokens
    assert len(chosen.texts) <= max_passages
    assert all(texts[place].startswith(text) for place, text in chosen.texts.items())
