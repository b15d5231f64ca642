"""Misspelt words of a search: which words the index does not have, and which near ones it has instead.

Three requests find them, all in the caller's name. The first asks whether documents hold each word; mostly it ends
there. The second asks the dictionaries of the index for terms that resemble the words which none holds. Dictionaries
know no permissions, so a term is only a guess. The third searches what was guessed: a word is repaired by one that
stands in documents which the cluster shows to the caller, as it is written there.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import msgspec

from bridge.errors import AnswerNotUnderstood
from bridge.profile import IndexProfile
from bridge.search.json_tree import Json
from bridge.search.legs import one_word
from bridge.search.request import Repair, SearchRequest
from bridge.text import decode_answer

MIN_LETTERS = 4
"""Shorter words have too many near ones."""
TWO_EDITS_LETTERS = 8
"""Words with so many letters may have two errors."""
MAX_WORDS = 24
"""Longer texts are not looked at: each word is a search."""
MAX_REPAIRS = 3
"""If more words are missing, the text is of another language or kind."""
MIN_DOCUMENTS = 2
"""In fewer documents a word may be misspelt itself."""
MIN_PART = 3
"""Letters of the parts of a word that is split."""

_TERMS = 4
"""Near terms per word and field."""
_SUFFIX = 4
"""Analysers may cut so many letters off a word, and none off one that is misspelt there."""
_READ_HITS, _FRAGMENTS = 10, 4
"""Documents in which a guess is looked up as it is written there, and fragments of each."""
_LIKELIER = 26
"""How many times likelier it is to leave out or swap letters than to type a certain wrong one."""
_BEGIN, _END = "\ue000", "\ue001"
"""Around a word of a highlight; characters of the private use area, which texts do not hold."""

# No part of a compound, an abbreviation, a file name or an address.
_WORD = re.compile(r"(?<![\w'’@./\\-])[^\W\d_]+(?![\w'’@/\\-]|\.\w)")
_MARKED = re.compile(f"{_BEGIN}([^{_END}]*){_END}")
_ADJACENT = re.compile(f"{_BEGIN}([^{_END}]*){_END}[\\s-]{_BEGIN}([^{_END}]*){_END}")


@dataclass(frozen=True, slots=True)
class _Word:
    """A word of the text, and where it stands."""

    text: str
    start: int
    end: int

    @property
    def edits(self) -> int:
        """How many errors it may have."""
        return 2 if len(self.text) >= TWO_EDITS_LETTERS else 1


@dataclass(frozen=True, slots=True)
class _Guess:
    """What may be meant in place of the text from `start` to `end`: `body` searches it."""

    start: int
    end: int
    typed: str
    edits: int
    body: Json
    split: bool = False


class _Option(msgspec.Struct):
    text: str


class _Entry(msgspec.Struct):
    """A term of what was sent to a suggester, by its place in it, and near ones."""

    text: str
    offset: int
    options: list[_Option]


class _Hit(msgspec.Struct):
    highlight: dict[str, list[str]] = {}


class _Total(msgspec.Struct):
    value: int


class _Hits(msgspec.Struct):
    total: _Total
    hits: list[_Hit] = []


class _Answer(msgspec.Struct):
    hits: _Hits | None = None
    suggest: dict[str, list[_Entry]] = {}


class _Answers(msgspec.Struct):
    responses: list[_Answer]


@dataclass(frozen=True, slots=True)
class Doubts:
    """The words of a text that may be misspelt. `bodies` are the searches of the first request."""

    text: str
    fields: Sequence[str]
    all_words: Sequence[_Word]
    words: Sequence[_Word]
    bodies: Sequence[Json]

    @classmethod
    def of(cls, request: SearchRequest, profile: IndexProfile) -> Self | None:
        """None if the text is in quotation marks, too long, or has no words of letters alone."""
        text, fields = request.text, profile.text_fields
        # Beyond U+FFFF the cluster counts characters otherwise.
        all_words = [_Word(match[0], *match.span()) for match in _WORD.finditer(text) if max(match[0]) <= "\uffff"]
        words = [word for word in all_words if len(word.text) >= MIN_LETTERS]
        if not words or len(all_words) > MAX_WORDS or '"' in text:
            return None
        return cls(text, fields, all_words, words, [_held(request, word.text, fields) for word in words])

    def missing(self, answer: bytes) -> "Missing | None":
        """The words that no document holds; None if there are none, or too many.

        Raises:
            AnswerNotUnderstood: it is no answer to `bodies`, or the cluster refuses one of them.
        """
        held = _answers(answer, len(self.bodies))
        words = [word for word, each in zip(self.words, held, strict=True) if not each.n_documents]
        return Missing(self, words) if 0 < len(words) <= MAX_REPAIRS else None


@dataclass(frozen=True, slots=True)
class Missing:
    """Words that no document holds. `bodies` are the searches of the second request."""

    doubts: Doubts
    words: Sequence[_Word]

    @property
    def bodies(self) -> list[Json]:
        """One search, for near terms of all fields."""
        suggesters: dict[str, Json] = {}
        for n, word in enumerate(self.words):
            for m, name in enumerate(self.doubts.fields):
                # Those of known terms, too: an analyser may make a known one of what is misspelt.
                near = {"suggest_mode": "always", "max_edits": word.edits, "prefix_length": 0, "min_word_length": 3}
                term = {"field": name, "size": _TERMS, **near}
                suggesters[f"{n}-{m}"] = {"text": " ".join(_beginnings(word.text)), "term": term}
        return [{"size": 0, "suggest": suggesters}]

    def guesses(self, answer: bytes) -> "Guesses | None":
        """What may be meant in place of the words; None if there is nothing to repair.

        Raises:
            AnswerNotUnderstood: it is no answer to `bodies`, or the cluster refuses it.
        """
        [near] = _answers(answer, 1)
        guesses: list[_Guess] = []
        for n, word in enumerate(self.words):
            terms: dict[str, list[str]] = {}
            is_term = False
            for m, name in enumerate(self.doubts.fields):
                for entry in near.suggest.get(f"{n}-{m}", ()):
                    # The word itself has no document, but what an analyser makes of its beginning may.
                    own = [entry.text] if entry.offset else []
                    is_term |= not entry.offset
                    for term in (*own, *(option.text for option in entry.options)):
                        terms.setdefault(term, []).append(name)
            # A word that has no term is one that the index leaves out of every text.
            guesses += self._of_word(word, terms) if is_term else ()
        return Guesses(self.doubts.text, guesses) if guesses else None

    def _of_word(self, word: _Word, terms: Mapping[str, Sequence[str]]) -> Iterator[_Guess]:
        text, all_words, fields = self.doubts.text, self.doubts.all_words, self.doubts.fields
        for term, names in terms.items():
            clauses: list[Json] = [{"term": {name: {"value": term}}} for name in dict.fromkeys(names)]
            yield _Guess(word.start, word.end, word.text, word.edits, _found_by(clauses, fields))
        for one, other in pairwise(all_words):
            if word in (one, other) and text[one.end : other.start] == " ":
                joined = one.text + other.text
                clauses = [{"match": {name: joined}} for name in fields]
                yield _Guess(one.start, other.end, joined, 0, _found_by(clauses, fields))
        places = range(MIN_PART, len(word.text) - MIN_PART + 1)
        if parts := [f"{word.text[:place]} {word.text[place:]}" for place in places]:
            phrases: list[Json] = [{"match_phrase": {name: each}} for each in parts for name in fields]
            yield _Guess(word.start, word.end, word.text, 0, _found_by(phrases, fields), split=True)


def _beginnings(word: str) -> list[str]:
    """The word, and as much of it as an analyser may leave of what was meant."""
    shortest = max(len(word) - _SUFFIX, len(word) // 2, MIN_PART)
    return [word[:end] for end in range(len(word), shortest - 1, -1)]


def _found_by(clauses: Sequence[Json], fields: Sequence[str]) -> Json:
    """Counts documents, and shows words of the best as they are written there."""
    highlight = {"pre_tags": [_BEGIN], "post_tags": [_END], "number_of_fragments": _FRAGMENTS, "fragment_size": 40}
    return {
        "size": _READ_HITS,
        "_source": False,
        "query": {"bool": {"should": list(clauses), "minimum_should_match": 1}},
        "highlight": {**highlight, "fields": {name: {} for name in fields}},
    }


@dataclass(frozen=True, slots=True)
class Guesses:
    """What may be meant; `bodies` are the searches of the third request."""

    text: str
    guesses: Sequence[_Guess]

    @property
    def bodies(self) -> list[Json]:
        return [guess.body for guess in self.guesses]

    def repair(self, answer: bytes) -> Repair | None:
        """The text with what was meant: for each word the nearest of the guesses that documents hold, of equally near
        ones the likeliest by its frequency and the kind of error (Kernighan, Church and Gale 1990, "A spelling
        correction program based on a noisy channel model"); None if there is none.

        Raises:
            AnswerNotUnderstood: it is no answer to `bodies`, or the cluster refuses one of them.
        """
        found: list[tuple[int, float, str, _Guess]] = []
        for guess, each in zip(self.guesses, _answers(answer, len(self.guesses)), strict=True):
            meant = _as_written(guess, each.fragments) if each.n_documents >= MIN_DOCUMENTS else None
            if meant is not None:
                written, n_edits = meant
                found.append((n_edits, -each.n_documents * _likelihood(guess.typed, written), written, guess))
        text, words = self.text, dict[str, str]()
        chosen: list[tuple[str, _Guess]] = []
        for _, _, written, guess in sorted(found, key=lambda each: each[:3]):
            if all(guess.end <= other.start or other.end <= guess.start for _, other in chosen):
                chosen.append((written, guess))
        for written, guess in sorted(chosen, key=lambda each: -each[1].start):
            typed = text[guess.start : guess.end]
            meant_text = written.lower() if typed.islower() else written
            words[typed] = meant_text
            text = text[: guess.start] + meant_text + text[guess.end :]
        return Repair(text, dict(reversed(words.items()))) if words else None


def _as_written(guess: _Guess, fragments: Sequence[str]) -> tuple[str, int] | None:
    """The nearest marked word, or pair of words, the most frequent of equally near ones; with its distance from what
    was typed. A space too many or too few counts as one."""
    typed = guess.typed.casefold()
    if guess.split:
        written = (f"{one} {other}" for each in fragments for one, other in _ADJACENT.findall(each))
    else:
        written = (word for each in fragments for word in _MARKED.findall(each))
    counts = Counter(written)
    near = {word: distance(typed, word.replace(" ", "").casefold()) for word in counts}
    near = {word: n_edits for word, n_edits in near.items() if n_edits <= guess.edits}
    if not near:
        return None
    best = min(near, key=lambda word: (near[word], -counts[word], word))
    return best, max(near[best], 1)


def distance(one: str, other: str) -> int:
    """How many letters must be inserted, deleted, replaced or swapped with the next to make one word of the other
    (Damerau 1964, "A technique for computer detection and correction of spelling errors"); no letter twice."""
    before: list[int] = []
    above = list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        row = [i]
        for j, its in enumerate(other, start=1):
            costs = above[j] + 1, row[j - 1] + 1, above[j - 1] + (letter != its)
            is_swapped = i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == its
            row.append(min(*costs, before[j - 2] + 1) if is_swapped else min(costs))
        before, above = above, row
    return above[-1]


def _likelihood(typed: str, meant: str) -> float:
    """How likely the error is: higher if letters were left out or swapped than if a certain wrong one was typed."""
    is_shorter, is_swapped = len(typed) < len(meant), sorted(typed.casefold()) == sorted(meant.casefold())
    return _LIKELIER if is_shorter or is_swapped else 1.0


def _held(request: SearchRequest, word: str, fields: Sequence[str]) -> Json:
    """Finds a document that holds the word where the application's query searches, or in an enriched field."""
    clauses = [one_word(request, word), {"multi_match": {"query": word, "fields": list(fields)}}]
    return {"size": 0, "terminate_after": 1, "query": {"bool": {"should": clauses, "minimum_should_match": 1}}}


@dataclass(frozen=True, slots=True)
class _Found:
    """An answer that is no error."""

    n_documents: int
    fragments: Sequence[str]
    suggest: Mapping[str, Sequence[_Entry]]


def _answers(body: bytes, n_searches: int) -> list[_Found]:
    try:
        answers = decode_answer(body, _Answers).responses
    except msgspec.DecodeError as error:
        raise AnswerNotUnderstood(f"the cluster's answer to _msearch cannot be read: {error}") from error
    found = [
        _Found(
            each.hits.total.value,
            [fragment for hit in each.hits.hits for of_field in hit.highlight.values() for fragment in of_field],
            each.suggest,
        )
        for each in answers
        if each.hits is not None
    ]
    if len(found) != n_searches:
        raise AnswerNotUnderstood(f"_msearch answered {len(found)} of {n_searches} searches for words")
    return found
