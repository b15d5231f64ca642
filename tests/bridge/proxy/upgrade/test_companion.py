"""Of what a companion finds, only what the application's index returns to the caller counts."""

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from bridge.profile import META_KEY, IndexProfile
from bridge.search import beside
from bridge.text import text_digest
from tests.bridge.proxy.conftest import MakeStack
from tests.bridge.proxy.scripted_index import PROFILE, QUERY, WEIGHED, ScriptedIndex
from tests.bridge.proxy.searching import ids, search
from tests.fake_cluster import Received, Reply, reply_json

COMPANION = "/neural-bridge.docs"
MAPPINGS = f"{COMPANION},neural-bridge.docs~2/_mapping"
"""Of the two companions that there may be."""
BESIDE = msgspec.structs.replace(PROFILE, beside="docs", codes="sign")
WEIGHED_BESIDE = msgspec.structs.replace(WEIGHED, beside="docs")


@dataclass
class IndexWithCompanion:
    """The application's index and its companion.

    `near`: what the companion's vectors find; `admitted`: what the application's index returns of any candidates;
    `changed`: documents of which the companion's entries were made of another title; `matching`: what all conditions
    allow; `faults` by path.
    """

    near: Sequence[str] = ("e", "d", "a")
    admitted: Sequence[str] = ("e", "d", "a")
    changed: Collection[str] = ()
    matching: Sequence[str] = ()
    faults: Mapping[str, Reply] = field(default_factory=dict)
    shown: Sequence[str] = ("title",)
    profile: IndexProfile = BESIDE
    index: ScriptedIndex = field(default_factory=lambda: ScriptedIndex(profile=None))

    def __call__(self, request: Received) -> Reply:
        """Answers one request."""
        if request.path in self.faults:
            return self.faults[request.path]
        if request.path == MAPPINGS:
            meta = {META_KEY: self.profile.to_meta()}
            return reply_json({"neural-bridge.docs": {"mappings": {"_meta": meta}}})
        if request.path == "/docs/_field_caps":
            return reply_json({"indices": ["docs"], "fields": {name: {} for name in self.shown}})
        if request.path == f"{COMPANION}/_search" and b'"explain":true' in request.body:
            return reply_json({"hits": {"hits": self._explained(json.loads(request.body))}})
        if request.path == f"{COMPANION}/_msearch":
            return self._each(request, lambda _: [self._candidate(doc_id) for doc_id in self.near])
        if request.path == "/docs/_msearch" and re.search(rb'"_source":(?!false)', request.body):
            return self._each(request, self._admission)
        if request.path == "/docs/_msearch" and b'"size":%d' % beside.MAX_MATCHING in request.body:
            return self._each(request, lambda _: [{"_index": "docs", "_id": doc_id} for doc_id in self.matching])
        if request.path == "/docs/_msearch" and b'"from":%d' % beside.MAX_MATCHING in request.body:
            return self._each(request, lambda _: [])
        return self.index(request)

    def _each(self, request: Received, hits_of: Any) -> Reply:
        searches = [json.loads(line) for line in request.body.splitlines()[1::2]]
        return reply_json({"responses": [{"hits": {"hits": hits_of(each)}, "status": 200} for each in searches]})

    def _candidate(self, doc_id: str) -> dict[str, Any]:
        title = "another title" if doc_id in self.changed else f"title of {doc_id}"
        fields = {"_neural.id": [doc_id], "_neural.stamp": [f"recipe.{text_digest({'title': title})}"]}
        fields["_neural.code"] = ["8A"]
        return {"_index": "neural-bridge.docs", "_score": 1.0, "fields": fields}

    def _explained(self, body: Any) -> list[dict[str, Any]]:
        described = "Linear function on the _neural.terms field for the shoe feature, computed as w * S from:"
        [wanted] = body["query"]["bool"]["filter"][0]["bool"]["should"]
        return [
            {"_index": "neural-bridge.docs", "_id": doc_id, "_explanation": {"value": 3.0, "description": described}}
            for doc_id in wanted["bool"]["filter"][1]["ids"]["values"]
        ]

    def _admission(self, body: Any) -> list[dict[str, Any]]:
        candidates = json.dumps(body)
        found = [doc_id for doc_id in self.admitted if f'"{doc_id}"' in candidates]
        groups = self.index.groups if body.get("docvalue_fields") == ["brand"] else {}
        hits = [self.index.hit(doc_id, 1.0, True) for doc_id in found]
        for hit in hits:
            if hit["_id"] in groups:
                hit["fields"] = {"brand": [groups[hit["_id"]]]}
            if isinstance(body["_source"], dict):
                hit["_source"] = {"title": hit["_source"]["title"]}
        return hits


