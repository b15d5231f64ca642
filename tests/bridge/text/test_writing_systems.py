"""Which scripts a vocabulary is written in, and which texts are foreign to it."""

import pytest

from bridge.models.artifact import resolve
from bridge.models.tokenization import load_tokenizer
from bridge.text.writing_systems import is_foreign, scripts_of_words

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
