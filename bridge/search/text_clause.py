"""Where in an application's query the user's words stand, and which conditions surround them.

A query is understood only if every clause on the way to the words is known, with every parameter of it.
Conditions beside the words (filters, exclusions, required clauses that search no enriched text) are not
looked into: they are carried to every leg as they are.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bridge.search.json_tree import Json

Path = tuple[str | int, ...]
"""The way to a clause: keys of objects and positions in arrays."""


class NotUnderstood(Exception):
    """The query is left alone; `reason` is one word of a bounded set, for headers and metrics."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class TextClause:
    """The user's words and their place.

    `path` leads to the smallest clause that holds all of the words; another clause may be set beside it
    as an alternative. `required` and `excluded` are the conditions that a document must meet, or must
    not, whatever finds it.
    """

    text: str
    path: Path
    required: Sequence[Json] = ()
    excluded: Sequence[Json] = ()


@dataclass(frozen=True, slots=True)
class _Words:
    """A clause that searches text: the words, the names or patterns of its fields (none: the index's
    default, which is every text field)."""

    text: str
    fields: Sequence[str] = field(default_factory=tuple)


_COMMON = {"boost", "_name"}
_ANALYSED = _COMMON | {
    "analyzer",
    "auto_generate_synonyms_phrase_query",
    "cutoff_frequency",
    "fuzziness",
    "fuzzy_rewrite",
    "fuzzy_transpositions",
    "lenient",
    "max_expansions",
    "minimum_should_match",
    "operator",
    "prefix_length",
    "query",
    "slop",
    "zero_terms_query",
}
_ONE_FIELD = ("match", "match_bool_prefix")
_PHRASES = ("match_phrase", "match_phrase_prefix")
_MANY_FIELDS = {
    "multi_match": _ANALYSED | {"fields", "type", "tie_breaker"},
    "combined_fields": _COMMON
    | {"query", "fields", "operator", "minimum_should_match", "zero_terms_query"}
    | {"auto_generate_synonyms_phrase_query"},
}
_SYNTAX = _COMMON | {
    "allow_leading_wildcard",
    "analyze_wildcard",
    "analyzer",
    "auto_generate_synonyms_phrase_query",
    "default_field",
    "default_operator",
    "enable_position_increments",
    "escape",
    "fields",
    "flags",
    "fuzziness",
    "fuzzy_max_expansions",
    "fuzzy_prefix_length",
    "fuzzy_transpositions",
    "lenient",
    "minimum_should_match",
    "phrase_slop",
    "query",
    "quote_field_suffix",
    "tie_breaker",
    "type",
}
_QUERY_STRINGS = ("query_string", "simple_query_string")
_BOOL = _COMMON | {"must", "should", "filter", "must_not", "minimum_should_match", "adjust_pure_negative"}
_FUNCTION_SCORE = _COMMON | {
    "query",
    "functions",
    "score_mode",
    "boost_mode",
    "max_boost",
    "weight",
    "field_value_factor",
    "gauss",
    "exp",
    "linear",
    "script_score",
}
_NESTED = _COMMON | {"path", "query", "score_mode", "ignore_unmapped", "inner_hits"}

_CLAUSES_LEFT_ALONE = frozenset(
    {
        "exists",
        "fuzzy",
        "hybrid",
        "ids",
        "intervals",
        "knn",
        "match",
        "match_all",
        "match_none",
        "more_like_this",
        "multi_match",
        "neural",
        "neural_sparse",
        "percolate",
        "prefix",
        "query_string",
        "range",
        "regexp",
        "script_score",
        "simple_query_string",
        "span_near",
        "term",
        "terms",
        "wildcard",
    }
)
"""Names that may appear as a reason; any other clause is called `clause`, so that reasons stay few."""

_NEURAL = ("hybrid", "knn", "neural", "neural_sparse")
"""An application that has one of these anywhere has its own neural search."""

