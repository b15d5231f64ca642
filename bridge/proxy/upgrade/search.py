"""Searches through the bridge, one or several in a request: left alone, or answered with a better ranking.

The application's own request goes to the cluster at once, its body byte for byte, and its answer gives totals,
aggregations and errors. The ranking is made at the same time; what it lacks is taken from that answer.
"""

import asyncio
import copy
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Self, TypeAlias

import aiohttp
from aiohttp import hdrs, web

from bridge import tracing
from bridge.errors import SettingsError, StageFailed
from bridge.profile import IndexProfile
from bridge.proxy.experiments.event_log import EventLog
from bridge.proxy.experiments.impressions import Impressions
from bridge.proxy.experiments.interleaving import Interleaving
from bridge.proxy.experiments.shadow import Shadow
from bridge.proxy.server.metrics import Metrics
from bridge.proxy.transport import elasticsearch_clients
from bridge.proxy.transport.headers import CONTROL, IMPRESSION, MARK, is_served, plain_media_type
from bridge.proxy.transport.passthrough import (
    WANTS_TYPES,
    AnswerMemory,
    Inbound,
    Share,
    aside,
    read_body,
    relay,
    relay_body,
    send,
)
from bridge.proxy.transport.refusals import Refused
from bridge.proxy.transport.upstream import Upstream
from bridge.proxy.upgrade import multisearch
from bridge.proxy.upgrade.answer import Composer, is_filtered, readable
from bridge.proxy.upgrade.planning import Control, Plan, Planner, Searched, left_alone, read_control
from bridge.proxy.upgrade.ranking import Ranked, RankingCache, marks
from bridge.search.request import LeaveAlone, template_parameters, unasked
from bridge.search.response import hidden
from bridge.settings import ProxySettings

MAX_RANKED_AT_ONCE = 4
"""Searches of one `_msearch` that are ranked at a time."""
MAX_UPGRADES = 64
"""Requests that are upgraded at a time; beyond it searches pass, which costs neither time nor answers."""

_USUAL_PLANNING_S = 0.05
"""Within this time most mappings have come, and the request leaves as it is needed."""

# A path that begins with two slashes names no index, and means all of them.
_SEARCH_PATH = re.compile(r"(?:/(?P<expression>[^/]*))?/(?P<endpoint>_search|_msearch)(?P<template>/template)?/*")

Plans: TypeAlias = Sequence[Plan | LeaveAlone]
"""For each search of a request how it is upgraded, or why it is not; one reason alone if it is for all of them."""


@dataclass(frozen=True, slots=True)
class SearchTarget:
    """A search's request line: `expression` (indices or aliases, still encoded, empty if there is none) and the query
    string; `several` for `_msearch`, `template` for templates of either."""

    expression: str
    query_string: str
    several: bool
    template: bool = False


def search_target(method: str, target: str) -> SearchTarget | None:
    """The search that a request line asks for; None if it asks for something else."""
    path, _, query_string = target.partition("?")
    match = _SEARCH_PATH.fullmatch(path)
    if match is None or method not in (hdrs.METH_GET, hdrs.METH_POST):
        return None
    return SearchTarget(
        match["expression"] or "",
        query_string,
        several=match["endpoint"] == "_msearch",
        template=match["template"] is not None,
    )


@dataclass(frozen=True, slots=True)
class _Made:
    """An answer to give the client: the cluster's, or its status and headers with another `body`; `marks` are headers
    of ours, `begun` is what was read of the cluster's body."""

    answer: aiohttp.ClientResponse
    marks: Mapping[str, str]
    body: bytes | None = None
    begun: bytes = b""


class _OwnRequest:
    """The application's own request. It leaves as it came if planning is slow, so that a slow mapping delays nothing;
    else when the plans are there. Call `close` at the end."""

    def __init__(self, upstream: Upstream, inbound: Inbound) -> None:
        self._upstream = upstream
        self._inbound = inbound
        self._early: asyncio.Task[aiohttp.ClientResponse] | None = None

    @contextmanager
    def sent_if_slow(self) -> Iterator[None]:
        """Sends the request if the block takes longer than reading a mapping usually does."""
        timer = asyncio.get_running_loop().call_later(_USUAL_PLANNING_S, self._send)
        try:
            yield
        finally:
            timer.cancel()

    def _send(self) -> None:
        self._early = asyncio.create_task(self._answered(self._inbound))

    async def _answered(self, inbound: Inbound) -> aiohttp.ClientResponse:
        is_at_hand = isinstance(inbound.body, bytes) and "scroll" not in inbound.target
        return await send(self._upstream, inbound, repeatable=is_at_hand or None)

    async def answer(self) -> aiohttp.ClientResponse:
        """The answer to the request as it came."""
        if self._early is None:
            return await self._answered(self._inbound)
        answer = await self._early
        self._early = None
        return answer

    async def readable_answer(self, plans: Plans) -> tuple[aiohttp.ClientResponse, bool]:
        """The answer to the request as `readable` changes it, and whether this is the very request that came: because
        it needed no change, or left before the plans were there."""
        if self._early is not None:
            return await self.answer(), True
        changed = readable(self._inbound, plans)
        return await self._answered(changed), changed.target == self._inbound.target

    def close(self) -> None:
        """Drops an answer that nobody took."""
        if self._early is not None:
            self._early.cancel()
            self._early.add_done_callback(_close_answer)