async def test_what_the_applications_index_does_not_return_is_not_found(make_stack: MakeStack) -> None:
    stack = await make_stack(IndexWithCompanion(admitted=["d", "a"]))

    _, mark, answer = await search(stack, x_bridge="vector, explain")

    assert mark.startswith("vector; took")
    assert [hit["_id"] for hit in answer["hits"]["hits"] if "vector" in hit["_bridge"]["legs"]] == ["d", "a"]
    assert "e" not in ids(answer)


async def test_terms_of_entries_count_for_documents_that_the_applications_index_returns(make_stack: MakeStack) -> None:
    stack = await make_stack(IndexWithCompanion(profile=WEIGHED_BESIDE, admitted=["d", "a"], changed=["d"]))

    _, mark, answer = await search(stack, x_bridge="sparse, explain")

    assert mark.startswith("sparse; took")
    explained = {hit["_id"]: hit["_bridge"] for hit in answer["hits"]["hits"] if "sparse" in hit["_bridge"]["legs"]}
    assert explained.keys() == {"a"}
    assert explained["a"]["terms"] == [{"term": "shoe", "query": 2.0, "document": 1.5, "score": 3.0}]
    [question] = [json.loads(each.body.splitlines()[1]) for each in stack.cluster.requests(f"{COMPANION}/_msearch")][:1]
    assert "_neural.terms.shoe" in json.dumps(question["query"])


async def test_an_entry_made_of_another_text_than_the_caller_is_shown_does_not_count(make_stack: MakeStack) -> None:
    stack = await make_stack(IndexWithCompanion(changed=["d"]))

    _, mark, answer = await search(stack, x_bridge="vector, explain")

    assert mark.startswith("vector; took")
    assert [hit["_id"] for hit in answer["hits"]["hits"] if "vector" in hit["_bridge"]["legs"]] == ["e", "a"]


async def test_if_no_text_is_what_entries_were_made_of_the_own_answer_is_given(make_stack: MakeStack) -> None:
    """So it is for a caller for whom the cluster masks a text field."""
    stack = await make_stack(IndexWithCompanion(changed=["e", "d", "a"]))

    _, mark, answer = await search(stack)

    assert mark.startswith("lexical; degraded=texts_differ; took")
    assert ids(answer) == ["a", "b", "c"]
    assert "/rerank" not in [path for path, _ in stack.sidecar.received]


async def test_texts_come_with_the_candidates_that_are_admitted(make_stack: MakeStack) -> None:
    stack = await make_stack(IndexWithCompanion())

    _, mark, _ = await search(stack, x_bridge="rerank")

    assert mark.startswith("hybrid+rerank; took")
    assert not [request for request in stack.cluster.requests("_search") if b'"includes"' in request.body]


