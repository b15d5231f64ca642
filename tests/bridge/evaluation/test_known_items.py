"""The questions: enough of them, answered by documents that exist, labelled truthfully."""

import re
from collections import Counter
from typing import get_args

import pytest

from bridge.demo.documents import DocumentationEntry, standard_library
from bridge.evaluation.known_items import Group, KnownItems, joined, known_items, read_questions


@pytest.fixture(scope="module")
def entries() -> dict[str, DocumentationEntry]:
    return {entry.name: entry for entry in standard_library()}


@pytest.fixture(scope="module")
def items(entries: dict[str, DocumentationEntry]) -> KnownItems:
    return known_items(entries)


def test_enough_questions_can_be_answered(items: KnownItems) -> None:
    assert len(items.questions) >= 430
    assert items.dropped <= 40
    assert len(items.questions) + items.dropped == len(read_questions())


def test_answers_exist(items: KnownItems, entries: dict[str, DocumentationEntry]) -> None:
    judged = joined(*items.halves(), items.in_other_words())
    assert len(judged.queries) == len(items.questions)
    assert {doc_id for grades in judged.qrels.values() for doc_id in grades if doc_id not in entries} == set()


def test_questions_are_asked_once() -> None:
    questions = read_questions()
    assert len({question.query_id for question in questions}) == len(questions)
    assert len({question.text for question in questions}) == len(questions)


def test_several_people_ask(items: KnownItems) -> None:
    asked = Counter(question.group for question in items.questions)
    assert set(asked) == set(get_args(Group))
    assert min(asked.values()) >= 25


def test_one_half_chooses_and_the_other_measures(items: KnownItems) -> None:
    chosen_by, measured = (half.queries.keys() for half in items.halves())
    assert not chosen_by & measured
    assert abs(len(chosen_by) - len(measured)) <= 1
    assert not (chosen_by | measured) & items.in_other_words().queries.keys()


def test_questions_in_other_words_share_no_content_word(
    items: KnownItems, entries: dict[str, DocumentationEntry]
) -> None:
    wrong = []
    for question in items.questions:
        words = content_words(question.text)
        answers = [entries[doc_id] for doc_id in question.relevant]
        shared = any(words & content_words(f"{answer.name} {answer.signature} {answer.text}") for answer in answers)
        if question.group in ("other_words", "known_item") and shared != (question.group == "known_item"):
            wrong.append(question.query_id)
    # Python's authors reword a docstring now and then: the labels were made with 3.11 to 3.13.
    assert len(wrong) <= len(items.questions) * 0.02


def test_questions_touch_many_modules(items: KnownItems, entries: dict[str, DocumentationEntry]) -> None:
    assert len({entries[question.relevant[0]].module for question in items.questions}) >= 80


def test_question_without_answer_in_the_collection_is_dropped() -> None:
    first, *others = read_questions()
    items = known_items(set(first.relevant))
    assert first.query_id in {question.query_id for question in items.questions}
    assert items.dropped >= len(others) - 3


@pytest.mark.parametrize(
    ("one", "another"),
    [
        ("sorting", "sorted"),
        ("directories", "directory"),
        ("running", "run"),
        ("compressed", "compress"),
        ("copies", "copy"),
        ("iterate", "iteration"),
        ("assertAlmostEqual", "assert_almost_equal"),
        ("XMLParser", "xml parsers"),
    ],
)
def test_forms_of_a_word_are_the_same_content_word(one: str, another: str) -> None:
    assert content_words(one) == content_words(another) != set()


def test_function_words_carry_no_content() -> None:
    assert content_words("How do I get it, and what is that?") == set()


def content_words(text: str) -> frozenset[str]:
    """The content words of a text, without their endings, lower-case.

    Names are split at underscores, dots and capitals (`TestCase.assertEqual` gives test, case, assert, equal). Endings
    are cut greedily and few words count as function words: if two texts share nothing here, they share only function
    words under an English analyser too.
    """
    words = (word.lower() for word in _WORD.findall(text))
    return frozenset(_without_ending(word) for word in words if word not in _FUNCTION_WORDS)


_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_]+")

_FUNCTION_WORDS_TEXT = """
    a about all am an and any are as at be been but by can could did do does don done for from get give
    given go goes had has have here how i if in into is it its just like may me my no nor not of off on
    only or other our out own re s same so some such t than that the their them then there these they this
    those to too up us use used uses using was we were what when where whether which who whose will with
    without would you your
"""
_FUNCTION_WORDS = frozenset(_FUNCTION_WORDS_TEXT.split())

_ENDINGS = (
    "ications", "ication", "izations", "ization", "ations", "ation", "ements", "ement", "ments", "ment", "ibility",
    "ability", "ingly", "nesses", "ness", "ities", "ity", "ions", "ion", "ings", "ing", "ables", "able", "ibles",
    "ible", "ances", "ance", "ences", "ence", "ively", "ives", "ive", "izes", "ized", "izer", "ize", "ises", "ised",
    "ise", "ers", "ors", "ally", "als", "al", "ies", "ied", "ier", "iest", "est", "ful", "ates", "ated", "ate", "es",
    "ed", "er", "or", "ly", "s", "e", "y",
)  # fmt: skip


def _without_ending(word: str) -> str:
    """Cuts the longest known ending that leaves three letters, then a doubled last consonant."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending)
            break
    if len(word) > 3 and word[-1] == word[-2]:
        word = word[:-1]
    return word
