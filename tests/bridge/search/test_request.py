import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.profile import SearchRules
from bridge.search.reasons import CLAUSES, REASONS
from bridge.search.request import LeaveAlone, SearchRequest, is_set, parameters_of, parse, unasked
from bridge.search.text_clause import NotUnderstood

MATCH: dict[str, Any] = {"match": {"title": "red shoe"}}


def understand(body: Any, query_string: str = "") -> SearchRequest | LeaveAlone:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse(raw, query_string, text_fields=["title", "body"], object_field="neural")


LEFT_ALONE: dict[str, tuple[Any, str, str]] = {
    "sorted by a field": ({"query": MATCH, "sort": ["price"]}, "", "sort"),
    "sorted by score, then a field": ({"query": MATCH, "sort": ["_score", "price"]}, "", "sort"),
    "sorted in the URL": ({"query": MATCH}, "sort=price:asc", "sort"),
    "search_after": ({"query": MATCH, "search_after": [1]}, "", "search_after"),
    "scroll": ({"query": MATCH}, "scroll=1m", "scroll"),
    "point in time": ({"query": MATCH, "pit": {"id": "x"}}, "", "pit"),
    "collapse": ({"query": MATCH, "collapse": {"field": "brand", "new_member": 1}}, "", "collapse"),
    "collapsed, and sorted by a field": ({"query": MATCH, "collapse": {"field": "a"}, "sort": ["price"]}, "", "sort"),
    "collapsed, after sort values": (
        {"query": MATCH, "collapse": {"field": "a"}, "search_after": [1]},
        "",
        "search_after",
    ),
    "collapsed and rescored": ({"query": MATCH, "collapse": {"field": "a"}, "rescore": {}}, "", "rescore"),
    "collapsed in a scroll": ({"query": MATCH, "collapse": {"field": "a"}}, "scroll=1m", "scroll"),
    "rescore": ({"query": MATCH, "rescore": {}}, "", "rescore"),
    "vectors beside": ({"query": MATCH, "knn": {}}, "", "knn"),
    "its own pipeline": ({"query": MATCH}, "search_pipeline=mine", "search_pipeline"),
    "its own pipeline in the body": ({"query": MATCH, "search_pipeline": "mine"}, "", "search_pipeline"),
    "counts only": ({"query": MATCH, "size": 0}, "", "size_0"),
    "suggestions only": ({"suggest": {}}, "", "no_text"),
    "beyond the cluster's window": ({"query": MATCH, "from": 9_995}, "", "window"),
    "yaml wanted": ({"query": MATCH}, "format=yaml", "format"),
    "an unknown key": ({"query": MATCH, "new_key": 1}, "", "unknown_key"),
    "an unknown parameter": ({"query": MATCH}, "new_parameter=1", "unknown_parameter"),
    "a parameter twice": ({"query": MATCH}, "size=1&size=2", "unknown_parameter"),
    "words in URL and body": ({"query": MATCH}, "q=shoe", "q_and_body"),
    "operators in the URL's words": (b"", "q=title:shoe", "query_syntax"),
    "a comment": (b'{"query": /* all */ {"match": {"title": "x"}}}', "", "not_json"),
    "a trailing comma": (b'{"query": {"match": {"title": "x"}},}', "", "not_json"),
    "a key twice": (b'{"query": {"match": {"title": "x"}}, "query": {"match": {"title": "y"}}}', "", "not_json"),
    "not a number": (b'{"query": {"match": {"title": "x"}}, "min_score": NaN}', "", "not_json"),
    "a lone surrogate": (b'{"query": {"match": {"title": "\\ud800"}}}', "", "not_json"),
    "not UTF-8": (b'{"query": {"match": {"title": "\xff"}}}', "", "not_json"),
    "deeper than anybody nests": (b'{"query":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "", "not_json"),
    "an array": ([MATCH], "", "malformed"),
    "empty": (b"", "", "no_text"),
    "a negative start": ({"query": MATCH, "from": -1}, "", "malformed"),
    "blank words": ({"query": {"match": {"title": "  "}}}, "", "empty_text"),
    "a pasted document": ({"query": {"match": {"title": "x " * 2_000}}}, "", "long_text"),
    "quoted words": ({"query": {"match": {"title": '"red shoe"'}}}, "", "quoted"),
    "a part number": ({"query": {"match": {"title": "AB-1234/x"}}}, "", "identifier"),
    "an ISBN": ({"query": {"match": {"title": "978-3-16-148410-0"}}}, "", "identifier"),
    "deeper than Python follows": (
        b'{"query":' + b'{"bool":{"must":[' * 200 + b"{}" + b"]}}" * 200 + b"}",
        "",
        "too_deep",
    ),
    "packed nonsense": ({"query": {"wrapper": {"query": "!"}}}, "", "wrapper"),
}


@pytest.mark.case("P22")
@pytest.mark.case("P3")
@pytest.mark.parametrize("name", LEFT_ALONE)
def test_left_alone(name: str) -> None:
    body, query_string, reason = LEFT_ALONE[name]

    left = understand(body, query_string)

    assert isinstance(left, LeaveAlone)
    assert left.reason == reason
    assert reason in REASONS or reason in CLAUSES


def test_page_presentation_and_conditions_are_read() -> None:
    understood = understand(
        {
            "query": MATCH,
            "from": 20,
            "size": 5,
            "sort": ["_score"],
            "post_filter": {"term": {"a": 1}},
            "min_score": 0.5,
            "_source": ["title"],
            "highlight": {"fields": {"title": {}}},
            "aggs": {"x": {}},
            "track_total_hits": True,
        },
        "routing=r1&typed_keys=true&rest_total_hits_as_int=true",
    )

    assert isinstance(understood, SearchRequest)
    assert (understood.text, understood.start, understood.size) == ("red shoe", 20, 5)
    assert understood.post_filter == {"term": {"a": 1}}
    assert understood.presentation == {"_source": ["title"], "highlight": {"fields": {"title": {}}}}
    assert understood.scope == {"routing": "r1"}
    assert not understood.asks_for_ours


@pytest.mark.case("P66")
@pytest.mark.parametrize(
    ("body", "query_string"),
    [({"stored_fields": "_none_"}, ""), ({"stored_fields": ["_none_"]}, ""), ({}, "stored_fields=_none_")],
)
def test_hits_without_ids_are_left_as_they_are(body: dict[str, object], query_string: str) -> None:
    left = understand({"query": MATCH, **body}, query_string)
    assert isinstance(left, LeaveAlone)
    assert left.reason == "stored_fields"


def test_a_collapsed_search_is_read() -> None:
    inner = [{"name": "newest", "sort": ["n"], "collapse": {"field": "b"}}, {"name": "best", "size": 5}]
    collapse = {"field": "brand", "inner_hits": inner, "max_concurrent_group_searches": 4}

    understood = understand({"query": MATCH, "collapse": collapse}, "rest_total_hits_as_int=true")

    assert isinstance(understood, SearchRequest)
    assert understood.collapse is not None
    assert (understood.collapse.field, understood.collapse.inner_hits) == ("brand", ["newest", "best"])
    assert understood.collapse.body == collapse
    # Of the totals of inner hits.
    assert understood.url_presentation == {"rest_total_hits_as_int": "true"}
    assert not understood.asks_for_ours


def test_inner_hits_of_groups_may_ask_for_the_bridges_object() -> None:
    inner = {"name": "all", "_source": ["neural.stamp"]}

    understood = understand({"query": MATCH, "collapse": {"field": "brand", "inner_hits": inner}})

    assert isinstance(understood, SearchRequest)
    assert understood.asks_for_ours


def test_url_overrides_the_body_as_the_cluster_does() -> None:
    understood = understand({"query": MATCH, "size": 5, "from": 3}, "size=7&from=1&_source_includes=title")

    assert isinstance(understood, SearchRequest)
    assert (understood.start, understood.size) == (1, 7)
    assert understood.url_presentation == {"_source_includes": "title"}


def test_words_in_the_url_become_a_query() -> None:
    understood = understand(b"", "q=red+shoe&df=title&default_operator=AND&pretty")

    assert isinstance(understood, SearchRequest)
    assert understood.query == {
        "query_string": {"default_operator": "AND", "default_field": "title", "query": "red shoe"}
    }
    assert understood.pretty


def test_body_in_the_url_is_read() -> None:
    source = "%7B%22query%22%3A%7B%22match%22%3A%7B%22title%22%3A%22shoe%22%7D%7D%7D"

    understood = understand(b"", f"source={source}&source_content_type=application/json")

    assert isinstance(understood, SearchRequest)
    assert understood.text == "shoe"


def test_a_query_that_spring_data_wrapped_is_read() -> None:
    packed = base64.b64encode(json.dumps({"bool": {"must": [MATCH]}}).encode()).decode()

    understood = understand({"query": {"wrapper": {"query": packed}}})

    assert isinstance(understood, SearchRequest)
    assert understood.query == {"bool": {"must": [MATCH]}}
    assert understood.clause.path == ("bool", "must", 0)


def test_what_javas_high_level_client_adds_to_every_search_is_known() -> None:
    url = (
        "rest_total_hits_as_int=true&typed_keys=true&max_concurrent_shard_requests=5&ignore_unavailable=false"
        "&expand_wildcards=open&allow_no_indices=true&ignore_throttled=true&search_type=query_then_fetch"
        "&batched_reduce_size=512&ccs_minimize_roundtrips=true"
    )

    assert isinstance(understand({"query": MATCH, "explain": False, "stats": ["shop"]}, url), SearchRequest)


@pytest.mark.parametrize(("body", "url"), [({"explain": True}, ""), ({}, "explain=true"), ({}, "explain")])
def test_explanations_are_asked_for_in_the_clusters_own_way(body: dict[str, Any], url: str) -> None:
    understood = understand({"query": MATCH, **body}, url)

    assert isinstance(understood, SearchRequest)
    assert understood.explain


def test_an_index_may_have_searches_upgraded_that_are_sorted_by_score_and_then_by_more() -> None:
    rules = SearchRules(leave_sorted_ties=False)

    def parsed(sort: Any, url: str = "") -> SearchRequest | LeaveAlone:
        body = json.dumps({"query": MATCH, "sort": sort}).encode()
        return parse(body, url, text_fields=["title"], object_field="neural", rules=rules)

    understood = parsed([{"_score": "desc"}, {"n": "asc"}])

    assert isinstance(understood, SearchRequest)
    assert understood.presentation == {"sort": [{"_score": "desc"}, {"n": "asc"}]}
    assert parsed(["n", "_score"]) == LeaveAlone("sort")
    assert parsed("_score", "sort=n:asc") == LeaveAlone("sort")


@pytest.mark.parametrize("text", ["covid-19", "iphone 15 pro max 256", "what is 2024 about", "abc", "12", "mp3"])
def test_words_with_a_few_digits_are_no_identifier(text: str) -> None:
    assert isinstance(understand({"query": {"match": {"title": text}}}), SearchRequest)


@pytest.mark.parametrize(
    ("text", "scripts", "left"),
    [
        ("красные туфли", ["latin"], True),
        ("красные туфли", ["cyrillic", "latin"], False),
        ("красные туфли", [], False),
        ("iphone чехол", ["latin"], False),
        ("α-synuclein", ["latin"], False),
        ("12 34", ["latin"], False),
    ],
)
def test_words_in_a_script_that_the_models_do_not_read_are_left_alone(
    text: str, scripts: list[str], left: bool
) -> None:
    body = json.dumps({"query": {"match": {"title": text}}}).encode()
    found = parse(body, "", text_fields=["title"], object_field="neural", rules=SearchRules(scripts=scripts))

    assert (found == LeaveAlone("script")) is left


@pytest.mark.parametrize("text", ['"red shoe"', "AB-1234"])
def test_an_index_may_have_identifiers_and_quoted_words_upgraded_too(text: str) -> None:
    body = json.dumps({"query": {"match": {"title": text}}}).encode()
    rules = SearchRules(leave_quoted=False, leave_identifiers=False)

    assert isinstance(parse(body, "", text_fields=["title"], object_field="neural", rules=rules), SearchRequest)


@pytest.mark.parametrize(
    ("presentation", "asked"),
    [
        ({"_source": ["neural.predicted_queries"]}, True),
        ({"_source": "neural"}, True),
        ({"_source": {"includes": ["title", "neural.*"]}}, True),
        ({"fields": [{"field": "neural.stamp"}]}, True),
        ({"_source": {"excludes": ["neural"]}}, False),
        ({"_source": True}, False),
        ({"_source": ["*"]}, False),
        ({"_source": ["neuralgic"]}, False),
    ],
)
def test_only_naming_our_fields_asks_for_them(presentation: dict[str, Any], asked: bool) -> None:
    understood = understand({"query": MATCH, **presentation})

    assert isinstance(understood, SearchRequest)
    assert understood.asks_for_ours is asked


_keys = st.sampled_from(
    ["query", "bool", "must", "should", "filter", "match", "title", "multi_match", "fields", "from", "size", "sort"]
) | st.text(max_size=5)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=20,
)


