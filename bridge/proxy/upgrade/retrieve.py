"""`POST /_bridge/retrieve`: questions in, passages out, for question answering and for language models."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated

import msgspec
from aiohttp import hdrs, web
from multidict import CIMultiDict

from bridge.errors import StageFailed
from bridge.profile import IndexProfile, Stage
from bridge.proxy.server.metrics import Metrics
from bridge.proxy.transport.passthrough import Inbound
from bridge.proxy.transport.refusals import Refused
from bridge.proxy.upgrade.cluster_client import OwnSearches
from bridge.proxy.upgrade.planning import CLUSTER_UNAVAILABLE, Plan, Planner, Searched
from bridge.proxy.upgrade.ranking import Ranked, Ranker, RankingCache, marks
from bridge.records import Key
from bridge.search import json_tree, legs
from bridge.search.json_tree import Json
from bridge.search.reasons import REASONS
from bridge.search.request import MAX_TEXT_CHARS, LeaveAlone, words_request
from bridge.search.response import REJECTED
from bridge.settings import ProxySettings
from bridge.text import decode

MAX_QUERIES = 100
MAX_PASSAGES = 100
DIVERSE = 0.1
"""How much likeness counts if neither the request nor the index's rules say: a reader of few passages wants each to
tell something new, and so little costs no relevance (docs/explanation/benchmarks.md)."""
AT_ONCE = 4
"""Queries of one request that are ranked at a time."""

_Query = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT_CHARS, pattern=r"\S")]


class RetrieveRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What to look for: `queries`, answered each by itself, with the `size` best passages of as many documents of
    `index`. `filter`: clauses of the query language that documents have to meet; `stage`: where to stop; `diverse`: how
    much a document's likeness to those before it counts against it."""

    index: str
    queries: Annotated[list[_Query], msgspec.Meta(min_length=1, max_length=MAX_QUERIES)]
    size: Annotated[int, msgspec.Meta(ge=1, le=MAX_PASSAGES)] = 5
    filter: msgspec.Raw = msgspec.Raw(b"[]")
    stage: Stage | None = None
    diverse: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None


class RetrievedPassage(msgspec.Struct):
    """A passage: the best of its document. `start` and `end` count characters of the document's enriched text."""

    rank: int
    index: str
    doc_id: str
    score: float
    start: int
    end: int
    text: str


class Retrieved(msgspec.Struct):
    """The passages for one query, best first. `stages`, `degraded` and `confidence` as in the header `X-Bridge`; the
    last is null if the index is not calibrated."""

    query: str
    stages: str
    degraded: list[str]
    confidence: float | None
    passages: list[RetrievedPassage]


class RetrieveAnswer(msgspec.Struct):
    """The answers to all queries, in their order."""

    took_ms: int
    results: list[Retrieved]


class RetrievedDocument(msgspec.Struct):
    """A document; `source` is what the cluster shows of it to the caller, None if that could not be had."""

    rank: int
    index: str
    doc_id: str
    score: float
    source: msgspec.Raw | None


class IndexDescription(msgspec.Struct):
    """What a caller may know of an index before he asks it.

    - `documents`: how many of them the cluster shows to the caller; None if that could not be had.
    - `text_fields`: the fields that make a document's text, in the order in which they are joined.
    - `enriched_with`: what the bridge made of each document: `predicted_queries`, `vectors`, `terms`, `pictures`.
    - `scripts`: the writing systems that the models read; empty if that was not found out.
    - `stages`: what may rank a search, the last one by default.
    """

    index: str
    documents: int | None
    text_fields: list[str]
    enriched_with: list[str]
    scripts: list[str]
    stages: list[Stage]


Marks = Mapping[str, str]
"""Headers of an answer that say what was done."""


