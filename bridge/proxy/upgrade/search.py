"""Searches through the bridge, one or several in a request: left alone, or answered with a better ranking.

The application's own request goes to the cluster at once, its body byte for byte, and its answer gives totals,
aggregations and errors. Beside it the ranking is made; what is missing then falls back on that answer.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp
from aiohttp import hdrs, web

from bridge import tracing
from bridge.errors import StageFailed
from bridge.proxy.experiments import canary
from bridge.proxy.experiments.interleaving import Interleaving
from bridge.proxy.experiments.shadow import Shadow
from bridge.proxy.server.metrics import Metrics
from bridge.proxy.transport import headers
from bridge.proxy.transport.passthrough import Inbound, RelayedResponse, relay, send
from bridge.proxy.transport.refusals import Refused
from bridge.proxy.transport.search_body import read_body
from bridge.proxy.transport.upstream import Upstream
from bridge.proxy.upgrade import multisearch, own_answer
from bridge.proxy.upgrade.composing import Composer
from bridge.proxy.upgrade.control import Control, read_control
from bridge.proxy.upgrade.planning import Plan, Planner, left_alone
from bridge.proxy.upgrade.ranking import Ranked
from bridge.proxy.upgrade.templates import Templates
from bridge.search.hiding import hidden
from bridge.search.request import LeaveAlone
from bridge.settings import ProxySettings

MARK = "X-Bridge"
IMPRESSION = "X-Bridge-Impression"
"""What a click on an interleaved answer names."""
MAX_RANKED_AT_ONCE = 4
"""Searches of one `_msearch` that are ranked at a time."""
MAX_UPGRADES = 64
"""Requests that are upgraded at a time; beyond it searches pass, which costs neither time nor answers."""

_SEARCH_PATH = re.compile(r"(?:/(?P<expression>[^/]+))?/(?P<endpoint>_search|_msearch|_search/template)")


@dataclass(frozen=True, slots=True)
class SearchTarget:
    """What a path names: `expression` (indices or aliases, still encoded, empty where there is none) and the
    query string; `several` for `_msearch`, `template` for `_search/template`."""

    expression: str
    query_string: str
    several: bool
    template: bool = False


def search_target(method: str, target: str) -> SearchTarget | None:
    """The search that a request line asks for; None where it asks for something else."""
    path, _, query_string = target.partition("?")
    found = _SEARCH_PATH.fullmatch(path)
    if found is None or method not in (hdrs.METH_GET, hdrs.METH_POST):
        return None
    endpoint = found["endpoint"]
    return SearchTarget(
        found["expression"] or "", query_string, several=endpoint == "_msearch", template=endpoint == "_search/template"
    )


class Search:
    """Answers searches."""

    def __init__(
        self,
        upstream: Upstream,
        planner: Planner,
        composer: Composer,
        shadow: Shadow,
        interleaving: Interleaving,
        settings: ProxySettings,
        metrics: Metrics,
    ) -> None:
        self._upstream = upstream
        self._templates = Templates(upstream, timeout_s=settings.budget_ms / 1000)
        self._shadow = shadow
        self._interleaving = interleaving
        self._planner = planner
        self._composer = composer
        self._settings = settings
        self._metrics = metrics
        self._upgrades = 0

    async def answer(self, request: web.BaseRequest, asked: Inbound, target: SearchTarget) -> web.StreamResponse:
        """Answers one request.

        Raises:
            Refused: the cluster cannot be reached, or the request's `x-bridge` header is wrong.
        """
        started = asyncio.get_running_loop().time()
        control = read_control(request.headers.get(headers.CONTROL_HEADER))
        asked, body = await read_body(asked, limit=self._settings.max_search_body_bytes)
        reason = "busy"
        if self._upgrades < MAX_UPGRADES:
            self._upgrades += 1
            try:
                with tracing.span("understand"):
                    plans = await self._plans(asked, body, target, control, started)
                if self._settings.mode == "shadow":
                    return await self._shadowed(request, asked, plans)
                if any(isinstance(plan, Plan) or plan.hide is not None for plan in plans):
                    return await self._composed(request, asked, plans, target, started)
            finally:
                self._upgrades -= 1
            reason = _reason(plans)
        return await relay(request, await send(self._upstream, asked), self._passed(reason))

    async def _shadowed(
        self, request: web.BaseRequest, asked: Inbound, plans: Sequence[Plan | LeaveAlone]
    ) -> web.StreamResponse:
        for plan in plans:
            if isinstance(plan, Plan):
                self._shadow.compare(plan)
        return await relay(request, await send(self._upstream, asked), {})

    async def _plans(
        self, asked: Inbound, body: bytes | None, target: SearchTarget, control: Control, started: float
    ) -> Sequence[Plan | LeaveAlone]:
        """A plan for each search of the request, in their order; one reason alone where none is looked at."""
        if (reason := left_alone(control, asked.headers)) is not None:
            return [reason]
        if not canary.chosen(asked.headers, self._settings.canary_percent):
            return [LeaveAlone("canary")]
        if body is None:
            return [LeaveAlone("body")]
        if target.template:
            rendered = await self._templates.search_body(body, asked.headers)
            if isinstance(rendered, LeaveAlone):
                return [rendered]
            body = rendered
        if target.several:
            items = multisearch.items(body, target.query_string, expression=target.expression)
            if isinstance(items, LeaveAlone):
                return [items]
        else:
            items = [multisearch.Item(target.expression, body, target.query_string)]
        return [
            await self._planner.plan(
                item.expression, item.body, item.query_string, caller=asked.headers, control=control, started=started
            )
            for item in items
        ]

    async def _composed(
        self,
        request: web.BaseRequest,
        asked: Inbound,
        plans: Sequence[Plan | LeaveAlone],
        target: SearchTarget,
        started: float,
    ) -> web.StreamResponse:
        """An answer that differs from the cluster's: better ranked, or without the bridge's own object."""
        at_once = asyncio.Semaphore(MAX_RANKED_AT_ONCE)
        # A click names one ranking, so the searches of one request are not interleaved.
        interleaved = self._settings.mode == "interleave" and not target.several
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def ranked_in_turn(plan: Plan) -> Ranked:
            async with at_once:
                if interleaved:
                    return await self._interleaving.rank(plan)
                return await self._composer.rank(plan, None if target.several else answered)

        rankings = [asyncio.create_task(ranked_in_turn(plan)) if isinstance(plan, Plan) else None for plan in plans]
        try:
            answer = await send(self._upstream, own_answer.readable(asked, plans), repeatable=True)
            own_body = await own_answer.held(answer)
            if own_body is None:
                # The cluster's own error, or an answer too large to hold: as a direct search would get it.
                if own_answer.is_filtered(plans) or (answer.status == 200 and answer.content_length is None):
                    answer.close()
                    answer = await send(self._upstream, asked, repeatable=True)
                upgradable = any(isinstance(plan, Plan) for plan in plans)
                return await relay(request, answer, {} if upgradable else self._passed(_reason(plans)))
            answered.set_result(own_body)
            ranked = [await ranking if ranking is not None else None for ranking in rankings]
        except aiohttp.ClientError as error:
            raise Refused(502, "cluster_connection_exception", f"the cluster's answer broke off: {error}") from error
        finally:
            for ranking in rankings:
                if ranking is not None:
                    ranking.cancel()
        body = await self._body(plans, ranked, own_body, several=target.several)
        took_part = [each for each in ranked if each is not None]
        added = self._marks(took_part, len(plans), started) if took_part else self._passed(_reason(plans))
        return await _reply(request, answer, body, added)

    async def _body(
        self, plans: Sequence[Plan | LeaveAlone], ranked: Sequence[Ranked | None], own_body: bytes, *, several: bool
    ) -> bytes:
        if not several:
            return await self._one(plans[0], ranked[0], own_body)
        answers = multisearch.answers(own_body, len(plans))
        if answers is None:
            for ranking in ranked:
                if ranking is not None:
                    ranking.notes.fall_back(StageFailed("answer_not_understood", "no answer to so many searches"))
            return own_body
        for i, (plan, ranking) in enumerate(zip(plans, ranked, strict=True)):
            if multisearch.succeeded(answers.responses[i]):
                answers.responses[i] = await self._one(plan, ranking, answers.responses[i])
        return answers.body()

    async def _one(self, plan: Plan | LeaveAlone, ranking: Ranked | None, own_body: bytes) -> bytes:
        """The answer to one search, from the cluster's."""
        if isinstance(plan, Plan) and ranking is not None:
            return await self._composer.compose(plan, ranking, own_body)
        return own_body if isinstance(plan, Plan) or plan.hide is None else hidden(own_body, plan.hide)

    def _passed(self, reason: str) -> dict[str, str]:
        self._metrics.passed.labels(reason).inc()
        return {MARK: f"pass; reason={reason}"}

    def _marks(self, ranked: Sequence[Ranked], n_searches: int, started: float) -> dict[str, str]:
        """The headers that tell what was done, which the metrics count too."""
        took_s = asyncio.get_running_loop().time() - started
        degraded = [reason for each in ranked for reason in each.notes.degraded]
        timings = [(stage, ms) for each in ranked for stage, ms in each.notes.timings_ms.items()]
        for reason in degraded:
            self._metrics.degraded.labels(reason).inc()
        for stage, ms in timings:
            self._metrics.stage_duration.labels(stage).observe(ms / 1000)
        marks = [ranked[0].stages if n_searches == 1 else f"upgraded={len(ranked)}/{n_searches}"]
        if degraded:
            marks.append(f"degraded={','.join(dict.fromkeys(degraded))}")
        if any(each.kept for each in ranked):
            marks.append("kept")
        marks.append(f"took_ms={took_s * 1000:.0f}")
        added = {MARK: "; ".join(marks)}
        if n_searches == 1:
            added["Server-Timing"] = ", ".join(f"{stage};dur={ms:.1f}" for stage, ms in timings)
            if ranked[0].impression is not None:
                added[IMPRESSION] = ranked[0].impression
        return added


def _reason(plans: Sequence[Plan | LeaveAlone]) -> str:
    # Searches of one request are mostly left alone for one reason.
    return next(plan.reason for plan in plans if isinstance(plan, LeaveAlone))


async def _reply(
    request: web.BaseRequest, answer: aiohttp.ClientResponse, body: bytes, added: dict[str, str]
) -> web.StreamResponse:
    given = headers.answered(answer.headers)
    given[hdrs.CONTENT_LENGTH] = str(len(body))
    response = RelayedResponse(answer.status, answer.reason, given, added)
    await response.prepare(request)
    await response.write(body)
    await response.write_eof()
    return response