@given(st.binary() | _json.map(lambda tree: json.dumps(tree).encode()), st.text(max_size=30))
def test_whatever_comes_is_understood_or_left_alone(body: bytes, query_string: str) -> None:
    assert isinstance(understand(body, query_string), SearchRequest | LeaveAlone)


def test_known_parameters_are_decoded() -> None:
    assert parameters_of("q=title%3Acaf%C3%A9&size=5&routing=a,b&pretty") == {
        "q": "title:café",
        "size": "5",
        "routing": "a,b",
        "pretty": "",
    }


@pytest.mark.parametrize(
    ("query_string", "reason"),
    [
        ("surprise=1", "unknown_parameter"),
        ("size=1&size=2", "unknown_parameter"),
        ("scroll=1m", "scroll"),
        ("search_pipeline=mine", "search_pipeline"),
        ("format=yaml", "format"),
        ("q=%ff", "unknown_parameter"),
        ("&".join(f"size={n}" for n in range(1000)), "unknown_parameter"),
    ],
    ids=["unknown", "twice", "scroll", "pipeline", "format", "no-utf-8", "thousand"],
)
def test_whatever_else_stands_there_lets_the_search_pass(query_string: str, reason: str) -> None:
    with pytest.raises(NotUnderstood) as passed:
        parameters_of(query_string)
    assert passed.value.reason == reason


