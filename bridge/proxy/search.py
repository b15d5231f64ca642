"""One search through the bridge: left alone, or answered with a better ranking.

The application's own request goes to the cluster at once, byte for byte, and its answer gives totals,
aggregations and errors. Beside it the ranking is made; what is missing then falls back on that answer.
"""

import asyncio
import re
import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

import aiohttp
import structlog
from aiohttp import hdrs, web
from multidict import CIMultiDict

from bridge.errors import AnswerNotUnderstood
from bridge.proxy import explain, headers
from bridge.proxy.control import Control, read_control
from bridge.proxy.metrics import Metrics
from bridge.proxy.passthrough import Body, Inbound, RelayedResponse, relay, send
from bridge.proxy.profiles import Profiles
from bridge.proxy.ranking import Plan, Ranked, Ranker
from bridge.proxy.refusals import Refused
from bridge.proxy.sidecar import StageFailed
from bridge.proxy.upstream import Upstream
from bridge.records import RankedHit
from bridge.search import legs
from bridge.search.request import LeaveAlone, parse
from bridge.search.reranking import tail_score
from bridge.search.response import OwnAnswer, RawObject, ShownHit, shown_hit
from bridge.settings import ProxySettings

log = structlog.get_logger(__name__)

MARK = "X-Bridge"
MAX_OWN_ANSWER_BYTES = 64 * 1024 * 1024
"""A larger answer is passed on as it comes instead of being held in memory."""

_SEARCH_PATH = re.compile(r"/([^/?]+)/_search")
_JSON_ANSWERS = ("application/json", "*/*", "application/*", "")
_GZIP = 31  # zlib's name for "with a gzip header"


@dataclass(frozen=True, slots=True)
class SearchTarget:
    """What the path of a `_search` names: `expression` (index or alias, still encoded) and the query string."""

    expression: str
    query_string: str


def search_target(method: str, target: str) -> SearchTarget | None:
    """The search that a request line asks for; None where it asks for something else."""
    path, _, query_string = target.partition("?")
    found = _SEARCH_PATH.fullmatch(path)
    if found is None or method not in (hdrs.METH_GET, hdrs.METH_POST):
        return None
    return SearchTarget(found[1], query_string)


