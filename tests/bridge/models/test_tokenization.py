"""Texts to token ids."""

import time

import pytest
from tokenizers import Tokenizer

from bridge.models.tokenization import TextTokenizer, padded
from tests.toys import WORDS, toy_tokenizer

LONG = " ".join(WORDS)


@pytest.fixture
def tokenizer() -> TextTokenizer:
    return TextTokenizer(toy_tokenizer(), max_tokens=16)


def test_a_pair_is_what_the_tokenizer_itself_makes_of_it(tokenizer: TextTokenizer) -> None:
    expected = toy_tokenizer().encode("cat dog", "the red fish")
    pair = tokenizer.pairs("cat dog", ["the red fish"])[0]
    assert pair["input_ids"].tolist() == [expected.ids]
    assert pair["token_type_ids"].tolist() == [expected.type_ids]
    assert pair["attention_mask"].tolist() == [expected.attention_mask]


def test_a_prompt_stands_around_query_and_passage_and_is_never_cut() -> None:
    prompted = TextTokenizer(toy_tokenizer(), max_tokens=12, prompt=["file", "path", "open close"])
    whole = toy_tokenizer().encode("file cat dog path the red fish open close")
    assert prompted.pairs("cat dog", ["the red fish"])[0]["input_ids"].tolist() == [whole.ids]
    assert prompted.passage_room("cat dog") == 12 - 2 - 4 - 2
    cut = toy_tokenizer().encode("file cat dog path red fish red fish open close")
    assert prompted.pairs("cat dog", ["red fish " * 10])[0]["input_ids"].tolist() == [cut.ids]


def test_a_text_is_what_the_tokenizer_itself_makes_of_it(tokenizer: TextTokenizer) -> None:
    assert tokenizer.sequences(["cat dog"])[0]["input_ids"].tolist() == [toy_tokenizer().encode("cat dog").ids]


def test_the_ids_are_those_of_the_sequence_without_special_tokens(tokenizer: TextTokenizer) -> None:
    texts = ["cat dog", "", "\ud800 cat", LONG]
    sequences = [sequence["input_ids"][0, 1:-1].tolist() for sequence in tokenizer.sequences(texts)]
    assert tokenizer.ids(texts) == sequences
    assert [len(ids) for ids in tokenizer.ids(texts)] == [2, 0, 2, 14]


def test_special_ids_are_those_that_the_file_calls_special() -> None:
    given = toy_tokenizer()
    assert TextTokenizer(given, max_tokens=16).special_ids == []
    given.add_special_tokens(["[PAD]", "[MASK]"])
    given.add_tokens(["c++"])
    assert TextTokenizer(given, max_tokens=16).special_ids == [0, given.token_to_id("[MASK]")]


def test_a_batch_holds_each_sequence_with_zeros_after_its_end(tokenizer: TextTokenizer) -> None:
    short, long = tokenizer.pairs("cat", ["fish", "red fish"])
    batch = padded([short, long])
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        assert batch[name].tolist() == [[*short[name][0], 0], [*long[name][0]]]


@pytest.mark.parametrize(
    ("query", "passage", "lengths"),
    [
        ("cat", "dog", (1, 1)),
        ("cat", LONG, (1, 12)),
        (LONG, "dog", (6, 1)),
        (LONG, LONG, (6, 7)),
        ("", "", (0, 0)),
    ],
)
def test_a_query_keeps_at_most_half_of_the_room_and_the_passage_the_rest(
    tokenizer: TextTokenizer, query: str, passage: str, lengths: tuple[int, int]
) -> None:
    pair = tokenizer.pairs(query, [passage])[0]
    in_passage = int(pair["token_type_ids"].sum())
    n_special_first, n_special_second = 2, 1
    assert (pair["input_ids"].size - in_passage - n_special_first, in_passage - n_special_second) == lengths
    assert pair["input_ids"].size <= 16


def test_settings_of_the_file_for_length_and_padding_are_dropped() -> None:
    given = toy_tokenizer()
    given.enable_truncation(3)
    given.enable_padding(length=64)
    assert TextTokenizer(given, max_tokens=16).sequences(["cat dog bird"])[0]["input_ids"].size == 5


@pytest.mark.case("R5")
@pytest.mark.parametrize("text", ["", "   ", "🙂🙂", "\ud800 cat", "\x00", "‮", "e\u0301" * 30])
def test_any_text_becomes_a_sequence(tokenizer: TextTokenizer, text: str) -> None:
    assert tokenizer.sequences([text])[0]["input_ids"].size >= 2
    assert tokenizer.pairs(text, [text])[0]["input_ids"].size >= 3


@pytest.mark.case("R4")
def test_a_long_text_is_cut_before_it_is_tokenised(tokenizer: TextTokenizer) -> None:
    def seconds(text: str) -> float:
        started = time.perf_counter()
        tokenizer.pairs("cat", [text])
        return time.perf_counter() - started

    text = "漢字" * 2_000_000
    whole = time.perf_counter()
    Tokenizer.from_str(toy_tokenizer().to_str()).encode(text[: len(text) // 10])
    tenth_uncut_s = time.perf_counter() - whole
    assert min(seconds(text) for _ in range(3)) < tenth_uncut_s / 10


def test_offsets_point_into_the_text(tokenizer: TextTokenizer) -> None:
    text = "Cat,  \ud800 dog"
    assert [text[start:end] for start, end in tokenizer.token_offsets(text)] == ["Cat", ",", "\ud800", "dog"]
