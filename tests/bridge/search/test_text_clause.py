from collections.abc import Callable
from typing import Any

import pytest

from bridge.search.text_clause import (
    NotUnderstood,
    Words,
    as_list,
    find_text,
    is_random,
    mentioned,
    only_member,
    words_of,
)

FIELDS = ["title", "body"]
WORDS = "cheap red shoe"
MULTI: dict[str, Any] = {"multi_match": {"query": WORDS, "fields": ["title^3", "body"]}}
MATCH: dict[str, Any] = {"match": {"title": WORDS}}
PHRASE: dict[str, Any] = {"match_phrase": {"title": WORDS}}
PUBLIC: dict[str, Any] = {"term": {"public": True}}
HIDDEN: dict[str, Any] = {"term": {"hidden": True}}

# Name → query, path to the words, required, excluded.
UNDERSTOOD: dict[str, tuple[Any, tuple[str | int, ...], list[Any], list[Any]]] = {
    "match": (MATCH, (), [], []),
    "match with options": ({"match": {"body": {"query": WORDS, "operator": "and", "fuzziness": "AUTO"}}}, (), [], []),
    "match on a sub-field": ({"match": {"title.english": WORDS}}, (), [], []),
    "multi_match": (MULTI, (), [], []),
    "multi_match without fields": ({"multi_match": {"query": WORDS}}, (), [], []),
    "multi_match, cross fields": (
        {"multi_match": {"query": WORDS, "fields": ["t*"], "type": "cross_fields", "tie_breaker": 0.3}},
        (),
        [],
        [],
    ),
    "multi_match as a phrase": ({"multi_match": {"query": WORDS, "type": "phrase", "fields": ["body"]}}, (), [], []),
    "combined_fields": ({"combined_fields": {"query": WORDS, "fields": ["title", "body"]}}, (), [], []),
    "query_string of plain words": ({"query_string": {"query": WORDS, "default_field": "body"}}, (), [], []),
    "simple_query_string with a hyphenated word": ({"simple_query_string": {"query": "e-mail client"}}, (), [], []),
    "Haystack": (
        {
            "bool": {
                "must": [
                    {"multi_match": {"query": WORDS, "fuzziness": "AUTO", "type": "most_fields", "operator": "OR"}}
                ],
                "filter": {"bool": {"must": [PUBLIC]}},
            }
        },
        ("bool", "must", 0),
        [{"bool": {"must": [PUBLIC]}}],
        [],
    ),
    "LangChain's BM25": ({"match": {"body": {"query": WORDS}}}, (), [], []),
    "Searchkick": (
        {
            "bool": {
                "must": {
                    "bool": {
                        "should": [
                            {
                                "dis_max": {
                                    "queries": [
                                        {"match": {"title.analyzed": {"query": WORDS, "boost": 10, "operator": "and"}}},
                                        {"match": {"title.analyzed": {"query": WORDS, "fuzziness": 1}}},
                                    ]
                                }
                            }
                        ]
                    }
                },
                "filter": [PUBLIC],
            }
        },
        ("bool", "must", "bool", "should"),
        [PUBLIC],
        [],
    ),
    "a shop: words in should, conditions around": (
        {
            "bool": {
                "must": [PUBLIC],
                "should": [{"match": {"title": {"query": WORDS, "boost": 5}}}, {"match": {"body": WORDS}}, PHRASE],
                "minimum_should_match": 1,
                "must_not": [HIDDEN],
            }
        },
        ("bool", "should"),
        [PUBLIC],
        [HIDDEN],
    ),
    "a blog: words in must, a phrase for good measure": (
        {"bool": {"must": [MULTI], "should": [PHRASE], "filter": [PUBLIC]}},
        ("bool", "must", 0),
        [PUBLIC],
        [],
    ),
    "a number matched beside the words is a condition": (
        {"bool": {"must": [MULTI, {"match": {"year": 2020}}, {"match": {"brand": "acme"}}]}},
        ("bool", "must", 0),
        [{"match": {"year": 2020}}, {"match": {"brand": "acme"}}],
        [],
    ),
    "function_score": (
        {
            "function_score": {
                "query": {"bool": {"must": [MATCH], "must_not": HIDDEN}},
                "functions": [{"field_value_factor": {"field": "likes"}}],
            }
        },
        ("function_score", "query", "bool", "must", 0),
        [],
        [HIDDEN],
    ),
    "constant_score": ({"constant_score": {"filter": MATCH, "boost": 2}}, ("constant_score", "filter"), [], []),
    "boosting": (
        {"boosting": {"positive": MATCH, "negative": HIDDEN, "negative_boost": 0.5}},
        ("boosting", "positive"),
        [],
        [],
    ),
    "dis_max": ({"dis_max": {"queries": [MATCH, {"match": {"body": WORDS}}, PHRASE]}}, (), [], []),
    "some optional clauses required": (
        {"bool": {"must": [MATCH], "should": [PUBLIC, HIDDEN], "minimum_should_match": 1}},
        ("bool", "must", 0),
        [{"bool": {"should": [PUBLIC, HIDDEN], "minimum_should_match": 1}}],
        [],
    ),
    "Searchkick on all fields, one kind of document excluded for each way to match": (
        {
            "dis_max": {
                "queries": [
                    {
                        "bool": {
                            "should": [{"multi_match": {"query": WORDS, "fields": [pattern], "boost": 10}}],
                            "must_not": [HIDDEN],
                        }
                    }
                    for pattern in ("*.analyzed", "t*.word_start")
                ]
            }
        },
        (),
        [{"bool": {"should": [{"bool": {"must_not": [HIDDEN]}}] * 2, "minimum_should_match": 1}}],
        [],
    ),
    "ElasticPress: each kind of post with its own fields": (
        {
            "function_score": {
                "query": {
                    "bool": {
                        "should": [
                            {
                                "bool": {
                                    "must": [
                                        {
                                            "bool": {
                                                "should": [
                                                    {"multi_match": {"query": WORDS, "type": "phrase", "boost": 3}},
                                                    {"multi_match": {"query": WORDS, "fields": ["title^5"]}},
                                                ]
                                            }
                                        }
                                    ],
                                    "filter": [{"match": {"post_type.raw": kind}}],
                                }
                            }
                            for kind in ("post", "page")
                        ]
                    }
                },
                "functions": [{"exp": {"post_date_gmt": {"scale": "14d", "decay": 0.25}}}, {"weight": 0.001}],
                "score_mode": "sum",
                "boost_mode": "multiply",
            }
        },
        ("function_score", "query", "bool", "should"),
        [
            {
                "bool": {
                    "should": [{"bool": {"filter": [{"match": {"post_type.raw": kind}}]}} for kind in ("post", "page")],
                    "minimum_should_match": 1,
                }
            }
        ],
        [],
    ),
    "operators in a condition on other fields": (
        {"bool": {"must": [MATCH, {"query_string": {"query": "a OR b", "fields": ["tags"]}}]}},
        ("bool", "must", 0),
        [{"query_string": {"query": "a OR b", "fields": ["tags"]}}],
        [],
    ),
    "a question in simple_query_string": ({"simple_query_string": {"query": "what is heat?"}}, (), [], []),
    "nested: the alternative goes beside it": (
        {"nested": {"path": "comments", "query": {"match": {"body": WORDS}}}},
        (),
        [],
        [],
    ),
}

