"""Where in an application's query the user's words stand, and which conditions surround them.

A query is understood only if every clause on the way to the words is known, with every parameter of it: first come
tables and small readers of clauses, then the walk through a query.
Conditions beside the words (filters, exclusions, required clauses that search no enriched text) are not
looked into: they are carried to every leg as they are.
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

_NEURAL = ("hybrid", "knn", "neural", "neural_sparse")
"""An application that has one of these anywhere has its own neural search."""

_OPERATORS = {
    "query_string": re.compile(r'[+=&|><!(){}\[\]^"~*?:\\/]|(?:^|\s)-|(?:^|\s)(?:AND|OR|NOT|TO)(?:\s|$)'),
    "simple_query_string": re.compile(r'[+|"*()~\\]|(?:^|\s)-'),
}
"""What makes these clauses more than words (a hyphen inside a word does not)."""


def words_of(kind: str, body: Json) -> Words | None:
    """The words of a clause that searches text, None if it is another kind of clause or its value is
    a number or the like."""
    if kind in _ONE_FIELD or kind in _PHRASES:
        name, value = only_member(body)
        refuse_many([name])
        if isinstance(value, dict):
            _check(value, _ANALYSED)
            value = value.get("query")
        return Words(value, [name]) if isinstance(value, str) else None
    if kind in _MANY_FIELDS:
        _check(body, _MANY_FIELDS[kind])
        text = body.get("query")
        return Words(text, _field_names(body.get("fields"))) if isinstance(text, str) else None
    if (operators := _OPERATORS.get(kind)) is not None:
        _check(body, _SYNTAX)
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


def _check(body: Json, known: set[str]) -> None:
    """Checks that a clause's body is an object with no other members than the known ones.

    Raises:
        NotUnderstood: it is not.
    """
    if not isinstance(body, dict):
        raise NotUnderstood("malformed")
    if body.keys() - known:
        raise NotUnderstood("unknown_parameter")


def as_list(clauses: Json) -> list[Json]:
    """Clauses as a list, even if there is only one, outside an array, or none."""
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


Path = tuple[str | int, ...]
"""The way to a clause: keys of objects and positions in arrays."""


@dataclass(frozen=True, slots=True)
class TextClause:
    """The user's words and their place.

    `path` leads to the smallest clause that holds all of the words; another clause may be set beside it
    as an alternative. `required` and `excluded` are the conditions that a document must meet, or must
    not, whatever finds it. `inside` are those of `required` that stand inside the clause at `path`: they do
    not hold for what is set beside it.
    """

    text: str
    path: Path
    required: Sequence[Json] = ()
    excluded: Sequence[Json] = ()
    inside: Sequence[Json] = ()


def find_text(query: Json, text_fields: Sequence[str]) -> TextClause:
    """Finds the user's words in a query; `text_fields` are the enriched fields of the index.

    Raises:
        NotUnderstood: the query holds no words for these fields, or a clause that is not known.
    """
    for clause in _NEURAL:
        if mentions(query, clause):
            raise NotUnderstood(clause)
    return _find(query, (), _Fields(text_fields))


class _Fields:
    """The enriched fields of an index. A clause is looked through once, however many clauses lie around it."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        # By identity: the query outlives this.
        self._known: dict[int, bool] = {}

    def searched_in(self, clause: Json) -> bool:
        """Whether the user's words may stand in this clause: then it is no mere condition."""
        if (known := self._known.get(id(clause))) is None:
            self._known[id(clause)] = known = self._looked_through(clause)
        return known

    def _looked_through(self, clause: Json) -> bool:
        kind, body = only_member(clause)
        if (words := words_of(kind, body)) is not None:
            return searches(words, self.names)
        if not isinstance(body, dict):
            return False
        match kind:
            case "bool":
                inner = [*as_list(body.get("must")), *as_list(body.get("should"))]
            case "dis_max":
                inner = as_list(body.get("queries"))
            case "constant_score":
                inner = as_list(body.get("filter"))
            case "boosting":
                inner = as_list(body.get("positive"))
            case "function_score" | "nested":
                inner = as_list(body.get("query"))
            case _:
                return False
        return any(self.searched_in(each) for each in inner)


