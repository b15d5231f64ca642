"""Text fields become one text, and one text becomes passages that lose nothing; scripts of words are known."""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.models.artifact import resolve
from bridge.models.tokenization import load_tokenizer
from bridge.profile import PassageSettings
from bridge.text import (
    decode,
    enriched_text,
    field_texts,
    is_foreign,
    scripts_of_words,
    sentences,
    split_passages,
    strings_in,
)


def word_spans(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"\S+", text)]


@pytest.mark.parametrize(
    ("texts", "joined"),
    [
        pytest.param({"title": "Wings", "text": "They lift."}, "Wings. They lift.", id="title-becomes-a-sentence"),
        pytest.param({"title": "Why?", "text": "Because."}, "Why? Because.", id="no-second-full-stop"),
        pytest.param({"title": " ", "text": " body "}, "body", id="blank-field-left-out"),
        pytest.param({"b": "first", "a": "second"}, "first. second", id="order-of-the-mapping"),
        pytest.param({}, "", id="nothing"),
    ],
)
def test_text_fields_join_as_sentences(texts: dict[str, str], joined: str) -> None:
    assert enriched_text(texts) == joined


def test_single_layout_is_one_passage_however_long() -> None:
    text = "word " * 1000
    assert [p.text for p in split_passages(text, PassageSettings("single", 8, 2), word_spans)] == [text]


def test_blank_text_has_no_passage() -> None:
    assert split_passages(" \n ", PassageSettings("nested"), word_spans) == []


def test_passages_break_between_sentences_and_overlap_by_whole_sentences() -> None:
    text = "One two three. Four five six. Seven eight. Nine ten eleven."
    passages = split_passages(text, PassageSettings("nested", 8, 3), word_spans)
    assert [p.text for p in passages] == [
        "One two three. Four five six. Seven eight.",
        "Seven eight. Nine ten eleven.",
    ]


def test_long_sentence_is_cut_between_words() -> None:
    passages = split_passages("a b c d e f g", PassageSettings("nested", 3, 1), word_spans)
    assert [p.text for p in passages] == ["a b c", "c d e", "e f g"]


def test_long_word_is_cut_between_tokens() -> None:
    def letters(text: str) -> list[tuple[int, int]]:
        return [(i, i + 1) for i, sign in enumerate(text) if not sign.isspace()]

    passages = split_passages("abcdefg", PassageSettings("nested", 3, 0), letters)
    assert [p.text for p in passages] == ["abc", "def", "g"]


def test_text_longer_than_a_stretch_keeps_its_offsets() -> None:
    text = " ".join(f"w{i}." for i in range(60_000))
    passages = split_passages(text, PassageSettings("nested", 5000, 0), word_spans)
    assert " ".join(p.text for p in passages) == text


@given(
    st.text(alphabet="ab .!\n", max_size=300),
    st.integers(min_value=1, max_value=12),
    st.integers(min_value=0, max_value=12),
)
def test_every_token_is_in_a_passage_and_no_passage_is_too_long(text: str, size: int, overlap: int) -> None:
    passages = split_passages(text, PassageSettings("nested", size, overlap), word_spans)
    for passage in passages:
        assert text[passage.start : passage.end] == passage.text
        assert len(word_spans(passage.text)) <= size
    covered = {i for p in passages for i in range(p.start, p.end)}
    assert {i for start, end in word_spans(text) for i in range(start, end)} <= covered


