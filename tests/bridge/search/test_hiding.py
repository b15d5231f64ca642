import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.search.hiding import hidden, hidden_object, without_member

SOURCE = b'{ "n":12345678901234567890123 ,"d":1.10000000000000000001,"e":"\\u00e9","t":"red shoe","a":{"b":[1.0,1]}'
OURS = b',"neural":{"embedding":[0.5]}'
HIT = b'{ "_index":"docs", "_id":"1","_score":3.5,"_source":' + SOURCE + OURS + b"}}"
TOP_HITS = b'"aggregations":{"top_hits#x":{"hits":{"hits":[' + HIT + b"]}}}"
INNER = b'{"_index":"docs","_id":"2","inner_hits":{"same":{"hits":{"hits":[' + HIT + b"]}}}}"


def test_our_object_is_cut_out_wherever_documents_are_shown() -> None:
    body = b'{"took":1, "hits" : {"hits": [' + HIT + b",\n" + INNER + b"]}," + TOP_HITS + b"}"

    assert hidden(body, "neural") == body.replace(OURS, b"")


def test_our_fields_are_left_out_of_fields_and_highlights() -> None:
    hit = b'{"_index":"d","fields":{"neural.stamp":["x"],"t":["y"]},"highlight":{"neural.predicted_queries":["z"]}}'

    assert hidden(hit, "neural") == b'{"_index":"d","fields":{"t":["y"]},"highlight":{}}'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>neural</html>",
        b'{"hits":"neural"',
        b'{"hits":{"hits":[{"_source":{"t":"neural","neuralgic":1}}]}}',
        b'{"hits":{"hits":[{"_source":{"t":"a \\"neural\\":{} b"}}]}}',
        b'{"suggest":{"neural":[{"fields":{"neural":1}}]}}',
    ],
)
def test_what_is_not_ours_stays(body: bytes) -> None:
    assert hidden(body, "neural") == body


@pytest.mark.parametrize(
    ("body", "query_string", "expected"),
    [
        (b"", "", "neural"),
        (b'{"query":{"match_all":{}}}', "size=3", "neural"),
        (b'{"query":{"match":{"t":"neural"}}}', "q=neural", "neural"),
        (b'{"_source":{"excludes":["neural"]}}', "", "neural"),
        (b'{"_source":["t","neural.stamp"]}', "", None),
        (b"{}", "_source_includes=t,neural", None),
        (b'{"aggs":{"x":{"terms":{"field":"neural.stamp"}}}}', "", None),
        (b"{}", "scroll=1m", None),
        (b'{"pit":{"id":"x"}}', "", None),
        (b"no json", "", None),
        (b"[]", "", None),
    ],
)
def test_our_object_is_left_out_where_nobody_will_miss_it(body: bytes, query_string: str, expected: str | None) -> None:
    assert hidden_object(body, query_string, "neural") == expected


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text(max_size=8), _values, max_size=4),
    _values,
    st.integers(0, 4),
    st.sampled_from([(",", ":"), (", ", ": "), (" ,", " :")]),
)
def test_a_member_can_be_cut_out_of_any_object(
    others: dict[str, Any], ours: Any, position: int, separators: tuple[str, str]
) -> None:
    others.pop("neural", None)
    members = list(others.items())
    members.insert(position, ("neural", ours))
    source = json.dumps(dict(members), separators=separators).encode()

    assert json.loads(without_member(source, "neural")) == others
