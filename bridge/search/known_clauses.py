"""The clauses of the query language that the bridge knows, with every parameter of them.

Tables and small readers: what a clause is called, which words it searches for, and in which fields.
`text_clause` walks a query with them.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.search.json_tree import Json
from bridge.search.wildcards import MAX_NAME_LENGTH, MAX_NAMES, beginning_matches, matches


class NotUnderstood(Exception):
    """The query is left alone; `reason` is one word of a bounded set, for headers and metrics."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Words:
    """A clause that searches text: the words, the names or patterns of its fields (none: the index's
    default, which is every text field), and whether the words hold operators of the clause's own syntax."""

    text: str
    fields: Sequence[str] = ()
    has_operators: bool = False


COMMON = {"boost", "_name"}
_ANALYSED = COMMON | {
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
PHRASES = ("match_phrase", "match_phrase_prefix")
_MANY_FIELDS = {
    "multi_match": _ANALYSED | {"fields", "type", "tie_breaker"},
    "combined_fields": COMMON
    | {"query", "fields", "operator", "minimum_should_match", "zero_terms_query"}
    | {"auto_generate_synonyms_phrase_query"},
}
_SYNTAX = COMMON | {
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
    "fuzzy_rewrite",
    "fuzzy_transpositions",
    "lenient",
    "max_determinized_states",
    "minimum_should_match",
    "phrase_slop",
    "query",
    "quote_analyzer",
    "quote_field_suffix",
    "rewrite",
    "tie_breaker",
    "time_zone",
    "type",
}
BOOL = COMMON | {"must", "should", "filter", "must_not", "minimum_should_match", "adjust_pure_negative"}
FUNCTION_SCORE = COMMON | {
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
NESTED = COMMON | {"path", "query", "score_mode", "ignore_unmapped", "inner_hits"}

LEFT_ALONE = frozenset(
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
"""Names that may appear as a reason; any other clause is an `unknown_clause`, so that reasons stay few."""

NEURAL = ("hybrid", "knn", "neural", "neural_sparse")
"""An application that has one of these anywhere has its own neural search."""

_OPERATORS = {
    "query_string": re.compile(r'[+=&|><!(){}\[\]^"~*?:\\/]|(?:^|\s)-|(?:^|\s)(?:AND|OR|NOT|TO)(?:\s|$)'),
    "simple_query_string": re.compile(r'[+|"*()~\\]|(?:^|\s)-'),
}
"""What makes these clauses more than words (a hyphen inside a word does not)."""


def words_of(kind: str, body: Json) -> Words | None:
    """The words of a clause that searches text, None where it is another kind of clause or its value is
    a number or the like."""
    if kind in _ONE_FIELD or kind in PHRASES:
        name, value = only_member(body)
        refuse_many([name])
        if isinstance(value, dict):
            check(value, _ANALYSED)
            value = value.get("query")
        return Words(value, [name]) if isinstance(value, str) else None
    if kind in _MANY_FIELDS:
        check(body, _MANY_FIELDS[kind])
        text = body.get("query")
        return Words(text, _field_names(body.get("fields"))) if isinstance(text, str) else None
    if (operators := _OPERATORS.get(kind)) is not None:
        check(body, _SYNTAX)
        text = body.get("query")
        if not isinstance(text, str):
            return None
        names = [*_field_names(body.get("fields")), *_field_names(body.get("default_field"))]
        return Words(text, names, operators.search(text) is not None)
    return None


def is_random(function_score: Mapping[str, Json]) -> bool:
    """Whether a `function_score` draws lots."""
    return any(isinstance(each, dict) and "random_score" in each for each in as_list(function_score.get("functions")))


def searches(words: Words, text_fields: Sequence[str]) -> bool:
    """Whether one of the clause's fields is an enriched one, a sub-field of one, or a pattern for one."""
    if not words.fields:
        return True
    names = {name.partition("^")[0] for name in words.fields}
    return any(_may_name(name, text_field) for name in names for text_field in text_fields)


def _may_name(pattern: str, text_field: str) -> bool:
    """Whether a field name or pattern stands for the text field, or for any sub-field that it may have."""
    # A sub-field's own name can be anything: some beginning of the pattern has to match all before it.
    return matches(pattern, text_field) or beginning_matches(pattern, f"{text_field}.")


def mentions(tree: Json, key: str) -> bool:
    """Whether the key stands anywhere in the tree."""
    if isinstance(tree, dict):
        return key in tree or any(mentions(value, key) for value in tree.values())
    return isinstance(tree, list) and any(mentions(each, key) for each in tree)


def only_member(clause: Json) -> tuple[str, Any]:
    """Name and body of a clause.

    Raises:
        NotUnderstood: it is no object of one member.
    """
    if not isinstance(clause, dict) or len(clause) != 1:
        raise NotUnderstood("malformed")
    return next(iter(clause.items()))


def check(body: Json, known: set[str]) -> None:
    """Checks that a clause's body is an object with no other members than the known ones.

    Raises:
        NotUnderstood: it is not.
    """
    if not isinstance(body, dict):
        raise NotUnderstood("malformed")
    if body.keys() - known:
        raise NotUnderstood("unknown_parameter")


def as_list(clauses: Json) -> list[Json]:
    """Clauses as a list, also where there is one, outside an array, or none."""
    if clauses is None:
        return []
    return clauses if isinstance(clauses, list) else [clauses]


def _field_names(names: Json) -> list[str]:
    named = as_list(names)
    if not all(isinstance(name, str) for name in named):
        raise NotUnderstood("malformed")
    refuse_many(named)
    return named


def refuse_many(names: Collection[str]) -> None:
    """Bounds the work that the names of a request can make.

    Raises:
        NotUnderstood: they are too many, or one is too long.
    """
    if len(names) > MAX_NAMES or any(len(name) > MAX_NAME_LENGTH for name in names):
        raise NotUnderstood("too_many_names")