LEFT_ALONE: dict[str, tuple[Any, str]] = {
    "everything": ({"match_all": {}}, "match_all"),
    "vectors already": ({"knn": {"v": {"vector": [1], "k": 3}}}, "knn"),
    "hybrid already": ({"hybrid": {"queries": [MATCH]}}, "hybrid"),
    "neural already": ({"neural": {"v": {"query_text": "x"}}}, "neural"),
    "words beside a vector": ({"bool": {"should": [MATCH, {"knn": {"v": {}}}]}}, "knn"),
    "a phrase alone": (PHRASE, "phrase"),
    "only phrases": ({"bool": {"should": [PHRASE]}}, "phrase"),
    "a term": ({"term": {"title": "x"}}, "term"),
    "other fields": ({"match": {"brand": WORDS}}, "other_fields"),
    "words that only filter": ({"bool": {"filter": [MATCH]}}, "no_text"),
    "two different texts": ({"bool": {"should": [MATCH, {"match": {"body": "other"}}]}}, "several_texts"),
    "two texts required": ({"bool": {"must": [MATCH, {"match": {"body": WORDS}}]}}, "several_texts"),
    "boolean operators": ({"query_string": {"query": "shoe AND red"}}, "query_syntax"),
    "a field in the words": ({"query_string": {"query": "title:shoe"}}, "query_syntax"),
    "a wildcard": ({"simple_query_string": {"query": "sho*"}}, "query_syntax"),
    "a wildcard for one letter": ({"query_string": {"query": "what is heat?"}}, "query_syntax"),
    "an excluded word": ({"simple_query_string": {"query": "shoe -red"}}, "query_syntax"),
    "an unknown parameter": ({"match": {"title": {"query": WORDS, "new_option": 1}}}, "unknown_parameter"),
    "an unknown clause": ({"template": {}}, "unknown_clause"),
    "an unknown key in bool": ({"bool": {"must": [MATCH], "musn't": []}}, "unknown_parameter"),
    "functions instead of words": ({"function_score": {"query": MATCH, "boost_mode": "replace"}}, "function_score"),
    "chance": ({"function_score": {"query": MATCH, "functions": [{"random_score": {}}]}}, "function_score"),
    "a minimum score of functions": ({"function_score": {"query": MATCH, "min_score": 2}}, "unknown_parameter"),
    "filters inside nested": (
        {"nested": {"path": "c", "query": {"bool": {"must": [MATCH], "filter": [PUBLIC]}}}},
        "nested_filter",
    ),
    "optional clauses required, and none there": (
        {"bool": {"must": [MATCH], "should": [], "minimum_should_match": 1}},
        "minimum_should_match",
    ),
    "sub-fields of other fields": ({"multi_match": {"query": WORDS, "fields": ["brand.*", "t.*"]}}, "other_fields"),
    "two clauses in one object": ({**MATCH, "term": {}}, "malformed"),
    "no object": ([], "malformed"),
    "words that are a number": ({"match": {"title": 7}}, "match"),
}


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_words_are_found_in(name: str) -> None:
    query, path, required, excluded = UNDERSTOOD[name]

    clause = find_text(query, FIELDS)

    assert clause.text in (WORDS, "e-mail client", "what is heat?")
    assert clause.path == path
    assert list(clause.required) == required
    assert list(clause.excluded) == excluded


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_left_alone(name: str) -> None:
    query, reason = LEFT_ALONE[name]

    with pytest.raises(NotUnderstood) as refused:
        find_text(query, FIELDS)

    assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        ("match", {"title": "red shoe"}, Words("red shoe", ["title"])),
        ("match", {"title": {"query": "red shoe", "boost": 2}}, Words("red shoe", ["title"])),
        ("multi_match", {"query": "red", "fields": ["title^2", "b*"]}, Words("red", ["title^2", "b*"])),
        ("query_string", {"query": "red shoe"}, Words("red shoe", [])),
        ("query_string", {"query": "red OR shoe"}, Words("red OR shoe", [], True)),
        ("term", {"kind": "shoe"}, None),
    ],
)
def test_words_and_fields_of_a_clause(kind: str, body: dict[str, Any], expected: Words | None) -> None:
    assert words_of(kind, body) == expected


