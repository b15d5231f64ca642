"""Questions about the Python standard library and the documents that answer them (`data/README.md` describes how they
were written). The demo measures every stage with them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Literal

import msgspec

from bridge.evaluation.judged_queries import JudgedQueries

QUESTIONS_FILE = "stdlib_questions.jsonl"

Group = Literal[
    "newcomer", "busy", "other_language", "non_native", "error_message", "known_item", "other_words"
]  # fmt: skip
"""How a question was written. `other_words`: it shares no content word, whatever its ending, with any document that
answers it, so BM25 can match that document by function words only."""


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A question and the documents that answer it, each equally well."""

    query_id: str
    text: str
    relevant: tuple[str, ...]
    group: Group


@dataclass(frozen=True, slots=True)
class KnownItems:
    """The questions that a collection can answer, each answering document with grade 1; `dropped` counts the other
    questions."""

    questions: Sequence[Question]
    dropped: int

    def halves(self) -> tuple[JudgedQueries, JudgedQueries]:
        """Two disjoint halves of the questions as people type them: the first to choose settings by, the second to
        measure the choice.

        Each group is split alike.
        """
        typed = [question for question in self.questions if question.group != "other_words"]
        return _judged(typed[::2]), _judged(typed[1::2])

    def in_other_words(self) -> JudgedQueries:
        """Questions that share no content word with an answer."""
        return _judged([question for question in self.questions if question.group == "other_words"])


def joined(*parts: JudgedQueries) -> JudgedQueries:
    """The questions of all parts."""
    queries = {query_id: text for part in parts for query_id, text in part.queries.items()}
    qrels = {query_id: grades for part in parts for query_id, grades in part.qrels.items()}
    return JudgedQueries(QUESTIONS_FILE, queries, qrels)


def _judged(questions: Sequence[Question]) -> JudgedQueries:
    return JudgedQueries(
        QUESTIONS_FILE,
        {question.query_id: question.text for question in questions},
        {question.query_id: dict.fromkeys(question.relevant, 1) for question in questions},
    )


def read_questions() -> list[Question]:
    """All questions, in file order."""
    file = resources.files("bridge.evaluation").joinpath("data", QUESTIONS_FILE)
    return msgspec.json.Decoder(Question).decode_lines(file.read_bytes())


def known_items(doc_ids: Collection[str]) -> KnownItems:
    """The questions that a collection of `doc_ids` can answer.

    The library differs between Python versions: answers that the collection lacks are left out, and questions without
    an answer are dropped.
    """
    questions = read_questions()
    answerable = [
        msgspec.structs.replace(question, relevant=present)
        for question in questions
        if (present := tuple(doc_id for doc_id in question.relevant if doc_id in doc_ids))
    ]
    return KnownItems(answerable, dropped=len(questions) - len(answerable))
