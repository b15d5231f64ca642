"""`POST /_bridge/retrieve`: questions in, passages out, for question answering and for language models."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

import msgspec
from multidict import CIMultiDict

from bridge.errors import StageFailed
from bridge.profile import IndexProfile, Stage
from bridge.proxy.transport.refusals import Refused
from bridge.proxy.upgrade.planning import CLUSTER_UNAVAILABLE, Plan, Planner, Searched
from bridge.proxy.upgrade.ranking import Ranked, Ranker, RankingCache
from bridge.search import json_tree
from bridge.search.json_tree import Json
from bridge.search.reasons import REASONS
from bridge.search.request import MAX_TEXT_CHARS, LeaveAlone, words_request
from bridge.search.response import REJECTED
from bridge.text import decode

PATH = "/_bridge/retrieve"

MAX_QUERIES = 100
MAX_PASSAGES = 100
AT_ONCE = 4
"""Queries of one request that are ranked at a time."""

_Query = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT_CHARS, pattern=r"\S")]


class RetrieveRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What to look for: `queries`, answered each by itself, with the `size` best passages of as many documents of
    `index`. `filter`: clauses of the query language that documents have to meet; `stage`: where to stop."""

    index: str
    queries: Annotated[list[_Query], msgspec.Meta(min_length=1, max_length=MAX_QUERIES)]
    size: Annotated[int, msgspec.Meta(ge=1, le=MAX_PASSAGES)] = 5
    filter: msgspec.Raw = msgspec.Raw(b"[]")
    stage: Stage | None = None


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
    """The passages for one query, best first. `stages` and `degraded` as in the header `X-Bridge`."""

    query: str
    stages: str
    degraded: list[str]
    passages: list[RetrievedPassage]


class RetrieveAnswer(msgspec.Struct):
    """The answers to all queries, in their order."""

    took_ms: int
    results: list[Retrieved]


class Retrieval:
    """Answers in the caller's name, with a budget for each query."""

    def __init__(self, planner: Planner, rankings: RankingCache, ranker: Ranker) -> None:
        self._planner = planner
        self._rankings = rankings
        self._ranker = ranker

    async def answer(self, body: bytes, caller: CIMultiDict[str]) -> bytes:
        """The answer to a request's body; `caller` are its forwarded headers.

        Raises:
            Refused: 400 for a wrong request, a filter that the cluster does not take or an index that the bridge has
                not enriched, 403 if the caller may not search it, 503 if the cluster cannot be reached or does not
                answer in time.
        """
        started = asyncio.get_running_loop().time()
        wanted, conditions = _read(body)
        profile = await self._planner.profile(Searched(wanted.index), caller, deadline=started + self._planner.budget_s)
        if profile == CLUSTER_UNAVAILABLE:
            raise _unavailable(wanted.index, REASONS[CLUSTER_UNAVAILABLE.reason])
        if isinstance(profile, LeaveAlone):
            raise Refused(400, "illegal_argument_exception", f"index {wanted.index}: {REASONS[profile.reason]}")
        at_once = asyncio.Semaphore(AT_ONCE)

        async def retrieved(query: str) -> Retrieved:
            async with at_once:
                return await self._retrieved(self._plan(wanted, query, conditions, profile, caller))

        results = await asyncio.gather(*(retrieved(query) for query in wanted.queries))
        took_s = asyncio.get_running_loop().time() - started
        return msgspec.json.encode(RetrieveAnswer(round(took_s * 1000), results))

    def _plan(
        self,
        wanted: RetrieveRequest,
        query: str,
        conditions: Sequence[Json],
        profile: IndexProfile,
        caller: CIMultiDict[str],
    ) -> Plan:
        return Plan(
            request=words_request(query, profile.text_fields, conditions=conditions, size=wanted.size),
            profile=profile,
            expression=wanted.index,
            caller=caller,
            stage=wanted.stage or profile.stages[-1],
            explain=False,
            deadline=asyncio.get_running_loop().time() + self._planner.budget_s,
            budget_s=self._planner.budget_s,
        )

    async def _retrieved(self, plan: Plan) -> Retrieved:
        ranked = await self._rankings.rank(plan)
        if not ranked.ranking.hits and any(map(_is_refusal, ranked.notes.failures)):
            raise Refused(
                403,
                "security_exception",
                f"the cluster refused the caller to search index {plan.expression} by _msearch",
            )
        if not ranked.ranking.hits and any(map(_is_rejection, ranked.notes.failures)):
            # Beside the filter there is nothing of the caller's in these searches that could be malformed.
            raise Refused(400, "illegal_argument_exception", f"{PATH}: the cluster does not take this filter")
        if not ranked.ranking.hits and (failure := next(filter(_is_outage, ranked.notes.failures), None)) is not None:
            raise _unavailable(plan.expression, str(failure))
        passages = await self._passages(plan, ranked)
        return Retrieved(plan.request.text, ranked.stages, ranked.notes.degraded, passages)

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


def _unavailable(expression: str, detail: str) -> Refused:
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


def _read(body: bytes) -> tuple[RetrieveRequest, list[Json]]:
    """The request, and its filter as a list of clauses."""
    try:
        wanted = decode(body, RetrieveRequest)
        filters = json_tree.read(bytes(wanted.filter))
    except (msgspec.DecodeError, ValueError) as error:
        raise Refused(400, "illegal_argument_exception", f"{PATH}: {error}") from error
    conditions = filters if isinstance(filters, list) else [filters]
    if not all(isinstance(each, dict) for each in conditions):
        raise Refused(400, "illegal_argument_exception", f"{PATH}: filter: expected a clause, or an array of clauses")
    return wanted, conditions
