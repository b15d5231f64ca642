"""What a user may want to ask, while he types: the predicted queries of documents, each of which answers its own."""

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from bridge.profile import IndexProfile
from bridge.records import Key
from bridge.search.json_tree import Json
from bridge.search.response import ShownHit
from bridge.text import decode_answer

MAX_TYPED_CHARS = 200

_DOCUMENTS = 50
"""Whose predicted queries are looked at."""
_STEM_LETTERS = 3
"""Analysers may cut so many letters off a word that is not yet finished, such as `happin`."""
_WITHIN = 20
"""Words between those typed; far fewer than the cluster puts between two values of a field."""

_WORD = re.compile(r"\w+")


class Suggestion(msgspec.Struct):
    """A predicted query, and the document that answers it."""

    text: str
    index: str
    doc_id: str


def suggesting(profile: IndexProfile, typed: str) -> Json:
    """The documents with predicted queries that hold what was typed, the last word of it perhaps unfinished."""
    name = profile.predicted_queries_field
    begun = {"match_bool_prefix": {name: {"query": typed, "operator": "and", "boost": 2}}}
    shorter = {"match_bool_prefix": {name: {"query": _shortened(typed), "operator": "and"}}}
    together = {"match_phrase_prefix": {name: {"query": typed, "slop": _WITHIN}}}
    return {
        "size": _DOCUMENTS,
        "track_total_hits": False,
        "_source": {"includes": [name]},
        "docvalue_fields": [profile.stamp_field],
        "query": {"bool": {"must": [{"dis_max": {"queries": [begun, shorter]}}], "should": [together]}},
    }


def _shortened(typed: str) -> str:
    """What was typed without the last letters of its last word."""
    words = list(_WORD.finditer(typed))
    if not words:
        return typed
    return typed[: max(words[-1].end() - _STEM_LETTERS, words[-1].start() + _STEM_LETTERS)]


def predicted_queries(hit: ShownHit, profile: IndexProfile) -> list[str]:
    """The predicted queries that came with a document; empty if the caller may not see them."""
    try:
        value: object = decode_answer(bytes(hit.members.get("_source", b"{}")), object)
    except msgspec.DecodeError:
        return []
    for name in profile.predicted_queries_field.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return [query for query in value if isinstance(query, str)] if isinstance(value, list) else []


def suggestions(typed: str, queries_of: Mapping[Key, Sequence[str]], *, size: int) -> list[Suggestion]:
    """The first `size` of the predicted queries in which each word that was typed begins a word. Each once, whatever
    its case and punctuation, with the first document that has it.

    Best first: what begins as typed, what holds it as typed, and then the others; among those that are alike what more
    documents have, then what an earlier document has, and the shorter one. `queries_of` is in the documents' order.
    """
    words = _words(typed)
    found: dict[str, tuple[int, int, Suggestion]] = {}
    for place, ((index, doc_id), queries) in enumerate(queries_of.items() if words else ()):
        for query in _once(queries):
            of_query = _words(query)
            if all(any(each.startswith(word) for each in of_query) for word in words):
                plain = " ".join(of_query)
                n_documents, first, suggestion = found.get(plain, (0, place, Suggestion(query, index, doc_id)))
                found[plain] = n_documents + 1, first, suggestion

    def order(plain: str) -> tuple[bool, bool, int, int, int]:
        n_documents, first, _ = found[plain]
        as_typed = " ".join(words)
        return not plain.startswith(as_typed), f" {as_typed}" not in plain, -n_documents, first, len(plain)

    return [found[plain][2] for plain in sorted(found, key=order)[:size]]


def _once(queries: Iterable[str]) -> list[str]:
    return list({" ".join(_words(query)): query for query in reversed(list(queries))}.values())[::-1]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
