"""Where in an application's query the user's words stand, and which conditions surround them.

A query is understood only if every clause on the way to the words is known, with every parameter of it.
Conditions beside the words (filters, exclusions, required clauses that search no enriched text) are not
looked into: they are carried to every leg as they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bridge.search.json_tree import Json
from bridge.search.known_clauses import (
    BOOL,
    COMMON,
    FUNCTION_SCORE,
    LEFT_ALONE,
    NESTED,
    NEURAL,
    PHRASES,
    NotUnderstood,
    as_list,
    check,
    is_random,
    mentions,
    only_member,
    searches,
    words_of,
)

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
    for clause in NEURAL:
        if mentions(query, clause):
            raise NotUnderstood(clause)
    return _find(query, (), text_fields)


def _find(clause: Json, path: Path, text_fields: Sequence[str]) -> TextClause:
    kind, body = only_member(clause)
    if (words := words_of(kind, body)) is not None:
        if kind in PHRASES:
            raise NotUnderstood("phrase")
        if not searches(words, text_fields):
            raise NotUnderstood("other_fields")
        if words.has_operators:
            raise NotUnderstood("query_syntax")
        return TextClause(words.text, path)
    if not isinstance(body, dict):
        raise NotUnderstood("malformed")
    match kind:
        case "bool":
            return _in_bool(body, (*path, "bool"), text_fields)
        case "dis_max":
            check(body, COMMON | {"queries", "tie_breaker"})
            text, inside = _alternatives(as_list(body.get("queries")), text_fields)
            return TextClause(text, path, required=inside, inside=inside)
        case "constant_score":
            check(body, COMMON | {"filter"})
            return _find(body.get("filter"), (*path, kind, "filter"), text_fields)
        case "boosting":
            check(body, COMMON | {"positive", "negative", "negative_boost"})
            return _find(body.get("positive"), (*path, kind, "positive"), text_fields)
        case "function_score":
            check(body, FUNCTION_SCORE)
            if body.get("boost_mode") == "replace" or is_random(body):
                # Then the functions decide the order, and words play no part in it.
                raise NotUnderstood("function_score")
            return _find(body.get("query"), (*path, kind, "query"), text_fields)
        case "nested":
            check(body, NESTED)
            inner = _find(body.get("query"), (), text_fields)
            if inner.required or inner.excluded:
                raise NotUnderstood("nested_filter")
            # Our fields are not inside the nested object: the alternative goes beside the whole clause.
            return TextClause(inner.text, path)
    raise NotUnderstood(kind if kind in LEFT_ALONE else "unknown_clause")


def _in_bool(body: Mapping[str, Json], path: Path, text_fields: Sequence[str]) -> TextClause:
    check(body, BOOL)
    must = as_list(body.get("must"))
    required = as_list(body.get("filter"))
    excluded = as_list(body.get("must_not"))
    texts = [i for i, clause in enumerate(must) if _holds_text(clause, text_fields)]
    if len(texts) > 1:
        raise NotUnderstood("several_texts")
    if texts:
        position = texts[0]
        inner_path: Path = (*path, "must", position) if isinstance(body["must"], list) else (*path, "must")
        inner = _find(must[position], inner_path, text_fields)
        beside = [*must[:position], *must[position + 1 :], *_minimum(body)]
        return TextClause(
            inner.text,
            inner.path,
            required=(*required, *beside, *inner.required),
            excluded=(*excluded, *inner.excluded),
            inside=inner.inside,
        )
    should = as_list(body.get("should"))
    if not any(_holds_text(clause, text_fields) for clause in should):
        raise NotUnderstood("no_text")
    # The alternatives together are one clause: `should` itself is the place.
    text, inside = _alternatives([clause for clause in should if _holds_text(clause, text_fields)], text_fields)
    return TextClause(
        text, (*path, "should"), required=(*required, *must, *inside), excluded=tuple(excluded), inside=inside
    )


def _minimum(body: Mapping[str, Json]) -> list[Json]:
    """The condition that some of the optional clauses beside required words must hold; empty where there is none."""
    minimum = body.get("minimum_should_match", 0)
    if minimum in (0, "0"):
        return []
    if not as_list(body.get("should")):
        raise NotUnderstood("minimum_should_match")
    return [{"bool": {"should": body["should"], "minimum_should_match": minimum}}]


def _alternatives(clauses: Sequence[Json], text_fields: Sequence[str]) -> tuple[str, tuple[Json, ...]]:
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
        if kind in PHRASES and (words := words_of(kind, body)) is not None:
            exact.add(words.text)
            conditions.append({})
            continue
        found = _find(clause, (), text_fields)
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


def _holds_text(clause: Json, text_fields: Sequence[str]) -> bool:
    """Whether the user's words may stand in this clause: then it is no mere condition."""
    kind, body = only_member(clause)
    if (words := words_of(kind, body)) is not None:
        return searches(words, text_fields)
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
    return any(_holds_text(each, text_fields) for each in inner)