@pytest.mark.parametrize("source", [True, ["title", "n", "_neural"]])
async def test_hits_come_with_the_candidates_once_it_is_known_that_they_hold_little(
    make_stack: MakeStack, source: Any
) -> None:
    stack = await make_stack(IndexWithCompanion(), ranking_ttl_s=0)
    answers = []
    for _ in range(2):
        stack.cluster.received.clear()
        answers.append((await search(stack, {**QUERY, "_source": source}, x_bridge="hybrid"))[2]["hits"]["hits"])

    assert answers[1] == answers[0]
    assert {hit["_id"] for hit in answers[1]} > {"d", "e"}
    # Beside the application's own search none is left.
    asked = sorted(request.path for request in stack.cluster.received)
    assert asked == ["/docs/_msearch", "/docs/_search", f"{COMPANION}/_msearch"]


@pytest.mark.parametrize("more", [{"_source": ["price"]}, {"highlight": {"fields": {"title": {}}}}])
async def test_hits_that_an_admission_cannot_show_come_by_a_search_of_their_own(
    make_stack: MakeStack, more: dict[str, Any]
) -> None:
    stack = await make_stack(IndexWithCompanion(), ranking_ttl_s=0)
    for _ in range(2):
        stack.cluster.received.clear()
        assert {"d", "e"} < set(ids((await search(stack, {**QUERY, **more}, x_bridge="hybrid"))[2]))

    assert len(stack.cluster.requests("_search")) == 2


async def test_hits_that_hold_much_come_by_a_search_of_their_own(make_stack: MakeStack) -> None:
    large = ScriptedIndex(profile=None, more="x" * beside.MAX_BEYOND_TEXTS)
    stack = await make_stack(IndexWithCompanion(index=large), ranking_ttl_s=0)
    for _ in range(2):
        stack.cluster.received.clear()
        assert {"d", "e"} < set(ids((await search(stack, x_bridge="hybrid"))[2]))

    assert len(stack.cluster.requests("_search")) == 2


async def test_documents_are_smoothed_by_the_codes_of_entries_that_count(make_stack: MakeStack) -> None:
    stack = await make_stack(IndexWithCompanion(changed=["d"]))

    _, mark, answer = await search(stack, x_bridge="smoothing, explain")

    assert mark.startswith("hybrid+smoothing; took")
    smoothed = {hit["_id"] for hit in answer["hits"]["hits"] if "smoothed" in hit.get("_bridge", {})}
    assert smoothed == {"e", "a"}


async def test_groups_are_those_of_the_applications_index(make_stack: MakeStack) -> None:
    """They come with admission, and documents are smoothed all the same."""
    groups = {"a": "x", "b": "y", "c": "x", "d": "x", "e": "y"}
    stack = await make_stack(IndexWithCompanion(index=ScriptedIndex(profile=None, groups=groups)))

    _, mark, answer = await search(stack, {**QUERY, "collapse": {"field": "brand"}}, x_bridge="smoothing, explain")

    assert mark.startswith("hybrid+smoothing; took")
    assert sorted(groups[doc_id] for doc_id in ids(answer)) == ["x", "y"]
    assert any("smoothed" in hit["_bridge"] for hit in answer["hits"]["hits"])
    assert not [
        asked for asked in stack.cluster.requests("_msearch") if COMPANION in asked.path and b"brand" in asked.body
    ]


async def test_only_the_companion_is_asked_by_the_bridges_own_identity(make_stack: MakeStack) -> None:
    stack = await make_stack(IndexWithCompanion())

    _, mark, _ = await search(stack, authorization="alice", cookie="session=alice")

    assert mark.startswith("hybrid+rerank; took")
    asked = {
        (request.path.startswith(COMPANION), request.header("authorization")) for request in stack.cluster.received
    }
    assert asked == {(True, None), (False, "alice")}
    assert {request.header("cookie") for request in stack.cluster.received if request.path.startswith(COMPANION)} == {
        None
    }


