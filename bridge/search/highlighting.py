"""The `highlight` block of a search: which fields it wants, and the sentence that answers as a fragment of one.

Options that choose how words are marked (`type`, `order`, `boundary_scanner`, `matched_fields`, …) make no difference
to a sentence that is marked as a whole.
"""

import html
import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from bridge.search.json_tree import Json
from bridge.search.text_clause import as_list
from bridge.search.wildcards import MAX_NAME_LENGTH, MAX_NAMES, matches
from bridge.text import sentences

MAX_SENTENCES = 24
"""Of a field's text: what a cross-encoder reads of it."""
MAX_SENTENCE_CHARS = 1_000
"""Longer ones are cut: tables and lists have no full stops."""

WORDS_WEIGHT = 0.3
"""Of words in common beside a cross-encoder's logits; docs/explanation/benchmarks.md has what it brings."""

_TAGS = ("<em>", "</em>")
_STYLED = ('<em class="hlt1">', "</em>")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class WantedFragments:
    """How the highlights of one field are wanted.

    `name`: among the highlights; `text_field`: the enriched field that holds the text, of which `name` may be a
    sub-field. `max_chars` of a fragment; `is_whole`: the whole value in place of fragments; `encodes_html`: the text is
    escaped, the tags `before` and `after` are not.
    """

    name: str
    text_field: str
    max_chars: int = MAX_SENTENCE_CHARS
    is_whole: bool = False
    before: str = _TAGS[0]
    after: str = _TAGS[1]
    encodes_html: bool = False

    def fragment(self, text: str, start: int, end: int) -> str:
        """The sentence `text[start:end]` as the application wants a fragment."""
        first, last = (0, len(text)) if self.is_whole else (start, end)
        around = self._encoded(text[first:start]), self._encoded(text[end:last])
        return f"{around[0]}{self.before}{self._encoded(text[start:end])}{self.after}{around[1]}"

    def _encoded(self, text: str) -> str:
        # Lucene's SimpleHTMLEncoder escapes the slash as well.
        return html.escape(text).replace("/", "&#x2F;") if self.encodes_html else text


def wanted_fragments(highlight: Json, text_fields: Sequence[str]) -> list[WantedFragments]:
    """The enriched fields of which highlights are wanted, by name or pattern, each once. Not those with a
    `highlight_query`, which are to show how another query matches."""
    if not isinstance(highlight, dict) or "highlight_query" in highlight:
        return []
    found: dict[str, WantedFragments] = {}
    for pattern, options in list(_fields(highlight.get("fields")))[:MAX_NAMES]:
        if "highlight_query" in options or len(pattern) > MAX_NAME_LENGTH:
            continue
        for field in text_fields:
            # A pattern stands for fields by name; which sub-fields they have is not known.
            is_named = matches(pattern, field) if "*" in pattern else f"{pattern}.".startswith(f"{field}.")
            if is_named:
                name = field if "*" in pattern else pattern
                found.setdefault(name, _wanted(name, field, {**highlight, **options}))
    return list(found.values())


def _fields(fields: Json) -> Iterator[tuple[str, dict[str, Json]]]:
    for each in as_list(fields):
        if isinstance(each, dict):
            yield from ((name, options) for name, options in each.items() if isinstance(options, dict))


def _wanted(name: str, text_field: str, options: dict[str, Json]) -> WantedFragments:
    is_whole = _number(options.get("number_of_fragments")) == 0
    limit = None if is_whole else _number(options.get("fragment_size"))
    before, after = _STYLED if options.get("tags_schema") == "styled" else _TAGS
    return WantedFragments(
        name,
        text_field,
        max_chars=min(limit or MAX_SENTENCE_CHARS, MAX_SENTENCE_CHARS),
        is_whole=is_whole,
        before=_first(options.get("pre_tags"), before),
        after=_first(options.get("post_tags"), after),
        encodes_html=options.get("encoder") == "html",
    )


def _number(value: Json) -> int | None:
    """A count as clusters take it, as a number or its digits."""
    try:
        return max(int(value), 0)
    except (TypeError, ValueError, OverflowError):
        return None


def _first(tags: Json, default: str) -> str:
    return next((tag for tag in as_list(tags) if isinstance(tag, str)), default)


def sentences_to_read(
    texts: Sequence[str], *, max_chars: int, passage: str | None, query: str
) -> list[tuple[int, int, int]]:
    """Sentences of a field's values, as number of the value, start and end: all of them, or, of a long text, those of
    `passage`, the best one of its document; else those that have the most words of the query. In their order.
    """
    found = [(n, start, end) for n, text in enumerate(texts) for start, end in sentences(text, max_chars)]
    if len(found) > MAX_SENTENCES and passage is not None:
        found = [each for each in found if texts[each[0]][each[1] : each[2]] in passage] or found
    if len(found) > MAX_SENTENCES:
        words = set(_WORD.findall(query.casefold()))
        shares = [_in_common(words, texts[n][start:end]) for n, start, end in found]
        best = sorted(range(len(found)), key=lambda at: -shares[at])[:MAX_SENTENCES]
        found = [found[at] for at in sorted(best)]
    return found


def scores_by_words(query: str, sentences: Sequence[str]) -> list[float]:
    """What each sentence's words in common with the query are worth: the sum of their inverse frequencies among these
    sentences, in their order."""
    words = set(_WORD.findall(query.casefold()))
    shared = [words.intersection(_WORD.findall(sentence.casefold())) for sentence in sentences]
    having = Counter(word for each in shared for word in each)
    return [sum(math.log(1 + len(sentences) / having[word]) for word in sorted(each)) for each in shared]


def _in_common(words: Collection[str], sentence: str) -> int:
    return len(set(_WORD.findall(sentence.casefold())).intersection(words))
