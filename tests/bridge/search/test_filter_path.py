import pytest

from bridge.search import filter_path
from bridge.search.filter_path import filtered, without_parameter
from bridge.search.wildcards import matches

ANSWER = (
    b'{"took":1,"hits":{"total":{"value":1},"hits":[{"_id":"1","_score":2.50,"_source":{"a":{"b":1.10,"c":2}}},'
    b'{"_id":"2","_score":1.0,"_source":{"d":[{"b":3},{"e":4}]}}]},"aggregations":{}}'
)

# What a real cluster makes of the same answer, but for the digits of numbers.
FILTERED: dict[str, bytes] = {
    "took": b'{"took":1}',
    "hits.hits._id": b'{"hits":{"hits":[{"_id":"1"},{"_id":"2"}]}}',
    "hits.hits._id,took": b'{"took":1,"hits":{"hits":[{"_id":"1"},{"_id":"2"}]}}',
    "hits.hits._source.a": b'{"hits":{"hits":[{"_source":{"a":{"b":1.10,"c":2}}}]}}',
    "**.b": b'{"hits":{"hits":[{"_source":{"a":{"b":1.10}}},{"_source":{"d":[{"b":3}]}}]}}',
    "hits.*.va*,hits.t*": b'{"hits":{"total":{"value":1}}}',
    "gone": b"{}",
    "-hits,-aggregations": b'{"took":1}',
    "hits.hits,-hits.hits._source,-**._score": b'{"hits":{"hits":[{"_id":"1"},{"_id":"2"}]}}',
    "-hits.total.*,-hits.hits.*,-took": b'{"aggregations":{}}',
    "hits.hits._source.d.e": b'{"hits":{"hits":[{"_source":{"d":[{"e":4}]}}]}}',
}


@pytest.mark.parametrize("wanted", FILTERED)
def test_only_the_wanted_parts_are_kept(wanted: str) -> None:
    assert filtered(ANSWER, wanted) == FILTERED[wanted]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/a/_search?filter_path=x", "/a/_search"),
        ("/a/_search?size=1&filter_path=x&q=a%20b+c", "/a/_search?size=1&q=a%20b+c"),
        ("/a/_search?filter%5Fpath=x&pretty", "/a/_search?pretty"),
        ("/a/_search?filter_paths=x", "/a/_search?filter_paths=x"),
    ],
)
def test_the_parameter_alone_is_taken_out_of_the_target(target: str, expected: str) -> None:
    assert without_parameter(target) == expected


@pytest.mark.case("P43")
def test_names_that_return_with_every_hit_are_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def counted(pattern: str, name: str) -> bool:
        compared.append((pattern, name))
        return matches(pattern, name)

    monkeypatch.setattr(filter_path, "matches", counted)
    hit = b'{"_id":"1","_source":{"a":{"b":1},"c":[{"d":2},{"d":3}]}}'
    answer = b'{"hits":{"hits":[' + b",".join([hit] * 500) + b"]}}"
    wanted = ",".join(f"**.once{number}*" for number in range(100)) + ",**.d"

    kept = filtered(answer, wanted)

    assert kept.count(b'{"_source":{"c":[{"d":2},{"d":3}]}}') == 500
    assert len(compared) == 101 * len({"hits", "_id", "_source", "a", "b", "c", "d"})