class Retrieval:
    """Answers in the caller's name, with a budget for each query. `caller` are the forwarded headers of a request.

    All methods raise Refused: 400 for a filter that the cluster does not take or an index that the bridge has not
    enriched, 403 if the caller may not search it, 503 if the cluster cannot be reached or does not answer in time.
    """

    route = "retrieve"
    path = "/_bridge/retrieve"
    methods: Sequence[str] = (hdrs.METH_POST,)

    def __init__(
        self,
        planner: Planner,
        rankings: RankingCache,
        ranker: Ranker,
        searches: OwnSearches,
        settings: ProxySettings,
        metrics: Metrics,
    ) -> None:
        self.listener = settings.retrieve
        self._planner = planner
        self._rankings = rankings
        self._ranker = ranker
        self._searches = searches
        self._metrics = metrics

    async def answer(self, inbound: Inbound, body: bytes) -> web.Response:
        """The answer to a request; a body that is no `RetrieveRequest` is refused with 400."""
        started = _now()
        try:
            wanted = decode(body, RetrieveRequest)
        except msgspec.DecodeError as error:
            raise _malformed(str(error)) from error
        results, done = await self.retrieve(wanted, inbound.headers)
        answer = RetrieveAnswer(round((_now() - started) * 1000), results)
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json", headers=done)

    def refusal(self, refused: Refused) -> bytes:
        """As OpenSearch writes an error."""
        return refused.body()

    async def retrieve(self, wanted: RetrieveRequest, caller: CIMultiDict[str]) -> tuple[list[Retrieved], Marks]:
        """The passages for each query."""
        started = _now()
        conditions = _conditions(wanted.filter)
        profile = await profile_of_index(self._planner, wanted.index, caller)
        at_once = asyncio.Semaphore(AT_ONCE)

        async def retrieved(query: str) -> tuple[Ranked, Retrieved]:
            async with at_once:
                plan = self._plan(wanted, query, conditions, profile, caller)
                ranked = await self._ranked(plan)
                passages = await self._passages(plan, ranked)
                return ranked, Retrieved(query, ranked.stages, ranked.notes.degraded, confidence_of(ranked), passages)

        answered = await asyncio.gather(*(retrieved(query) for query in wanted.queries))
        return [result for _, result in answered], self._marks([ranked for ranked, _ in answered], started)

    async def documents(
        self, wanted: RetrieveRequest, fields: Sequence[str], caller: CIMultiDict[str]
    ) -> tuple[list[RetrievedDocument], Ranked, Marks]:
        """The documents for the first query, best first, with those of their `fields` that the caller is shown; with
        all if it names none, except the bridge's own."""
        started = _now()
        conditions = _conditions(wanted.filter)
        profile = await profile_of_index(self._planner, wanted.index, caller)
        plan = self._plan(wanted, wanted.queries[0], conditions, profile, caller)
        ranked = await self._ranked(plan)
        page = ranked.ranking.hits[: wanted.size]
        source = {"includes": list(fields), "excludes": [profile.object_field]}
        sources: dict[Key, msgspec.Raw] = {}
        keys = [hit.key for hit in page]
        try:
            if keys:
                request = replace(plan.request, presentation={"_source": source})
                shown = await self._searches.show(plan, legs.shown(request, keys))
                sources = {hit.key: msgspec.Raw(bytes(hit.members.get("_source", b"{}"))) for hit in shown}
                keys = [key for key in keys if key in sources]  # others are gone meanwhile
        except StageFailed as failed:
            ranked.notes.failures.append(failed)
        found = [
            RetrievedDocument(rank, hit.index, hit.doc_id, hit.score, sources.get(hit.key))
            for rank, hit in enumerate((hit for hit in page if hit.key in keys), start=1)
        ]
        return found, ranked, self._marks([ranked], started)

    async def describe(self, index: str, caller: CIMultiDict[str]) -> IndexDescription:
        """What the index holds, told to whoever may search it."""
        profile = await profile_of_index(self._planner, index, caller)
        plan = self._plan(RetrieveRequest(index, []), "", [], profile, caller)
        try:
            documents = await self._searches.count(plan)
        except StageFailed as failed:
            if failed.reason == "total_forbidden":
                raise forbidden(index) from failed
            documents = None
        made = {
            "predicted_queries": profile.generator is not None,
            "vectors": profile.has_vectors,
            "terms": profile.has_terms,
            "pictures": profile.image is not None,
        }
        enriched_with = [name for name, is_made in made.items() if is_made]
        return IndexDescription(
            index, documents, profile.text_fields, enriched_with, profile.rules.scripts, profile.stages
        )

    def _plan(
        self,
        wanted: RetrieveRequest,
        query: str,
        conditions: Sequence[Json],
        profile: IndexProfile,
        caller: CIMultiDict[str],
    ) -> Plan:
        diversity = (profile.rules.diversity or DIVERSE) if wanted.diverse is None else wanted.diverse
        rules = msgspec.structs.replace(profile.rules, diversity=diversity)
        return Plan(
            request=words_request(query, profile.text_fields, conditions=conditions, size=wanted.size),
            profile=msgspec.structs.replace(profile, rules=rules),
            expression=wanted.index,
            caller=caller,
            stage=wanted.stage or profile.stages[-1],
            explain=False,
            deadline=_now() + self._planner.budget_s,
            budget_s=self._planner.budget_s,
        )

    def _marks(self, ranked: Sequence[Ranked], started: float) -> Marks:
        return marks(ranked, self._metrics, n_searches=len(ranked), took_s=_now() - started)

    async def _ranked(self, plan: Plan) -> Ranked:
        ranked = await self._rankings.rank(plan)
        if not ranked.ranking.hits and any(map(_is_refusal, ranked.notes.failures)):
            raise forbidden(plan.expression)
        if not ranked.ranking.hits and any(map(_is_rejection, ranked.notes.failures)):
            # Beside the filter there is nothing of the caller's in these searches that could be malformed.
            raise _malformed("the cluster does not take this filter")
        if not ranked.ranking.hits and (failure := next(filter(_is_outage, ranked.notes.failures), None)) is not None:
            raise unavailable(plan.expression, str(failure))
        return ranked

    async def _passages(self, plan: Plan, ranked: Ranked) -> list[RetrievedPassage]:
        page = ranked.ranking.hits[: plan.request.size]
        if not page:
            return []
        read = await self._ranker.passages(plan, ranked, [hit.key for hit in page])
        best = {key: ranked.ranking.passages.get(key, nearest) for key, [nearest, *_] in read.items()}
        return [
            RetrievedPassage(rank, hit.index, hit.doc_id, hit.score, passage.start, passage.end, passage.text)
            for rank, hit in enumerate(page, start=1)
            if (passage := best.get(hit.key)) is not None
        ]