def test_a_parameter_that_nobody_knows_leaves_the_query_alone() -> None:
    with pytest.raises(NotUnderstood) as passed:
        words_of("match", {"title": {"query": "red", "surprise": 1}})
    assert passed.value.reason == "unknown_parameter"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], True),
        (["title"], True),
        (["title^3"], True),
        (["title.english"], True),
        (["ti*"], True),
        (["*"], True),
        (["*.english"], True),
        (["subtitle"], False),
        (["titles"], False),
        (["price", "kind*"], False),
    ],
)
def test_a_clause_searches_an_enriched_field_by_its_name_a_sub_field_or_a_pattern(
    fields: list[str], expected: bool
) -> None:
    query = {"multi_match": {"query": "red", **({"fields": fields} if fields else {})}}
    if expected:
        assert find_text(query, ["title", "body.en"]).text == "red"
    else:
        with pytest.raises(NotUnderstood, match="other_fields"):
            find_text(query, ["title", "body.en"])


def test_trees_are_walked_to_their_leaves() -> None:
    assert mentioned({"a": [{"b": {"wanted": 1}}], "other": 1}, {"wanted", "a"}) == {"wanted", "a"}
    assert mentioned({"a": ["wanted"]}, {"wanted"}) == set()
    deep: Any = {"wanted": 1}
    for _ in range(500):
        deep = [deep]
    with pytest.raises(NotUnderstood, match="too_deep"):
        mentioned(deep, {"wanted"})
    assert only_member({"match": 1}) == ("match", 1)
    assert (as_list(None), as_list("x"), as_list(["x"])) == ([], ["x"], ["x"])
    assert is_random({"functions": [{"weight": 2}, {"random_score": {}}]})
    with pytest.raises(NotUnderstood):
        only_member({"a": 1, "b": 2})


class Counted(dict[str, Any]):
    """A clause that counts how often anything is read of it."""

    n_reads = 0

    def get(self, key: str, default: Any = None) -> Any:
        Counted.n_reads += 1
        return super().get(key, default)


@pytest.mark.parametrize(
    "around",
    [
        lambda clause: {"bool": Counted(must=[clause])},
        lambda clause: {"bool": Counted(should=clause)},
        lambda clause: {"bool": Counted(must=[{"dis_max": Counted(queries=[clause])}])},
    ],
)
def test_each_clause_is_looked_through_once_however_deep_it_lies(around: Callable[[Any], Any]) -> None:
    reads = []
    for depth in (20, 40):
        query: Any = MATCH
        for _ in range(depth):
            query = around(query)
        Counted.n_reads = 0
        assert find_text(query, FIELDS).text == WORDS
        reads.append(Counted.n_reads)

    assert reads[0] > 20
    assert reads[1] <= 2.2 * reads[0]
