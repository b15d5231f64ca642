"""What an application's `highlight` block wants of a sentence, and which sentences are read."""

from typing import Any

import pytest

from bridge.search.highlighting import (
    MAX_SENTENCES,
    WantedFragments,
    scores_by_words,
    sentences_to_read,
    wanted_fragments,
)

FIELDS = ["title", "body", "review.text"]
TEXT = "Wings & air. They lift. So it flies."


def names(highlight: Any) -> list[str]:
    return [each.name for each in wanted_fragments(highlight, FIELDS)]


@pytest.mark.parametrize(
    ("highlight", "wanted"),
    [
        pytest.param({"fields": {"body": {}, "price": {}}}, ["body"], id="enriched-fields-alone"),
        pytest.param({"fields": [{"body": {}}, {"title": {}}]}, ["body", "title"], id="a-list"),
        pytest.param({"fields": {"*": {}}}, FIELDS, id="all"),
        pytest.param({"fields": {"re*t": {}, "body": {}}}, ["review.text", "body"], id="a-pattern"),
        pytest.param({"fields": {"body": {}, "bo*": {"fragment_size": 5}}}, ["body"], id="once"),
        pytest.param({"fields": {"body.english": {}, "bodyguard": {}}}, ["body.english"], id="a-sub-field"),
        pytest.param({"fields": {"body.*": {}}}, [], id="a-pattern-of-sub-fields"),
        pytest.param({"fields": {"body": {"highlight_query": {}}, "title": {}}}, ["title"], id="another-query"),
        pytest.param({"fields": {"body": {}}, "highlight_query": {"match_all": {}}}, [], id="another-query-for-all"),
        pytest.param({"fields": {"*" * 2000: {}}}, [], id="too-long-a-name"),
        pytest.param({}, [], id="no-fields"),
        pytest.param(None, [], id="nothing"),
        pytest.param({"fields": {"body": None}}, [], id="malformed"),
    ],
)
def test_fields_are_wanted_by_name_or_pattern(highlight: Any, wanted: list[str]) -> None:
    assert names(highlight) == wanted


@pytest.mark.parametrize(
    ("highlight", "fragment"),
    [
        pytest.param({}, "<em>They lift.</em>", id="default"),
        pytest.param({"pre_tags": ["<b>", "<i>"], "post_tags": "</b>"}, "<b>They lift.</b>", id="tags"),
        pytest.param({"tags_schema": "styled"}, '<em class="hlt1">They lift.</em>', id="styled"),
        pytest.param({"number_of_fragments": 0}, "Wings & air. <em>They lift.</em> So it flies.", id="whole"),
        pytest.param(
            {"number_of_fragments": "0", "encoder": "html"},
            "Wings &amp; air. <em>They lift.</em> So it flies.",
            id="escaped",
        ),
        pytest.param({"fragment_size": 3, "no_match_size": 9, "type": "plain"}, "<em>They lift.</em>", id="others"),
    ],
)
def test_a_fragment_is_written_as_the_application_wants_it(highlight: Any, fragment: str) -> None:
    [wanted] = wanted_fragments({"fields": {"body": {}}, **highlight}, FIELDS)
    [of_the_field] = wanted_fragments({"fields": {"body": highlight}, "pre_tags": ["<q>"]} | highlight, FIELDS)
    start = TEXT.index("They")
    assert wanted.fragment(TEXT, start, start + 10) == fragment
    assert of_the_field.fragment(TEXT, start, start + 10)[-9:] == fragment[-9:]


def test_options_of_a_field_come_before_those_of_all() -> None:
    highlight = {"fields": {"body": {"pre_tags": ["("], "fragment_size": "40"}}, "pre_tags": ["["], "fragment_size": 10}
    assert wanted_fragments(highlight, FIELDS) == [WantedFragments("body", "body", max_chars=40, before="(")]


def test_markup_in_a_text_is_escaped_as_the_engine_does() -> None:
    wanted = WantedFragments("body", "body", encodes_html=True)
    assert wanted.fragment("<a href='/'>\"x\"", 0, 16) == ("<em>&lt;a href=&#x27;&#x2F;&#x27;&gt;&quot;x&quot;</em>")


def read(texts: list[str], *, passage: str | None = None, query: str = "red shoe") -> list[str]:
    found = sentences_to_read(texts, max_chars=100, passage=passage, query=query)
    return [texts[n][start:end] for n, start, end in found]


def test_all_sentences_of_all_values_are_read() -> None:
    assert read(["One. Two.", "Three"], passage="Two.") == ["One.", "Two.", "Three"]


LONG = [f"Sentence number {n:03}." for n in range(100)]


def test_of_a_long_text_the_best_passage_is_read() -> None:
    assert read([" ".join(LONG)], passage=" ".join(LONG[50:55])) == LONG[50:55]


def test_of_a_long_text_whose_passage_is_unknown_the_sentences_with_words_of_the_query_are_read() -> None:
    text = " ".join([*LONG, "A red Shoe!"])
    chosen = read([text])
    assert chosen == [*LONG[: MAX_SENTENCES - 1], "A red Shoe!"]
    assert read([text], passage="something else") == chosen


def test_rare_words_in_common_are_worth_more() -> None:
    red, both, none, shoe = scores_by_words("Red shoe", ["The red.", "A RED shoe", "wing", "red, red sky"])
    assert none == 0
    assert both > 2 * red > 0
    assert shoe == red
    assert scores_by_words("", ["a"]) == [0]