def confidence_of(ranked: Ranked) -> float | None:
    """How probable it is that the index answers a query, as answers show it; None if the index is not calibrated."""
    confidence = ranked.ranking.confidence
    return None if confidence is None else round(confidence, 4)


async def profile_of_index(planner: Planner, index: str, caller: CIMultiDict[str]) -> IndexProfile:
    """The profile of an index or alias that a request to a door names.

    Raises:
        Refused: 400 if it has none, 503 if the cluster does not say so in time.
    """
    profile = await planner.profile(Searched(index), caller, deadline=_now() + planner.budget_s)
    if profile == CLUSTER_UNAVAILABLE:
        raise unavailable(index, REASONS[CLUSTER_UNAVAILABLE.reason])
    if isinstance(profile, LeaveAlone):
        raise Refused(400, "illegal_argument_exception", f"index {index}: {REASONS[profile.reason]}")
    return profile


def _now() -> float:
    return asyncio.get_running_loop().time()


def _malformed(detail: str) -> Refused:
    return Refused(400, "illegal_argument_exception", f"the request for passages: {detail}")


def forbidden(expression: str) -> Refused:
    """The caller may not search the index."""
    return Refused(
        403, "security_exception", f"the cluster refused the caller to search index {expression} by _msearch"
    )


def unavailable(expression: str, detail: str) -> Refused:
    """The cluster does not answer."""
    return Refused(503, "cluster_unavailable_exception", f"index {expression} cannot be searched now: {detail}")


def _is_rejection(failure: StageFailed) -> bool:
    """Whether the cluster took a search for malformed: all of them, or this one."""
    return failure.reason == "legs_rejected" or (
        failure.reason.endswith("_leg_failed") and str(failure).startswith(REJECTED)
    )


def _is_outage(failure: StageFailed) -> bool:
    """Whether the cluster failed to search: a query without hits then says nothing of the documents."""
    return failure.reason in ("legs_unavailable", "legs_slow") or failure.reason.endswith("_leg_failed")


def _is_refusal(failure: StageFailed) -> bool:
    """Whether the caller lacks a permission: for `_msearch` as a whole, or for the index in each of its searches."""
    return failure.reason == "legs_forbidden" or "security_exception" in str(failure)


def _conditions(filters: msgspec.Raw) -> list[Json]:
    """The clauses of a filter."""
    try:
        read = json_tree.read(bytes(filters))
    except ValueError as error:
        raise _malformed(str(error)) from error
    conditions = read if isinstance(read, list) else [read]
    if not all(isinstance(each, dict) for each in conditions):
        raise _malformed("filter: expected a clause, or an array of clauses")
    return conditions
