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
from bridge.search.wildcards import MAX_COMPARISONS, MAX_NAME_LENGTH, MAX_NAMES, beginning_matches, matches


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
_FUNCTIONS = ("functions", "field_value_factor", "gauss", "exp", "linear", "script_score")
_SCORED_BY_FIELDS = ("function_score", "script_score", "rank_feature", "distance_feature", "boosting")
"""What ranks documents where it is required, too; a condition lets them in or not."""
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


_HOLD_WORDS = {
    "bool": ("must", "should"),
    "boosting": ("positive",),
    "constant_score": ("filter",),
    "dis_max": ("queries",),
    "function_score": ("query",),
    "nested": ("query",),
}
"""The members of clauses in which `find_text` looks for words."""

_TOLERANT = ("fuzziness", "fuzzy_max_expansions", "fuzzy_prefix_length", "fuzzy_rewrite", "fuzzy_transpositions")


def with_text(clause: Json, text: str, other: str, *, exact: bool = False) -> Json:
    """The clause with `other` wherever it searches for `text`, and without inner hits, which an answer has once;
    `exact` also takes out what tolerates misspelt words. The original is not changed."""
    kind, body = only_member(clause)
    words = words_of(kind, body)
    if words is not None:
        if words.text != text:
            return clause
        if kind not in _ONE_FIELD and kind not in _PHRASES:
            return {kind: _other_words(body, other, exact)}
        name, value = only_member(body)
        return {kind: {name: _other_words(value, other, exact) if isinstance(value, dict) else other}}
    if kind not in _HOLD_WORDS or not isinstance(body, dict):
        return clause
    rewritten = {
        member: [with_text(each, text, other, exact=exact) for each in as_list(body[member])]
        if isinstance(body[member], list)
        else with_text(body[member], text, other, exact=exact)
        for member in _HOLD_WORDS[kind]
        if member in body
    }
    return {kind: {name: value for name, value in body.items() if name != "inner_hits"} | rewritten}


def _other_words(body: Mapping[str, Json], other: str, exact: bool) -> Json:
    left = {name: value for name, value in body.items() if not (exact and name in _TOLERANT)}
    return left | {"query": other}


def is_random(function_score: Mapping[str, Json]) -> bool:
    """Whether a `function_score` draws lots."""
    return any(isinstance(each, dict) and "random_score" in each for each in as_list(function_score.get("functions")))


def _may_name(pattern: str, text_field: str) -> bool:
    """Whether a field name or pattern stands for the text field, or for any sub-field that it may have."""
    # A sub-field's own name can be anything: some beginning of the pattern has to match all before it.
    return matches(pattern, text_field) or beginning_matches(pattern, f"{text_field}.")


def mentioned(tree: Json, keys: Collection[str]) -> set[str]:
    """Which of the keys stand anywhere in the tree.

    Raises:
        NotUnderstood: it is nested too deeply.
    """
    present = set[str]()
    level = [tree]
    for _ in range(_MAX_DEPTH):
        inner: list[Json] = []
        for value in level:
            if isinstance(value, dict):
                present.update(value.keys() & keys)
                inner.extend(value.values())
            elif isinstance(value, list):
                inner.extend(value)
        if not inner:
            return present
        level = inner
    raise NotUnderstood("too_deep")


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


_MAX_DEPTH = 450
"""Objects and arrays inside each other in a query: 150 clauses. Python follows about twice as many."""

Path = tuple[str | int, ...]
"""The way to a clause: keys of objects and positions in arrays."""


@dataclass(frozen=True, slots=True)
class TextClause:
    """The user's words and their place.

    `path` leads to the smallest clause that holds all of the words; another clause may be set beside it
    as an alternative. `required` and `excluded` are the conditions that a document must meet, or must
    not, whatever finds it. `inside` are those of `required` that stand inside the clause at `path`: they do
    not hold for what is set beside it. `boosted`: something beside the words ranks documents: functions or boosts.
    """

    text: str
    path: Path
    required: Sequence[Json] = ()
    excluded: Sequence[Json] = ()
    inside: Sequence[Json] = ()
    boosted: bool = False


def find_text(query: Json, text_fields: Sequence[str]) -> TextClause:
    """Finds the user's words in a query; `text_fields` are the enriched fields of the index.

    Raises:
        NotUnderstood: the query holds no words for these fields, or a clause that is not known.
    """
    if neural := mentioned(query, frozenset(_NEURAL)):
        raise NotUnderstood(min(neural))
    return _text_clause(query, Fields(text_fields))


