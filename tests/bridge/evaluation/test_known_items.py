"""The questions: enough of them, answered by documents that exist, labelled truthfully."""

import pytest

from bridge.demo.documents import DocumentationEntry, standard_library
from bridge.evaluation.known_items import KnownItems, content_words, known_items, read_questions


@pytest.fixture(scope="module")
def entries() -> dict[str, DocumentationEntry]:
    return {entry.name: entry for entry in standard_library()}


@pytest.fixture(scope="module")
def items(entries: dict[str, DocumentationEntry]) -> KnownItems:
    return known_items(entries)


def test_enough_questions_can_be_answered(items: KnownItems) -> None:
    assert len(items.questions) >= 280
    assert items.dropped <= 40
    assert len(items.questions) + items.dropped == len(read_questions())


def test_answers_exist(items: KnownItems, entries: dict[str, DocumentationEntry]) -> None:
    missing = {doc_id for grades in items.qrels.values() for doc_id in grades if doc_id not in entries}
    assert missing == set()


def test_questions_are_asked_once() -> None:
    questions = read_questions()
    assert len({question.query_id for question in questions}) == len(questions)
    assert len({question.text for question in questions}) == len(questions)


def test_half_of_the_questions_use_other_words(items: KnownItems) -> None:
    other = sum(question.vocabulary == "other" for question in items.questions)
    assert other >= len(items.questions) / 2


def test_vocabulary_labels_are_true(items: KnownItems, entries: dict[str, DocumentationEntry]) -> None:
    wrong = []
    for question in items.questions:
        asked = content_words(question.text)
        answers = [entries[doc_id] for doc_id in question.relevant]
        shared = any(asked & content_words(f"{answer.name} {answer.signature} {answer.text}") for answer in answers)
        if shared != (question.vocabulary == "same"):
            wrong.append(question.query_id)
    # Python's authors reword a docstring now and then: the labels were made with 3.11 to 3.13.
    assert len(wrong) <= len(items.questions) * 0.02


def test_questions_touch_many_modules(items: KnownItems, entries: dict[str, DocumentationEntry]) -> None:
    assert len({entries[question.relevant[0]].module for question in items.questions}) >= 80


def test_question_without_answer_in_the_collection_is_dropped() -> None:
    first, *others = read_questions()
    items = known_items(set(first.relevant))
    assert first.query_id in items.qrels
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