_OPERATORS = re.compile(r'[+=&|><!(){}\[\]^"~*?:\\/]|(?:^|\s)-|(?:^|\s)(?:AND|OR|NOT|TO)(?:\s|$)')
"""What makes `query_string` more than words (a hyphen inside a word does not)."""


def find_text(query: Json, text_fields: Sequence[str]) -> TextClause:
    """Finds the user's words in a query; `text_fields` are the enriched fields of the index.

    Raises:
        NotUnderstood: the query holds no words for these fields, or a clause that is not known.
    """
    for clause in _NEURAL:
        if _mentions(query, clause):
            raise NotUnderstood(clause)
    return _find(query, (), text_fields)


def _find(clause: Json, path: Path, text_fields: Sequence[str]) -> TextClause:
    kind, body = _only_member(clause)
    if (words := _words(kind, body)) is not None:
        if kind in _PHRASES:
            raise NotUnderstood("phrase")
        if not _searches(words, text_fields):
            raise NotUnderstood("other_fields")
        return TextClause(words.text, path)
    if not isinstance(body, dict):
        raise NotUnderstood("malformed")
    match kind:
        case "bool":
            return _in_bool(body, (*path, "bool"), text_fields)
        case "dis_max":
            _check(body, _COMMON | {"queries", "tie_breaker"})
            return TextClause(_same_text(_list(body.get("queries")), text_fields), path)
        case "constant_score":
            _check(body, _COMMON | {"filter"})
            return _find(body.get("filter"), (*path, kind, "filter"), text_fields)
        case "boosting":
            _check(body, _COMMON | {"positive", "negative", "negative_boost"})
            return _find(body.get("positive"), (*path, kind, "positive"), text_fields)
        case "function_score":
            _check(body, _FUNCTION_SCORE)
            if body.get("boost_mode") == "replace" or _is_random(body):
                # Then the functions decide the order, and words play no part in it.
                raise NotUnderstood("function_score")
            return _find(body.get("query"), (*path, kind, "query"), text_fields)
        case "nested":
            _check(body, _NESTED)
            inner = _find(body.get("query"), (), text_fields)
            if inner.required or inner.excluded:
                raise NotUnderstood("nested_filter")
            # Our fields are not inside the nested object: the alternative goes beside the whole clause.
            return TextClause(inner.text, path)
    raise NotUnderstood(kind if kind in _CLAUSES_LEFT_ALONE else "clause")


def _in_bool(body: Mapping[str, Json], path: Path, text_fields: Sequence[str]) -> TextClause:
    _check(body, _BOOL)
    must = _list(body.get("must"))
    required = _list(body.get("filter"))
    excluded = _list(body.get("must_not"))
    texts = [i for i, clause in enumerate(must) if _holds_text(clause, text_fields)]
    if len(texts) > 1:
        raise NotUnderstood("several_texts")
    if texts:
        if "minimum_should_match" in body:
            raise NotUnderstood("minimum_should_match")
        position = texts[0]
        inner_path: Path = (*path, "must", position) if isinstance(body["must"], list) else (*path, "must")
        inner = _find(must[position], inner_path, text_fields)
        return TextClause(
            inner.text,
            inner.path,
            required=(*required, *must[:position], *must[position + 1 :], *inner.required),
            excluded=(*excluded, *inner.excluded),
        )
    should = _list(body.get("should"))
    if not any(_holds_text(clause, text_fields) for clause in should):
        raise NotUnderstood("no_text")
    # The alternatives together are one clause: `should` itself is the place.
    text = _same_text([clause for clause in should if _holds_text(clause, text_fields)], text_fields)
    return TextClause(text, (*path, "should"), required=(*required, *must), excluded=tuple(excluded))