def _close_answer(sent: asyncio.Task[aiohttp.ClientResponse]) -> None:
    if not sent.cancelled() and sent.exception() is None:
        sent.result().close()


class Search:
    """Answers searches. Call `close` at the end.

    Attributes:
        interleaving: takes the clicks on interleaved answers; None in other modes.
    """

    def __init__(
        self,
        upstream: Upstream,
        planner: Planner,
        rankings: RankingCache,
        composer: Composer,
        memory: AnswerMemory,
        settings: ProxySettings,
        metrics: Metrics,
    ) -> None:
        """
        Raises:
            SettingsError: clicks on interleaved answers have no log, or no key.
        """
        events = EventLog(settings.event_log)
        self.interleaving: Interleaving | None = None
        if settings.mode == "interleave":
            if settings.event_log is None:
                raise SettingsError("proxy.mode interleave needs proxy.event_log: name a file for pages and clicks")
            impressions = Impressions.beside(settings.event_log)
            self.interleaving = Interleaving(rankings, events, impressions, log_queries=settings.event_log_queries)
        self._shadow = Shadow(rankings, metrics, events)
        self._upstream = upstream
        self._planner = planner
        self._rankings = rankings
        self._composer = composer
        self._memory = memory
        self._settings = settings
        self._metrics = metrics
        self._upgrades = 0

    async def close(self) -> None:
        """Cancel what runs in the background."""
        await self._shadow.close()

    def with_settings(self, settings: ProxySettings) -> Self:
        """The same with other settings."""
        twin = copy.copy(self)
        twin._settings = settings
        return twin

    async def answer(self, request: web.BaseRequest, inbound: Inbound, target: SearchTarget) -> web.StreamResponse:
        """Answers one request.

        Raises:
            Refused: the cluster cannot be reached, or the request's `x-bridge` header is wrong.
        """
        control = read_control(request.headers.get(CONTROL))
        with self._memory.share() as sent, self._memory.share() as share:
            inbound, body = await read_body(inbound, sent, limit=self._settings.max_search_body_bytes)
            # What a client takes to send its request is no time that the bridge adds.
            started = asyncio.get_running_loop().time()
            made = await self._made(inbound, body, target, control, started, share)
            if request.get(WANTS_TYPES):
                made = await _typed(made, share)
            if made.body is not None:
                share.hold(len(made.body))
                return await relay_body(request, made.answer, made.body, made.marks)
            share.hold(len(made.begun))
            return await relay(request, made.answer, made.marks, begun=made.begun)

    async def _made(
        self, inbound: Inbound, body: bytes | None, target: SearchTarget, control: Control, started: float, share: Share
    ) -> _Made:
        """The answer, before a byte of it is written: a client that reads slowly takes no other's place."""
        own = _OwnRequest(self._upstream, inbound)
        is_busy = self._upgrades >= MAX_UPGRADES
        self._upgrades += not is_busy
        try:
            with tracing.span("understand"), own.sent_if_slow():
                if is_busy:
                    plans: Plans = [await self._left_alone("busy", inbound, body, target, started)]
                else:
                    plans = await self._plans(inbound, body, target, control, started)
            if self._settings.mode == "shadow":
                self._compare(plans)
                return _Made(await own.answer(), {})
            if any(isinstance(plan, Plan) for plan in plans):
                return await self._composed(inbound, own, plans, target, started, share)
            return await self._passed_on(own, plans, target, share)
        finally:
            self._upgrades -= not is_busy
            own.close()

    def _compare(self, plans: Plans) -> None:
        for plan in plans:
            if isinstance(plan, Plan):
                self._shadow.compare(plan)

    async def _plans(
        self, inbound: Inbound, body: bytes | None, target: SearchTarget, control: Control, started: float
    ) -> Plans:
        """A plan for each search of the request, in their order; one reason alone if none is looked at."""
        items = await self._items(inbound, body, target, control)
        if isinstance(items, LeaveAlone):
            return [await self._left_alone(items.reason, inbound, body, target, started)]
        searched = [Searched.by(item.expression, item.query_string) for item in items]
        deadline = started + self._planner.budget_s
        profiles = await self._planner.profiles(set(searched), inbound.headers, deadline=deadline)
        objects = {each: self._planner.objects(each, inbound.headers) for each in profiles}
        of_one_index = {each: self._planner.leads_to_one_index(each, inbound.headers) for each in profiles}

        def planned() -> Plans:
            return [
                self._plan(item, profiles[each], objects[each], of_one_index[each], inbound, control, started)
                for item, each in zip(items, searched, strict=True)
            ]

        return await aside(sum(len(item.body) for item in items), planned)

    async def _items(
        self, inbound: Inbound, body: bytes | None, target: SearchTarget, control: Control
    ) -> Sequence[multisearch.Item] | LeaveAlone:
        """The searches of a request, or why it is left alone whatever they are."""
        if (reason := left_alone(control, inbound.headers)) is not None:
            return reason
        if not is_served(inbound.headers, self._settings):
            return LeaveAlone("canary")
        if body is None:
            return LeaveAlone("body")
        if target.several:
            if target.template:
                return LeaveAlone("several_templates")
            searches = body
            return await aside(
                len(body), lambda: multisearch.items(searches, target.query_string, expression=target.expression)
            )
        query_string = target.query_string
        if target.template:
            rendered = await multisearch.rendered_template(
                self._upstream, self._memory, body, inbound.headers, timeout_s=self._planner.budget_s
            )
            if isinstance(rendered, LeaveAlone):
                return rendered
            body, query_string = rendered, template_parameters(query_string)
        return [multisearch.Item(target.expression, body, query_string)]

    def _plan(
        self,
        item: multisearch.Item,
        profile: IndexProfile | LeaveAlone,
        objects: frozenset[str],
        of_one_index: bool,
        inbound: Inbound,
        control: Control,
        started: float,
    ) -> Plan | LeaveAlone:
        plan: Plan | LeaveAlone
        if isinstance(profile, LeaveAlone):
            plan = profile
        else:
            plan = self._planner.plan(
                item.expression,
                profile,
                item.body,
                item.query_string,
                caller=inbound.headers,
                control=control,
                started=started,
            )
        if isinstance(plan, Plan):
            return replace(plan, of_one_index=of_one_index)
        return replace(plan, hide=unasked(item.body, item.query_string, objects))

    async def _left_alone(
        self, reason: str, inbound: Inbound, body: bytes | None, target: SearchTarget, started: float
    ) -> LeaveAlone:
        """A request that passes whatever its searches are, and what its answer leaves out all the same."""
        if reason == "off":
            return LeaveAlone(reason)
        sent = body or b""
        if target.several:
            searched = await aside(
                len(sent), lambda: multisearch.searched(sent, target.query_string, expression=target.expression)
            )
        else:
            searched = {Searched.by(target.expression, target.query_string)}
        # No mapping can be read with another request's signature, and a busy proxy asks for nothing more.
        if reason not in ("signed", "busy"):
            deadline = started + self._planner.budget_s
            await self._planner.profiles(searched, inbound.headers, deadline=deadline)
        objects = frozenset[str]().union(*(self._planner.objects(each, inbound.headers) for each in searched))
        # A `_msearch` is no JSON of one piece: an object that any of its searches names stays in all of them.
        return LeaveAlone(reason, await aside(len(sent), lambda: unasked(sent, target.query_string, objects)))

    async def _passed_on(self, own: _OwnRequest, plans: Plans, target: SearchTarget, share: Share) -> _Made:
        """The cluster's own answer, without the bridge's objects: every search that passes goes out here."""
        marks = self._passed(_reason(plans))
        answer = await own.answer()
        is_json = plain_media_type(answer.content_type) == "application/json"
        if answer.status != 200 or not is_json or not any(plan.hide for plan in plans):
            return _Made(answer, marks)
        packed = await _read(share, answer)
        if packed is None or (body := await share.unpacked(packed, _coding(answer))) is None:
            return _Made(answer, marks, begun=share.begun if packed is None else packed)
        shown = await self._body(plans, [None] * len(plans), body, several=target.several)
        return _Made(answer, marks, begun=packed) if shown == body else _Made(answer, marks, shown)

    async def _composed(
        self,
        inbound: Inbound,
        own: "_OwnRequest",
        plans: Plans,
        target: SearchTarget,
        started: float,
        share: Share,
    ) -> _Made:
        """A better ranked answer; without the bridge's objects in those of its searches that pass."""
        at_once = asyncio.Semaphore(MAX_RANKED_AT_ONCE)
        # A click names one ranking, so the searches of one request are not interleaved.
        interleaving = None if self._settings.mode != "interleave" or target.several else self.interleaving
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def ranked_in_turn(plan: Plan) -> Ranked:
            async with at_once:
                if interleaving is not None:
                    return await interleaving.rank(plan)
                return await self._rankings.rank(plan, None if target.several else answered)

        rankings = [asyncio.create_task(ranked_in_turn(plan)) if isinstance(plan, Plan) else None for plan in plans]
        try:
            answer, is_as_sent = await own.readable_answer(plans)
            is_success = answer.status == 200
            packed = await share.read(answer) if is_success else None
            own_body = await share.unpacked(packed, _coding(answer)) if packed is not None else None
            if own_body is None:
                # The cluster's own error, or more than memory is left for: as a direct search would get it.
                begun = share.begun if packed is None else packed
                if not is_as_sent:
                    answer.close()
                    answer, begun = await send(self._upstream, inbound, repeatable=True), b""
                return _Made(answer, self._passed("busy") if is_success else {}, begun=begun)
            answered.set_result(own_body)
            ranked = [await ranking if ranking is not None else None for ranking in rankings]
        except aiohttp.ClientError as error:
            raise Refused(502, "cluster_connection_exception", f"the cluster's answer broke off: {error}") from error
        finally:
            for ranking in rankings:
                if ranking is not None:
                    ranking.cancel()
        is_partial = is_as_sent and is_filtered(plans)
        body = await self._body(plans, ranked, own_body, several=target.several, is_partial=is_partial)
        took_part = [each for each in ranked if each is not None]
        took_s = asyncio.get_running_loop().time() - started
        added = marks(took_part, self._metrics, n_searches=len(plans), took_s=took_s)
        if len(plans) == 1 and took_part[0].impression is not None:
            added[IMPRESSION] = took_part[0].impression
        return _Made(answer, added, body)

    async def _body(
        self,
        plans: Plans,
        ranked: Sequence[Ranked | None],
        own_body: bytes,
        *,
        several: bool,
        is_partial: bool = False,
    ) -> bytes:
        if not several or (len({plan.hide for plan in plans}) == 1 and not any(ranked)):
            return await self._one(plans[0], ranked[0], own_body, is_partial=is_partial)
        answers = await aside(len(own_body), lambda: multisearch.answers(own_body, len(plans)))
        if answers is None:
            for ranking in ranked:
                if ranking is not None:
                    ranking.notes.fall_back(StageFailed("answer_not_understood", "no answer to so many searches"))
            return own_body
        for i, (plan, ranking, response) in enumerate(zip(plans, ranked, answers.responses, strict=True)):
            await asyncio.sleep(0)  # each may be small, and all of them take long
            if await aside(len(response), functools.partial(multisearch.succeeded, response)):
                answers.responses[i] = await self._one(plan, ranking, response)
        return await aside(len(own_body), answers.body)

    async def _one(
        self, plan: Plan | LeaveAlone, ranking: Ranked | None, own_body: bytes, *, is_partial: bool = False
    ) -> bytes:
        """The answer to one search, from the cluster's."""
        if isinstance(plan, Plan) and ranking is not None:
            return await self._composer.compose(plan, ranking, own_body, is_partial=is_partial)
        return await aside(len(own_body), lambda: hidden(own_body, plan.hide))

    def _passed(self, reason: str) -> dict[str, str]:
        self._metrics.passed.labels(reason).inc()
        return {MARK: f"pass; reason={reason}"}


async def _read(share: Share, answer: aiohttp.ClientResponse) -> bytes | None:
    try:
        return await share.read(answer)
    except aiohttp.ClientError as error:
        raise Refused(502, "cluster_connection_exception", f"the cluster's answer broke off: {error}") from error


async def _typed(made: _Made, share: Share) -> _Made:
    """The answer as a client of Elasticsearch 7 wants it, unless it is too large to be read."""
    body = made.body
    if body is None:
        packed = made.begun or await _read(share, made.answer)
        if packed is None or not made.answer.content.at_eof():
            return replace(made, begun=made.begun or share.begun)
        body = await share.unpacked(packed, _coding(made.answer))
        if body is None:
            return replace(made, begun=packed)
    return replace(made, body=await aside(len(body), functools.partial(elasticsearch_clients.with_types, body)))


def _coding(answer: aiohttp.ClientResponse) -> str:
    return answer.headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower()


def _reason(plans: Plans) -> str:
    # Searches of one request are mostly left alone for one reason.
    return next(plan.reason for plan in plans if isinstance(plan, LeaveAlone))
