"""The bridge's own searches, each within the time that is left and a bounded memory: in the caller's name, and of
companions in its own."""

import asyncio
import contextlib
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from cachetools import TTLCache

from bridge import tracing
from bridge.errors import AnswerNotUnderstood, StageFailed
from bridge.profile import companion_of
from bridge.proxy.transport.headers import identity, of_a_leg, own_identity
from bridge.proxy.transport.passthrough import AnswerMemory, aside
from bridge.proxy.transport.refusals import Refused
from bridge.proxy.transport.upstream import Upstream
from bridge.proxy.upgrade.planning import Plan
from bridge.records import Key
from bridge.search import beside, json_tree, legs
from bridge.search.json_tree import Json
from bridge.search.response import OwnAnswer, ShownHit, found_hits, source_texts
from bridge.settings import Settings
from bridge.text import decode_answer

_CACHED_CONDITIONS = 10_000
_SHOWING_SHARE = 0.15
"""Of the budget: what the stages before leave for showing the hits that they brought up."""


class _Count(msgspec.Struct):
    count: int


class OwnSearches:
    """Asks the cluster for what the application's own answer lacks.

    Companions are asked by the identity of `settings.cluster`, which no search of the application's index carries.

    Attributes:
        reach: how many candidates of companions searches with the same conditions needed lately.
        beyond_texts: how many bytes hits held lately beside their texts, by how they are shown.
    """

    def __init__(self, upstream: Upstream, memory: AnswerMemory, settings: Settings) -> None:
        self._upstream = upstream
        self._memory = memory
        self._prefix = settings.companion.prefix
        self._own_identity = own_identity(settings.cluster)
        self._per_request_headers = settings.proxy.per_request_headers
        self.reach: TTLCache[bytes, int] = TTLCache(_CACHED_CONDITIONS, settings.proxy.profile_ttl_s)
        self.beyond_texts: TTLCache[bytes, float] = TTLCache(_CACHED_CONDITIONS, settings.proxy.profile_ttl_s)

    async def hits(self, plan: Plan, body: Json, *, stage: str, deadline: float) -> list[ShownHit]:
        """The hits of one search.

        Raises:
            StageFailed: `STAGE_unavailable`, `STAGE_slow`, `STAGE_forbidden`, `STAGE_rejected`.
        """
        return await self._hits(plan, scope(plan), body, stage, deadline)

    async def show(self, plan: Plan, body: Json) -> list[ShownHit]:
        """The hits of a search that shows documents as the application wants them.

        Raises:
            StageFailed: `hits_unavailable`, `hits_slow`, `hits_forbidden`, `hits_rejected`.
        """
        parameters = {**plan.request.url_presentation, **scope(plan)}
        return await self._hits(plan, parameters, body, "hits", deadline_of_showing(plan))

    async def aggregations(self, plan: Plan, body: Json) -> msgspec.Raw:
        """The aggregations of a search, as the cluster writes them; an empty object if it gives none.

        Raises:
            StageFailed: `facets_unavailable`, `facets_slow`, `facets_forbidden`, `facets_rejected`.
        """
        parameters = {**plan.request.url_presentation, **scope(plan)}
        written = json_tree.write(body)
        answer = await self._ask(plan, plan.expression, "_search", parameters, written, "facets", plan.deadline)
        try:
            members = await aside(len(answer), lambda: OwnAnswer(answer).members)
        except AnswerNotUnderstood as error:
            raise StageFailed("facets_unavailable", str(error)) from error
        return members.get("aggregations", msgspec.Raw(b"{}"))

    async def count(self, plan: Plan) -> int:
        """How many documents the plan's indices show to the caller, whatever the search is.

        Raises:
            StageFailed: `total_unavailable`, `total_slow`, `total_forbidden`, `total_rejected`.
        """
        answer = await self._ask(plan, plan.expression, "_count", {}, b"{}", "total", plan.deadline)
        try:
            return decode_answer(answer, _Count).count
        except msgspec.DecodeError as error:
            raise StageFailed("total_unavailable", f"the answer to _count cannot be read: {error}") from error

    async def msearch(self, plan: Plan, body: bytes, *, stage: str, deadline: float | None = None) -> bytes:
        """The cluster's answer to a `_msearch`; by default until the search's deadline.

        Raises:
            StageFailed: `STAGE_unavailable`, `STAGE_slow`, `STAGE_forbidden`, `STAGE_rejected`.
        """
        until = plan.deadline if deadline is None else deadline
        return await self._ask(plan, plan.expression, "_msearch", {}, body, stage, until)

    def conditions(self, plan: Plan) -> bytes:
        """Names who asks, and under which conditions: what `reach` is kept by."""
        conditions = [plan.expression, legs.allowed(plan.request), dict(plan.request.scope)]
        caller = identity(plan.caller, self._per_request_headers)
        return caller + hashlib.sha256(json_tree.write(conditions)).digest()

    def presentation(self, plan: Plan) -> Mapping[str, Json] | None:
        """How admissions show whole hits; None if they show texts alone, because hits hold much more or may do so."""
        shown = beside.presentation(plan.request, plan.profile)
        light = shown and self.beyond_texts.get(_shown_as(plan), math.inf) <= beside.MAX_BEYOND_TEXTS
        return shown if light else None

    async def note_sizes(self, plan: Plan, hits: Sequence[ShownHit]) -> None:
        """Notes how many bytes hits hold beside their texts if they are shown as this search wants them."""
        if not hits or beside.presentation(plan.request, plan.profile) is None:
            return
        fields = plan.profile.text_fields
        whole = sum(memoryview(value).nbytes for hit in hits for value in hit.members.values())
        # What cannot be read has no texts.
        with contextlib.suppress(ValueError, RecursionError):
            texts = await aside(whole, lambda: sum(len(source_texts(hit, fields).encode()) for hit in hits))
            self.beyond_texts[_shown_as(plan)] = (whole - texts) / len(hits)

    async def companion_msearch(self, plan: Plan, bodies: Iterable[Json]) -> bytes:
        """The answer of the companions to a `_msearch` of these searches.

        Raises:
            StageFailed: `companion_unavailable`, `companion_slow`, `companion_forbidden`, `companion_rejected`.
        """
        body = legs.msearch(bodies, _same_copies(plan))
        return await self._ask(
            plan, self._companion_expression(plan), "_msearch", {}, body, "companion", plan.deadline, own=True
        )

    async def companion_hits(
        self, plan: Plan, keys: Sequence[Key], body_of: Callable[[Sequence[Key]], Json], *, deadline: float
    ) -> list[ShownHit]:
        """The hits of one search of the companions for documents that the application's index returned to the caller;
        `body_of` makes it from their keys in the companions. The hits have the application's keys.

        Raises:
            StageFailed: as `companion_msearch`.
        """
        if not keys:
            return []
        generation = plan.profile.generation
        key_of = {(companion_of(index, self._prefix, generation), doc_id): (index, doc_id) for index, doc_id in keys}
        body = body_of(list(key_of))
        hits = await self._hits(plan, _same_copies(plan), body, "companion", deadline, own=True)
        return [replace(hit, key=key_of[hit.key]) for hit in hits if hit.key in key_of]

    async def companion_search(self, plan: Plan, body: Json, *, deadline: float) -> list[ShownHit]:
        """The hits of one search of the companions, whoever may see their documents. They have the application's keys.

        Raises:
            StageFailed: as `companion_msearch`.
        """
        index_of = self.companions(plan)
        hits = await self._hits(plan, _same_copies(plan), body, "companion", deadline, own=True)
        return [replace(hit, key=(index_of[hit.key[0]], hit.key[1])) for hit in hits if hit.key[0] in index_of]

    def companions(self, plan: Plan) -> dict[str, str]:
        """The names of the companions, and the application's index of each."""
        generation = plan.profile.generation
        return {companion_of(index, self._prefix, generation): index for index in plan.profile.beside_indices}

    def _companion_expression(self, plan: Plan) -> str:
        return quote(",".join(self.companions(plan)), safe=",")

    async def _hits(
        self,
        plan: Plan,
        parameters: Mapping[str, str],
        body: Json,
        stage: str,
        deadline: float,
        *,
        own: bool = False,
    ) -> list[ShownHit]:
        """The hits of a search of the application's index in the caller's name, or of the companions (`own`)."""
        indices = self._companion_expression(plan) if own else plan.expression
        answer = await self._ask(plan, indices, "_search", parameters, json_tree.write(body), stage, deadline, own=own)
        try:
            return await aside(len(answer), lambda: found_hits(answer))
        except AnswerNotUnderstood as error:
            raise StageFailed(f"{stage}_unavailable", str(error)) from error

    async def _ask(
        self,
        plan: Plan,
        expression: str,
        endpoint: str,
        parameters: Mapping[str, str],
        body: bytes,
        stage: str,
        deadline: float,
        *,
        own: bool = False,
    ) -> bytes:
        query = f"?{urlencode(parameters)}" if parameters else ""
        target = f"/{expression}/{endpoint}{query}"
        headers = self._own_identity.copy() if own else of_a_leg(plan.caller)
        try:
            async with asyncio.timeout_at(deadline):
                with tracing.span(endpoint.removeprefix("_"), _traced(endpoint, expression)):
                    tracing.join(headers)
                    answer = await self._upstream.send("POST", target, headers, body)
                    with self._memory.share() as share:
                        async with answer:
                            content = await share.read(answer)
        except TimeoutError as error:
            raise StageFailed(f"{stage}_slow", f"the cluster did not answer {endpoint} within the budget") from error
        except (Refused, aiohttp.ClientError) as error:
            raise StageFailed(f"{stage}_unavailable", str(error)) from error
        if answer.status in (401, 403):
            whose = f"cluster.username, which needs to read {expression}" if own else "the caller"
            raise StageFailed(f"{stage}_forbidden", f"the cluster refused {endpoint} to {whose}")
        if answer.status == 400:
            raise StageFailed(f"{stage}_rejected", f"the cluster took {endpoint} for malformed")
        if answer.status != 200:
            raise StageFailed(f"{stage}_unavailable", f"the cluster answered {endpoint} with status {answer.status}")
        if content is None:
            raise StageFailed(f"{stage}_unavailable", f"the answer to {endpoint} is larger than memory is left for")
        return content


def _traced(endpoint: str, expression: str) -> tracing.Attributes:
    """OpenTelemetry's names for what is asked of a database: never the query itself."""
    return {
        "db.system.name": "opensearch",
        "db.operation.name": endpoint.removeprefix("_"),
        "db.collection.name": expression,
    }


def _shown_as(plan: Plan) -> bytes:
    return hashlib.sha256(json_tree.write([plan.expression, plan.request.presentation])).digest()


def deadline_of_ranking(plan: Plan) -> float:
    """Until when hits are ranked, on the event loop's clock."""
    return plan.deadline - plan.budget_s * _SHOWING_SHARE


def deadline_of_showing(plan: Plan) -> float:
    """Until when hits that the ranking brought up may be fetched: it gets its share even if ranking took all."""
    return max(plan.deadline, asyncio.get_running_loop().time() + plan.budget_s * _SHOWING_SHARE)


def scope(plan: Plan) -> dict[str, str]:
    """The application's routing and the like; and the same copies of the shards for every page."""
    return {**_same_copies(plan), **plan.request.scope}


def _same_copies(plan: Plan) -> dict[str, str]:
    by_query = hashlib.sha256(plan.request.text.encode()).hexdigest()[:16]
    return {"preference": f"bridge-{by_query}"}