class Fields:
    """The enriched fields of an index. A clause is looked through once, however many clauses lie around it, a name is
    compared once, and only so many are."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._n_compared = 0
        self._named: dict[str, bool] = {}
        # By identity: the query outlives this.
        self._known: dict[int, bool] = {}

    def searched_by(self, words: Words) -> bool:
        """Whether one of the words' fields is an enriched one, a sub-field of one, or a pattern for one.

        Raises:
            NotUnderstood: the whole query names too many.
        """
        return not words.fields or any(self._has(name.partition("^")[0]) for name in words.fields)

    def _has(self, name: str) -> bool:
        if (known := self._named.get(name)) is None:
            self._n_compared += len(self._names)
            if self._n_compared > MAX_COMPARISONS:
                raise NotUnderstood("too_many_names")
            self._named[name] = known = any(_may_name(name, each) for each in self._names)
        return known

    def searched_in(self, clause: Json) -> bool:
        """Whether the user's words may stand in this clause: then it is no mere condition."""
        if (known := self._known.get(id(clause))) is None:
            self._known[id(clause)] = known = self._looked_through(clause)
        return known

    def _looked_through(self, clause: Json) -> bool:
        kind, body = only_member(clause)
        if (words := words_of(kind, body)) is not None:
            return self.searched_by(words)
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


class _Place:
    """The way to the user's words while it is gone, and the conditions along it. Nothing of it is copied on the way."""

    def __init__(self) -> None:
        self.path: list[str | int] = []
        self.required: list[Json] = []
        self.excluded: list[Json] = []
        self.inside: Sequence[Json] = ()
        self.boosted = False


def _text_clause(clause: Json, fields: Fields) -> TextClause:
    place = _Place()
    text = _find(clause, place, fields)
    path, required, excluded = tuple(place.path), tuple(place.required), tuple(place.excluded)
    return TextClause(text, path, required, excluded, place.inside, place.boosted)


def _find(clause: Json, place: _Place, fields: Fields) -> str:
    """The user's words; `place` is led on to their clause."""
    kind, body = only_member(clause)
    if (words := words_of(kind, body)) is not None:
        if kind in _PHRASES:
            raise NotUnderstood("phrase")
        if not fields.searched_by(words):
            raise NotUnderstood("other_fields")
        if words.has_operators:
            raise NotUnderstood("query_syntax")
        return words.text
    if not isinstance(body, dict):
        raise NotUnderstood("malformed")
    match kind:
        case "bool":
            place.path.append(kind)
            return _in_bool(body, place, fields)
        case "dis_max":
            _check(body, _COMMON | {"queries", "tie_breaker"})
            text, place.inside = _alternatives(as_list(body.get("queries")), fields)
            place.required.extend(place.inside)
            return text
        case "constant_score":
            _check(body, _COMMON | {"filter"})
            return _find_in(body, kind, "filter", place, fields)
        case "boosting":
            _check(body, _COMMON | {"positive", "negative", "negative_boost"})
            place.boosted = True
            return _find_in(body, kind, "positive", place, fields)
        case "function_score":
            _check(body, _FUNCTION_SCORE)
            if body.get("boost_mode") == "replace" or is_random(body):
                # Then the functions decide the order, and words play no part in it.
                raise NotUnderstood("function_score")
            place.boosted |= any(name in body for name in _FUNCTIONS)
            return _find_in(body, kind, "query", place, fields)
        case "nested":
            _check(body, _NESTED)
            inner = _text_clause(body.get("query"), fields)
            if inner.required or inner.excluded:
                raise NotUnderstood("nested_filter")
            # Our fields are not inside the nested object: the alternative goes beside the whole clause.
            return inner.text
    raise NotUnderstood(kind if kind in LEFT_ALONE else "unknown_clause")


def _find_in(body: Mapping[str, Json], kind: str, member: str, place: _Place, fields: Fields) -> str:
    place.path += (kind, member)
    return _find(body.get(member), place, fields)


def _in_bool(body: Mapping[str, Json], place: _Place, fields: Fields) -> str:
    _check(body, _BOOL)
    must = as_list(body.get("must"))
    place.required.extend(as_list(body.get("filter")))
    place.excluded.extend(as_list(body.get("must_not")))
    texts = [i for i, clause in enumerate(must) if fields.searched_in(clause)]
    if len(texts) > 1:
        raise NotUnderstood("several_texts")
    optional = as_list(body.get("should"))
    should = [clause for clause in optional if fields.searched_in(clause)]
    others = [clause for clause in must if not fields.searched_in(clause)]
    ranks = any(kind in clause for clause in others for kind in _SCORED_BY_FIELDS)
    place.boosted |= ranks or len(should) < len(optional)
    if texts:
        position = texts[0]
        place.path += ("must", position) if isinstance(body["must"], list) else ("must",)
        place.required += (*must[:position], *must[position + 1 :], *_minimum(body))
        return _find(must[position], place, fields)
    if not should:
        raise NotUnderstood("no_text")
    # The alternatives together are one clause: `should` itself is the place.
    place.path.append("should")
    text, place.inside = _alternatives(should, fields)
    place.required += (*must, *place.inside)
    return text


def _minimum(body: Mapping[str, Json]) -> list[Json]:
    """The condition that some of the optional clauses beside required words must hold; empty if there is none."""
    minimum = body.get("minimum_should_match", 0)
    if minimum in (0, "0"):
        return []
    if not as_list(body.get("should")):
        raise NotUnderstood("minimum_should_match")
    return [{"bool": {"should": body["should"], "minimum_should_match": minimum}}]


def _alternatives(clauses: Sequence[Json], fields: Fields) -> tuple[str, tuple[Json, ...]]:
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
        found = _text_clause(clause, fields)
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