def _same_text(clauses: Sequence[Json], text_fields: Sequence[str]) -> str:
    """The text that all of the clauses search for, some of them perhaps as a phrase.

    Raises:
        NotUnderstood: different texts, only phrases, or a clause that holds more than text.
    """
    texts = set()
    exact = set()
    for clause in clauses:
        kind, body = _only_member(clause)
        if kind in _PHRASES and (words := _words(kind, body)) is not None:
            exact.add(words.text)
            continue
        found = _find(clause, (), text_fields)
        if found.required or found.excluded:
            raise NotUnderstood("several_texts")
        texts.add(found.text)
    if not texts:
        raise NotUnderstood("phrase" if exact else "no_text")
    if len(texts | exact) > 1:
        raise NotUnderstood("several_texts")
    return texts.pop()


def _holds_text(clause: Json, text_fields: Sequence[str]) -> bool:
    """Whether the user's words may stand in this clause: then it is no mere condition."""
    kind, body = _only_member(clause)
    if (words := _words(kind, body)) is not None:
        return _searches(words, text_fields)
    if not isinstance(body, dict):
        return False
    match kind:
        case "bool":
            inner = [*_list(body.get("must")), *_list(body.get("should"))]
        case "dis_max":
            inner = _list(body.get("queries"))
        case "constant_score":
            inner = _list(body.get("filter"))
        case "boosting":
            inner = _list(body.get("positive"))
        case "function_score" | "nested":
            inner = _list(body.get("query"))
        case _:
            return False
    return any(_holds_text(each, text_fields) for each in inner)


def _words(kind: str, body: Json) -> _Words | None:
    """The words of a clause that searches text, None where it is another kind of clause or its value is
    a number or the like."""
    if kind in _ONE_FIELD or kind in _PHRASES:
        name, value = _only_member(body)
        if isinstance(value, dict):
            _check(value, _ANALYSED)
            value = value.get("query")
        return _Words(value, [name]) if isinstance(value, str) else None
    if kind in _MANY_FIELDS:
        _check(body, _MANY_FIELDS[kind])
        text = body.get("query")
        return _Words(text, _field_names(body.get("fields"))) if isinstance(text, str) else None
    if kind in _QUERY_STRINGS:
        _check(body, _SYNTAX)
        text = body.get("query")
        if not isinstance(text, str):
            return None
        if _OPERATORS.search(text):
            raise NotUnderstood("query_syntax")
        return _Words(text, [*_field_names(body.get("fields")), *_field_names(body.get("default_field"))])
    return None


def _is_random(function_score: Mapping[str, Json]) -> bool:
    return any(isinstance(each, dict) and "random_score" in each for each in _list(function_score.get("functions")))


def _searches(words: _Words, text_fields: Sequence[str]) -> bool:
    """Whether one of the clause's fields is an enriched one, a sub-field of one, or a pattern for one."""
    if not words.fields:
        return True
    return any(
        re.fullmatch(re.escape(name).replace(r"\*", ".*"), text_field) or name.startswith(f"{text_field}.")
        for name in (field_name.partition("^")[0] for field_name in words.fields)
        for text_field in text_fields
    )


def _mentions(tree: Json, key: str) -> bool:
    if isinstance(tree, dict):
        return key in tree or any(_mentions(value, key) for value in tree.values())
    return isinstance(tree, list) and any(_mentions(each, key) for each in tree)


def _only_member(clause: Json) -> tuple[str, Any]:
    if not isinstance(clause, dict) or len(clause) != 1:
        raise NotUnderstood("malformed")
    return next(iter(clause.items()))


def _check(body: Json, known: set[str]) -> None:
    if not isinstance(body, dict):
        raise NotUnderstood("malformed")
    if body.keys() - known:
        raise NotUnderstood("parameter")


def _list(clauses: Json) -> list[Json]:
    if clauses is None:
        return []
    return clauses if isinstance(clauses, list) else [clauses]


def _field_names(names: Json) -> list[str]:
    named = _list(names)
    if not all(isinstance(name, str) for name in named):
        raise NotUnderstood("malformed")
    return named