@pytest.mark.case("S17")
@pytest.mark.parametrize("index", [ScriptedIndex, IndexWithCompanion])
async def test_any_header_of_the_callers_is_on_everything_that_is_asked_in_his_name(
    make_stack: MakeStack, index: Callable[[], ScriptedIndex | IndexWithCompanion]
) -> None:
    stack = await make_stack(index(), ranking_ttl_s=600, retrieve="applications")
    ways = [
        ("/docs/_search", QUERY, "rerank"),
        ("/docs/_search", QUERY, "rerank"),
        ("/docs/_search", {**QUERY, "from": 2, "size": 2}, "rerank"),
        ("/docs/_search", {**QUERY, "highlight": {"fields": {"title": {}}}}, "rerank, passage, explain"),
        ("/docs/_search/template", {"source": "{}"}, "rerank"),
        ("/_bridge/retrieve", {"index": "docs", "queries": ["red shoe"]}, ""),
    ]

    for target, body, control in ways:
        status, _, _ = await search(
            stack, body, target=target, x_bridge=control, authorization="ApiKey os_1", x_department="sales"
        )
        assert status == 200

    theirs = [request for request in stack.cluster.received if not request.path.startswith(COMPANION)]
    assert {request.path.rsplit("/", 1)[-1] for request in theirs} >= {"_search", "_msearch", "_mapping", "template"}
    assert any(request.path == "/docs/_field_caps" for request in theirs) == (index is IndexWithCompanion)
    assert {(request.header("authorization"), request.header("x-department")) for request in theirs} == {
        ("ApiKey os_1", "sales")
    }
    companions = [request for request in stack.cluster.received if request.path.startswith(COMPANION)]
    assert {(request.header("authorization"), request.header("x-department")) for request in companions} <= {
        (None, None)
    }


@pytest.mark.parametrize("fault", [Reply(403), Reply(500), Reply(break_after=0), Reply(200, b"{}"), Reply(429)])
async def test_if_the_companion_does_not_answer_the_own_answer_is_given(make_stack: MakeStack, fault: Reply) -> None:
    stack = await make_stack(IndexWithCompanion(faults={f"{COMPANION}/_msearch": fault}))

    status, mark, answer = await search(stack)

    assert (status, ids(answer)) == (200, ["a", "b", "c"])
    assert mark.startswith("lexical; degraded=expansion_leg_failed,vector_leg_failed")


async def test_whoever_is_allowed_few_documents_has_each_compared_and_at_once_the_next_time(
    make_stack: MakeStack,
) -> None:
    near = [f"n{i}" for i in range(beside.MAX_CANDIDATES)]
    index = IndexWithCompanion(near=near, admitted=["n7"], matching=["n7"])
    stack = await make_stack(index, ranking_ttl_s=0)
    asked: list[list[str]] = []
    for words in ("red shoe", "red boot"):
        stack.cluster.received.clear()
        _, mark, answer = await search(stack, {"query": {"match": {"title": words}}}, x_bridge="vector")
        assert mark.startswith("vector; took")
        assert ids(answer)[0] == "n7"
        asked.append([request.path for request in stack.cluster.requests("_msearch")])

    assert asked[1] == ["/docs/_msearch", f"{COMPANION}/_msearch", "/docs/_msearch"]
    assert len(asked[0]) == 8


async def test_boosts_are_asked_of_the_applications_index_alone(make_stack: MakeStack) -> None:
    stack = await make_stack(IndexWithCompanion(admitted=["d", "a"]))
    query = {"bool": {"must": [QUERY["query"]], "should": [{"term": {"brand": "acme"}}]}}
    filtered = {"bool": query["bool"] | {"filter": [{"term": {"public": True}}]}}

    _, mark, answer = await search(stack, {"query": filtered}, x_bridge="vector, explain")

    assert mark.startswith("vector; took")
    assert all("lift" in hit["_bridge"] for hit in answer["hits"]["hits"] if "vector" in hit["_bridge"]["legs"])
    asked = [request for request in stack.cluster.requests("_msearch") if b'"match_all"' in request.body]
    assert [request.path for request in asked] == ["/docs/_msearch"]
    after = stack.cluster.received[stack.cluster.received.index(asked[0]) + 1 :]
    assert not any(b'"from":%d' % beside.MAX_MATCHING in request.body for request in after)