def _find(clause: Json, path: Path, fields: _Fields) -> TextClause:
    kind, body = only_member(clause)
    if (words := words_of(kind, body)) is not None:
        if kind in _PHRASES:
            raise NotUnderstood("phrase")
        if not searches(words, fields.names):
            raise NotUnderstood("other_fields")
        if words.has_operators:
            raise NotUnderstood("query_syntax")
        return TextClause(words.text, path)
    if not isinstance(body, dict):
        raise NotUnderstood("malformed")
    match kind:
        case "bool":
            return _in_bool(body, (*path, "bool"), fields)
        case "dis_max":
            _check(body, _COMMON | {"queries", "tie_breaker"})
            text, inside = _alternatives(as_list(body.get("queries")), fields)
            return TextClause(text, path, required=inside, inside=inside)
        case "constant_score":
            _check(body, _COMMON | {"filter"})
            return _find(body.get("filter"), (*path, kind, "filter"), fields)
        case "boosting":
            _check(body, _COMMON | {"positive", "negative", "negative_boost"})
            return _find(body.get("positive"), (*path, kind, "positive"), fields)
        case "function_score":
            _check(body, _FUNCTION_SCORE)
            if body.get("boost_mode") == "replace" or is_random(body):
                # Then the functions decide the order, and words play no part in it.
                raise NotUnderstood("function_score")
            return _find(body.get("query"), (*path, kind, "query"), fields)
        case "nested":
            _check(body, _NESTED)
            inner = _find(body.get("query"), (), fields)
            if inner.required or inner.excluded:
                raise NotUnderstood("nested_filter")
            # Our fields are not inside the nested object: the alternative goes beside the whole clause.
            return TextClause(inner.text, path)
    raise NotUnderstood(kind if kind in LEFT_ALONE else "unknown_clause")


def _in_bool(body: Mapping[str, Json], path: Path, fields: _Fields) -> TextClause:
    _check(body, _BOOL)
    must = as_list(body.get("must"))
    required = as_list(body.get("filter"))
    excluded = as_list(body.get("must_not"))
    texts = [i for i, clause in enumerate(must) if fields.searched_in(clause)]
    if len(texts) > 1:
        raise NotUnderstood("several_texts")
    if texts:
        position = texts[0]
        inner_path: Path = (*path, "must", position) if isinstance(body["must"], list) else (*path, "must")
        inner = _find(must[position], inner_path, fields)
        beside = [*must[:position], *must[position + 1 :], *_minimum(body)]
        return TextClause(
            inner.text,
            inner.path,
            required=(*required, *beside, *inner.required),
            excluded=(*excluded, *inner.excluded),
            inside=inner.inside,
        )
    should = as_list(body.get("should"))
    if not any(fields.searched_in(clause) for clause in should):
        raise NotUnderstood("no_text")
    # The alternatives together are one clause: `should` itself is the place.
    text, inside = _alternatives([clause for clause in should if fields.searched_in(clause)], fields)
    return TextClause(
        text, (*path, "should"), required=(*required, *must, *inside), excluded=tuple(excluded), inside=inside
    )


def _minimum(body: Mapping[str, Json]) -> list[Json]:
    """The condition that some of the optional clauses beside required words must hold; empty if there is none."""
    minimum = body.get("minimum_should_match", 0)
    if minimum in (0, "0"):
        return []
    if not as_list(body.get("should")):
        raise NotUnderstood("minimum_should_match")
    return [{"bool": {"should": body["should"], "minimum_should_match": minimum}}]


def _alternatives(clauses: Sequence[Json], fields: _Fields) -> tuple[str, tuple[Json, ...]]:
    """The text that all of the clauses search for, some of them perhaps as a phrase, and the condition that
    their own conditions come to: one of them has to let a document in.

    Raises:
        NotUnderstood: different texts, or only phrases.
    """
    texts = set()
    exact = set()
    conditions: list[Json] = []
    for clause in clauses:
        kind, body = only_member(clause)
        if kind in _PHRASES and (words := words_of(kind, body)) is not None:
            exact.add(words.text)
            conditions.append({})
            continue
        found = _find(clause, (), fields)
        texts.add(found.text)
        given = {"filter": list(found.required), "must_not": list(found.excluded)}
        conditions.append({name: demands for name, demands in given.items() if demands})
    if not texts:
        raise NotUnderstood("phrase" if exact else "no_text")
    if len(texts | exact) > 1:
        raise NotUnderstood("several_texts")
    if not all(conditions):
        return texts.pop(), ()
    either: Json = {"bool": {"should": [{"bool": each} for each in conditions], "minimum_should_match": 1}}
    return texts.pop(), (either,)