@pytest.mark.case("I40")
@pytest.mark.parametrize(
    ("document", "text"),
    [
        pytest.param({"item.info": {"name": "rain jacket"}}, "rain jacket", id="dots-in-the-first-key"),
        pytest.param({"item": {"info.name": "rain jacket"}}, "rain jacket", id="dots-in-the-second-key"),
        pytest.param({"item.info.name": "rain", "item": {"info": {"name": "jacket"}}}, "rain\njacket", id="both-forms"),
        pytest.param({"item": {"info": {"name": "b"}}, "item.info": {"name": "a"}}, "b\na", id="document-order"),
        pytest.param({"item": [{"info.name": "a"}, [{"info": {"name": ["b", ["c"]]}}]]}, "a\nb\nc", id="arrays"),
        pytest.param({"item": {"info": "no object", "information": {"name": "x"}}}, "", id="another-field"),
        pytest.param({"item": {"info.name": None, "info": {"name": "x"}}}, "x", id="null-in-one-form"),
    ],
)
def test_a_dotted_name_is_read_however_the_document_writes_it(document: dict[str, object], text: str) -> None:
    assert field_texts(document, ["item.info.name"]) == {"item.info.name": text}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("Wings lift. Do they? Yes!", ["Wings lift.", "Do they?", "Yes!"], id="marks"),
        pytest.param('He said "No." Then he left.', ['He said "No."', "Then he left."], id="quotation-marks"),
        pytest.param(
            "Dr. Lee met J. R. Low in St. Ives. He ran.", ["Dr. Lee met J. R. Low in St. Ives.", "He ran."], id="names"
        ),
        pytest.param(
            "The U.S. Navy won. It cost 3.5 million.", ["The U.S. Navy won.", "It cost 3.5 million."], id="letters"
        ),
        pytest.param("Am 3. Oktober war es. Dann nicht.", ["Am 3. Oktober war es.", "Dann nicht."], id="ordinals"),
        pytest.param("Wing and\nbody. Tail", ["Wing and\nbody.", "Tail"], id="wrapped-lines"),
        pytest.param("Boots\nShoes\n\n Coats ", ["Boots", "Shoes", "Coats"], id="lists"),
        pytest.param(
            "鸟会飞。鱼会游！它们呢？「都会。」好",
            ["鸟会飞。", "鱼会游！", "它们呢？", "「都会。」", "好"],
            id="chinese",
        ),
        pytest.param("पक्षी उड़ते हैं। मछली तैरती है।", ["पक्षी उड़ते हैं।", "मछली तैरती है।"], id="hindi"),
        pytest.param("هل تطير؟ نعم", ["هل تطير؟", "نعم"], id="arabic"),
        pytest.param("one two three four", ["one two", "three four"], id="cut-between-words"),
        pytest.param("abcdefghijklmnopqrstuvwxyz abc", ["abcdefghijklmnop", "qrstuvwxyz abc"], id="cut-in-a-word"),
        pytest.param(" \n ", [], id="blank"),
    ],
)
def test_a_text_is_split_into_sentences(text: str, expected: list[str]) -> None:
    max_chars = {"one": 10, "abc": 16}.get(text[:3], 1000)
    assert [text[start:end] for start, end in sentences(text, max_chars)] == expected


@given(st.text(alphabet='abA1 .!。\n"', max_size=200), st.integers(min_value=1, max_value=12))
def test_sentences_lose_nothing_but_space(text: str, max_chars: int) -> None:
    found = list(sentences(text, max_chars))
    assert all(0 < end - start <= max_chars for start, end in found)
    assert found == sorted(found)
    assert "".join("".join(text[start:end].split()) for start, end in found) == "".join(text.split())


def test_a_long_run_of_marks_is_read_once() -> None:
    """A search that began anew at each mark would take hours."""
    assert len(list(sentences("." * 1_000_000, 1000))) == 1000
    assert list(sentences("\n" * 1_000_000, 1000)) == []


def test_values_are_read_one_by_one() -> None:
    source = b'{"a": {"b": ["x", ["y"], 4.50, null, ""]}, "a.b": "z", "c": true}'
    assert strings_in(source, ["a.b", "c"]) == {"a.b": ["x", "y", "4.50", "z"], "c": []}


LATIN = [f"wing{chr(97 + n)}" for n in range(20)]


@pytest.mark.parametrize(
    ("words", "scripts"),
    [
        (LATIN, ["latin"]),
        ([*LATIN, "туфли"], ["cyrillic", "latin"]),
        ([*LATIN, "ж", "щ"], ["latin"]),
        ([*LATIN, "##туфли", "▁shoe"], ["cyrillic", "latin"]),
        ([*LATIN, "mixтура"], ["latin"]),
        ([*LATIN, "\u0120shoe"], []),
        (["[PAD]", "12", "!?"], ["latin"]),
        ([], []),
    ],
    ids=["one", "two", "letters alone", "pieces", "mixed", "bytes", "special tokens", "nothing"],
)
def test_a_script_is_known_by_its_words(words: list[str], scripts: list[str]) -> None:
    assert scripts_of_words(words) == scripts


def test_the_models_that_come_with_the_program_read_latin_script() -> None:
    for name in ("embed-base", "rerank-base"):
        assert scripts_of_words(load_tokenizer(resolve(name)).words) == ["latin"]


@pytest.mark.parametrize(
    ("text", "foreign"),
    [
        ("красные туфли", True),
        ("赤い靴", True),
        ("Straße café", False),
        ("shoe туф", False),
        ("ｓｈｏｅ", False),
        ("", False),
        ("42", False),
    ],
)
def test_a_text_is_foreign_where_most_of_its_letters_are(text: str, foreign: bool) -> None:
    assert is_foreign(text, ["latin"]) is foreign
    assert not is_foreign(text, [])


@pytest.mark.case("P54")
@pytest.mark.parametrize("body", [b'{"a": "\xff"}', b'{"a": "\\ud83d", "b": "\xff"}', b"\xff", b'{"a": 1}', b"{"])
def test_what_is_not_utf_8_or_no_such_json_is_one_error(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(body, dict[str, str])
