"""Every fault that an answer through the proxy may have is seen, and nothing else."""

import json
from typing import Any

import msgspec
import pytest

from tests.campaign.comparison import masked, passed_faults, shown_ids, upgraded_faults
from tests.campaign.made import Made
from tests.campaign.wire import NO_ANSWER, Answer, Request

HIT = {"_index": "papers", "_id": "1", "_score": 1.5, "_source": {"title": "wing"}}
OTHER = {"_index": "papers", "_id": "2", "_score": 1.0, "_source": {"title": "flow"}}
OURS = {**HIT, "_source": {"title": "wing", "_neural": {"stamp": "s"}}}
ASKED = Made(Request("POST", b"/papers/_search", body=b"{}"), upgrades=True)


def answer(tree: Any, *headers: tuple[str, str], status: int = 200) -> Answer:
    return Answer(status, (("content-type", "application/json"), *headers), json.dumps(tree).encode())


def page(*hits: Any, **more: Any) -> dict[str, Any]:
    return {"took": 3, "hits": {"total": {"value": 2}, "max_score": 1.5, "hits": list(hits)}, **more}


@pytest.mark.parametrize(
    ("proxied", "faults"),
    [
        (answer({"took": 9, "a": 1}), []),
        (answer({"took": 3, "a": 1}, ("x-bridge", "pass; reason=off")), []),
        (answer({"took": 3, "a": 2}), ["body"]),
        (answer({"took": 3, "a": 1}, ("x-more", "1")), ["header x-more"]),
        (answer({"took": 3, "a": 1}, status=500), ["status 500 for 200"]),
        (Answer(NO_ANSWER, fault="late"), ["status late for 200"]),
        (answer({"error": "proxy.max_headers_bytes"}, status=431), []),
        (answer({"error": "the request is malformed"}, status=400), ["status 400 for 200"]),
        (answer({"error": {"type": "circuit_breaking_exception"}}, status=429), []),
    ],
)
def test_what_passes_has_to_be_the_nodes_own(proxied: Answer, faults: list[str]) -> None:
    assert passed_faults(ASKED.request, answer({"took": 3, "a": 1}), proxied) == faults


@pytest.mark.parametrize("target", [b"papers/_search", b"/pa pers/_search", b"*"])
def test_what_is_no_http_may_be_refused(target: bytes) -> None:
    refusal = answer({"error": "the request is malformed: expected HTTP/1.1"}, status=400)

    assert passed_faults(Request("GET", target), answer({}), refusal) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (b":)\n\x05\xfa\x83took\xde\x88timed_out", b":)\n\x05\xfa\x83took$\xa2\x88timed_out"),
        (b"\xbfdtook\x18\x2aitimed_out", b"\xbfdtook\x03itimed_out"),
        (b":)\n\x05\xfa\x83took\xc2\x88responses@1", b":)\n\x05\xfa\x83took\xc4\x88responses@2"),
        (b":)\n\x05\xfa\x83took\xc0\xfb", b":)\n\x05\xfa\x83took\xc2\xfb"),
        (b":)\n\x05\xfa\x83took\xc0\x83hits", b":)\n\x05\xfa\x83took\xc2\x83hits"),
        (b"\xbfxYIncorrect HTTP method for uri [/_search?]", b"\xbfxXIncorrect HTTP method for uri [/_search]"),
        (b'{"stack_trace":"a\\"b","x":1}', b'{"stack_trace":"c","x":1}'),
        (b'{"_id":"sIPSJaIBq0Sz_q_yddry"}', b'{"_id":"sYPSJaIBq0Sz_q_ydtoC"}'),
        (b"document with id 'sIPSJaIBq0Sz_q_yddry'", b"document with id 'sYPSJaIBq0Sz_q_ydtoC'"),
        (b":)\n\x05\xfa\x8astack_trace\xe4a", b":)\n\x05\xfa\x8astack_trace\xe4bc"),
        (b'{"num_reduce_phases":3,"x":1}', b'{"x":1}'),
        (b"for uri [/papers/_search?] and", b"for uri [/papers/_search] and"),
    ],
)
def test_what_differs_between_any_two_answers_is_masked(first: bytes, second: bytes) -> None:
    assert masked(first) == masked(second)


def test_ids_and_numbers_of_an_applications_own_are_compared() -> None:
    assert masked(b'{"_id":"12"}') != masked(b'{"_id":"13"}')
    assert masked(b'{"timed_out":1}') != masked(b'{"timed_out":2}')


@pytest.mark.parametrize(
    ("upgraded", "faults"),
    [
        (page(OTHER, {**HIT, "_score": 2.5}), []),
        (page(HIT), ["fewer hits"]),
        (page(HIT, HIT), ["a hit twice"]),
        (page(OURS, OTHER), ["_neural shows (hybrid)"]),
        (page({**HIT, "_source": {}}, OTHER), ["_source of a hit differs"]),
        (page(HIT, OTHER, aggregations={"a": {"value": 1}}), ["aggregations differs", "members ['aggregations']"]),
    ],
)
def test_an_upgraded_answer_may_differ_in_order_and_scores_alone(upgraded: Any, faults: list[str]) -> None:
    direct = answer(page(OURS, OTHER))

    assert upgraded_faults(ASKED, direct, answer(upgraded, ("x-bridge", "hybrid; took_ms=4"))) == faults