class Search:
    """Answers searches."""

    def __init__(
        self, upstream: Upstream, profiles: Profiles, ranker: Ranker, settings: ProxySettings, metrics: Metrics
    ) -> None:
        self._upstream = upstream
        self._profiles = profiles
        self._ranker = ranker
        self._settings = settings
        self._metrics = metrics

    async def answer(self, request: web.BaseRequest, asked: Inbound, target: SearchTarget) -> web.StreamResponse:
        """Answers one search.

        Raises:
            Refused: the cluster cannot be reached, or the request's `x-bridge` header is wrong.
        """
        started = asyncio.get_running_loop().time()
        control = read_control(request.headers.get(headers.CONTROL_HEADER))
        asked, body = await self._with_body(asked)
        plan = await self._plan(asked, body, target, control, started)
        if isinstance(plan, LeaveAlone):
            self._metrics.passed.labels(plan.reason).inc()
            return await relay(request, await send(self._upstream, asked), {MARK: f"pass; reason={plan.reason}"})
        return await self._upgraded(request, asked, plan, started)

    async def _with_body(self, asked: Inbound) -> tuple[Inbound, bytes | None]:
        """The request with its body read, and that body decompressed; None where it is too large to look at."""
        if asked.body is None or isinstance(asked.body, bytes):
            return asked, asked.body or b""
        limit = self._settings.max_search_body_bytes
        read = bytearray()
        async for chunk in asked.body:
            read += chunk
            if len(read) > limit:
                return replace(asked, body=_chained(bytes(read), asked.body)), None
        body = bytes(read)
        return replace(asked, body=body), _decompressed(body, asked.headers, limit)

    async def _plan(
        self, asked: Inbound, body: bytes | None, target: SearchTarget, control: Control, started: float
    ) -> Plan | LeaveAlone:
        if control.off or control.stage == "lexical":
            return LeaveAlone("off" if control.off else "lexical")
        if body is None:
            return LeaveAlone("body")
        if asked.headers.get(hdrs.AUTHORIZATION, "").startswith("AWS4-"):
            # The signature covers this very request: no other can be sent in the caller's name.
            return LeaveAlone("signed")
        if asked.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower() not in ("application/json", ""):
            return LeaveAlone("content_type")
        if asked.headers.get(hdrs.ACCEPT, "").partition(";")[0].strip().lower() not in _JSON_ANSWERS:
            return LeaveAlone("accept")
        profile = await self._profiles.of(target.expression, asked.headers)
        if isinstance(profile, LeaveAlone):
            return profile
        stage = control.stage or profile.stages[-1]
        if stage == "lexical":
            return LeaveAlone("lexical")
        understood = parse(
            body,
            target.query_string,
            text_fields=[text_field.name for text_field in profile.text_fields],
            object_field=profile.object_field,
        )
        if isinstance(understood, LeaveAlone):
            return understood
        budget_s = self._settings.budget_ms / 1000
        return Plan(
            request=understood,
            profile=profile,
            expression=target.expression,
            caller=asked.headers,
            stage=stage,
            explain=control.explain,
            deadline=started + budget_s,
            budget_s=budget_s,
        )

    async def _upgraded(
        self, request: web.BaseRequest, asked: Inbound, plan: Plan, started: float
    ) -> web.StreamResponse:
        ranking = asyncio.create_task(self._rank(plan))
        try:
            # Hits have to be read here; a compressed answer would only be unpacked again.
            own_request = replace(asked, headers=_with_header(asked.headers, hdrs.ACCEPT_ENCODING, "identity"))
            answer = await send(self._upstream, own_request, repeatable=True)
            length = answer.content_length
            if answer.status != 200 or length is None or length > MAX_OWN_ANSWER_BYTES:
                # The cluster's own error, or an answer too large to hold: as a direct search would get it.
                return await relay(request, answer, {})
            async with answer:
                own_body = await answer.read()
            ranked = await ranking
        except aiohttp.ClientError as error:
            raise Refused(502, "cluster_connection_exception", f"the cluster's answer broke off: {error}") from error
        finally:
            ranking.cancel()
        try:
            body = await self._compose(plan, ranked, own_body)
        except Exception:
            body = own_body
            ranked.stages = "lexical"
            ranked.degraded.append("internal_error")
            log.exception("composing failed")
        return await self._reply(request, plan, ranked, answer, body, started)

    async def _rank(self, plan: Plan) -> Ranked:
        try:
            return await self._ranker.rank(plan)
        except Exception:
            # Whatever it is, a fault of ours must not fail a search that the cluster has answered.
            log.exception("ranking failed")
            return Ranked(degraded=["internal_error"])

    async def _compose(self, plan: Plan, ranked: Ranked, own_body: bytes) -> bytes:
        """The answer's body: the ranking's page in the application's presentation."""
        try:
            own = OwnAnswer(own_body)
        except AnswerNotUnderstood as error:
            log.warning("own answer left as it is", detail=str(error))
            ranked.stages = "lexical"
            ranked.degraded.append("answer_not_understood")
            return own_body
        try:
            with ranked.timed("show"):
                hits = await self._page(plan, ranked, own)
        except StageFailed as failed:
            ranked.degraded.append(failed.reason)
            ranked.stages = "lexical"
            hits = [self._shown(plan, hit, hit.score, None) for hit in own.hits]
            max_score = max((hit.score for hit in own.hits), default=None)
        else:
            max_score = ranked.hits[0].score if ranked.hits else max((hit.score for hit in own.hits), default=None)
        more: dict[str, object] = {}
        if plan.explain:
            more["_bridge"] = explain.of_answer(ranked.stages, ranked.degraded, ranked.timings_ms)
        return own.with_hits(hits, max_score=max_score, more=more, pretty=plan.request.pretty)

    async def _page(self, plan: Plan, ranked: Ranked, own: OwnAnswer) -> list[RawObject]:
        """The hits from `start` on: first of the ranking, then of the application's own results beyond it.

        Raises:
            StageFailed: hits that the own answer lacks could not be had.
        """
        request = plan.request
        if not ranked.hits:
            return [self._shown(plan, hit, hit.score, None) for hit in own.hits]
        end = request.start + request.size
        page = ranked.hits[request.start : end]
        available = {hit.key: hit for hit in own.hits}
        if missing := [hit.key for hit in page if hit.key not in available]:
            available |= {hit.key: hit for hit in await self._ranker.show(plan, legs.shown(request, missing))}
        shown = [
            self._shown(plan, available[hit.key], hit.score, explain.of_hit(hit, rank=rank))
            for rank, hit in enumerate(page, start=request.start + 1)
            if hit.key in available
        ]
        if end > len(ranked.hits) and not ranked.complete:
            shown += await self._tail(plan, ranked.hits)
        return shown

    async def _tail(self, plan: Plan, ranking: Sequence[RankedHit]) -> list[RawObject]:
        request = plan.request
        start = max(request.start - len(ranking), 0)
        size = request.start + request.size - max(request.start, len(ranking))
        body = legs.tail(request, without=[hit.key for hit in ranking], start=start, size=size)
        return [
            self._shown(plan, hit, tail_score(hit.score), explain.of_tail(rank=rank, own_score=hit.score))
            for rank, hit in enumerate(await self._ranker.show(plan, body), start=len(ranking) + start + 1)
        ]

    @staticmethod
    def _shown(plan: Plan, hit: ShownHit, score: float, explanation: dict[str, object] | None) -> RawObject:
        return shown_hit(
            hit,
            score=score,
            object_field=None if plan.request.asks_for_ours else plan.profile.object_field,
            explanation=explanation if plan.explain else None,
        )

    async def _reply(
        self,
        request: web.BaseRequest,
        plan: Plan,
        ranked: Ranked,
        answer: aiohttp.ClientResponse,
        body: bytes,
        started: float,
    ) -> web.StreamResponse:
        took_s = asyncio.get_running_loop().time() - started
        marks = [ranked.stages]
        if ranked.degraded:
            marks.append(f"degraded={','.join(dict.fromkeys(ranked.degraded))}")
        marks.append(f"took_ms={took_s * 1000:.0f}")
        given = headers.answered(answer.headers)
        given[hdrs.CONTENT_LENGTH] = str(len(body))
        response = RelayedResponse(
            answer.status,
            answer.reason,
            given,
            {
                MARK: "; ".join(marks),
                "Server-Timing": ", ".join(f"{name};dur={ms:.1f}" for name, ms in ranked.timings_ms.items()),
            },
        )
        for reason in ranked.degraded:
            self._metrics.degraded.labels(reason).inc()
        for stage, ms in ranked.timings_ms.items():
            self._metrics.stage_duration.labels(stage).observe(ms / 1000)
        await response.prepare(request)
        await response.write(body)
        await response.write_eof()
        return response


def _with_header(given: CIMultiDict[str], name: str, value: str) -> CIMultiDict[str]:
    changed = given.copy()
    changed[name] = value
    return changed


def _decompressed(body: bytes, given: CIMultiDict[str], limit: int) -> bytes | None:
    """The body without its Content-Encoding; None where that is unknown, wrong, or beyond the limit."""
    encoding = given.get(hdrs.CONTENT_ENCODING, "identity").strip().lower()
    if encoding == "identity":
        return body
    if encoding != "gzip":
        return None
    unpacking = zlib.decompressobj(_GZIP)
    try:
        unpacked = unpacking.decompress(body, limit)
    except zlib.error:
        return None
    return unpacked if unpacking.eof and not unpacking.unused_data else None


async def _chained(read: bytes, rest: Body) -> AsyncIterator[bytes]:
    yield read
    if rest is not None and not isinstance(rest, bytes):
        async for chunk in rest:
            yield chunk