@pytest.mark.parametrize(("value", "expected"), [("", True), ("true", True), ("false", False), ("1", False)])
def test_a_flag_without_a_value_is_set(value: str, expected: bool) -> None:
    assert is_set({"explain": value}, "explain") is expected
    assert is_set({}, "explain") is False


@pytest.mark.case("P45")
@pytest.mark.parametrize(
    ("body", "query_string", "is_left_out"),
    [
        (b"", "", True),
        (b'{"query":{"match_all":{}}}', "size=3", True),
        (b'{"query":{"match":{"t":"neural"}}}', "q=neural", True),
        (b'{"_source":{"excludes":["neural"]}}', "", True),
        (b'{"_source":["t","neural.stamp"]}', "", False),
        (b"{}", "_source_includes=t,neural", False),
        (b'{"aggs":{"x":{"terms":{"field":"neural.stamp"}}}}', "", False),
        (b"{}", "scroll=1m", False),
        (b'{"pit":{"id":"x"}}', "", False),
        (b"/* comments */ {}", "", True),
        (b"\xef\xbb\xbf{}", "", True),
        (b'/* comments */ {"_source":["neural"]}', "", False),
        (b"[" * 100_000, "", True),
        (b"[]", "", True),
    ],
    ids=lambda value: value[:30] if isinstance(value, bytes) else None,
)
def test_our_object_is_left_out_if_nobody_will_miss_it(body: bytes, query_string: str, is_left_out: bool) -> None:
    assert unasked(body, query_string, frozenset({"neural"})) == ({"neural"} if is_left_out else set())


@pytest.mark.case("P70")
@pytest.mark.parametrize("member", ["post_filter", "aggs", "highlight", "_source", "min_score", "sort", "unknown"])
@pytest.mark.parametrize("levels", [101, 300, 600, 900, 990])
def test_what_is_nested_too_deeply_for_a_leg_passes_wherever_it_stands(member: str, levels: int) -> None:
    deep = b'{"bool":' * levels + b"{}" + b"}" * levels
    body = b'{"query":{"match":{"title":"red shoe"}},"%b":%b}' % (member.encode(), deep)

    assert understand(body) == LeaveAlone("too_deep")
    assert unasked(body, "", frozenset({"neural"})) == {"neural"}