def test_our_object_may_be_seen_where_it_is_named() -> None:
    asked = Made(Request("POST", b"/papers/_search", body=b'{"_source":["_neural.*"]}'), upgrades=True)
    direct = answer(page(OURS, OTHER))

    assert upgraded_faults(asked, direct, answer(page(OURS, OTHER), ("x-bridge", "hybrid"))) == []


@pytest.mark.parametrize(
    ("stage", "own", "ours", "faults"),
    [
        ("rerank, sentences", {}, {"title": ["<em>a</em>"]}, []),
        ("rerank, sentences", {"body": ["b"]}, {"body": ["b"], "title": ["<em>a</em>"]}, []),
        ("rerank, sentences", {"body": ["b"]}, {"body": ["c"]}, ["highlight of a hit differs"]),
        ("rerank, sentences", {"body": ["b"]}, {}, ["highlight of a hit differs"]),
        ("rerank", {}, {"title": ["<em>a</em>"]}, ["highlight of a hit differs"]),
        ("rerank, passage", {}, {"_bridge.passage": ["a"]}, []),
    ],
)
def test_sentences_stand_only_where_the_node_shows_no_highlight(
    stage: str, own: dict[str, Any], ours: dict[str, Any], faults: list[str]
) -> None:
    asked = msgspec.structs.replace(ASKED, stage=stage)
    direct, upgraded = (
        answer(page({**HIT, "highlight": shown} if shown else HIT), ("x-bridge", "hybrid; took_ms=4"))
        for shown in (own, ours)
    )

    assert upgraded_faults(asked, direct, upgraded) == faults


def test_hits_are_told_by_index_and_id_for_each_search() -> None:
    both = answer({"responses": [page(HIT), page(OTHER, HIT)]})

    assert shown_ids(both) == [[("papers", "1")], [("papers", "2"), ("papers", "1")]]


def head(doc_id: str, kind: str | None, *variants: str) -> dict[str, Any]:
    inner = {"more": {"hits": {"hits": [{"_id": variant} for variant in variants]}}}
    return {"_index": "papers", "_id": doc_id, "fields": {"kind": [kind]}, "inner_hits": inner}


@pytest.mark.parametrize(
    ("hits", "faults"),
    [
        ([head("4", "ad", "1", "4"), head("2", None, "2")], []),
        ([head("4", "ad", "4"), head("2", None, "2")], ["inner hits of a group differ"]),
        ([head("1", "ad", "1", "4"), head("4", "ad", "1", "4")], ["a group twice"]),
        ([head("3", "note", "3"), head("2", None, "2")], []),
    ],
)
def test_groups_are_shown_once_and_with_the_nodes_inner_hits(hits: list[Any], faults: list[str]) -> None:
    body = {"collapse": {"field": "kind", "inner_hits": {"name": "more"}}}
    asked = Made(ASKED.request, upgrades=True, searches=(("papers", body, []),))
    direct = answer(page(head("1", "ad", "1", "4"), head("2", None, "2")))

    assert upgraded_faults(asked, direct, answer(page(*hits), ("x-bridge", "hybrid; took_ms=4"))) == faults


def test_a_body_that_the_node_did_not_get_makes_no_groups() -> None:
    asked = Made(ASKED.request, upgrades=True, searches=(("papers", {"collapse": {"field": "kind"}}, []),))
    same = answer(page({"_index": "papers", "_id": "1"}, {"_index": "papers", "_id": "2"}))

    assert upgraded_faults(asked, same, same) == []


def test_groups_that_are_not_shown_are_not_compared() -> None:
    asked = Made(ASKED.request, upgrades=True, searches=(("papers", {"collapse": {"field": "kind"}}, []),))
    ids_alone = {"hits": {"hits": [{"_id": "1"}, {"_id": "2"}]}}

    faults = upgraded_faults(asked, answer({}), answer(ids_alone, ("x-bridge", "hybrid; took_ms=4")))
    assert "a group twice" not in faults


def test_a_search_whose_body_is_no_object_has_no_groups() -> None:
    asked = Made(ASKED.request, upgrades=True, searches=(("papers", "words", []),))
    same = answer(page({"_index": "papers", "_id": "1"}))

    assert upgraded_faults(asked, same, same) == []


def test_times_of_a_profile_are_not_compared() -> None:
    first, second = ({"profile": {"rewrite_time": each, "time_in_nanos": each}} for each in (982, 2654))

    assert passed_faults(ASKED.request, answer(first), answer(second)) == []
