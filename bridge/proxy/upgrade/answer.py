"""From a ranking and the cluster's own answer to the answer's body; missing hits are fetched."""

import asyncio
import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import msgspec
import structlog
from aiohttp import hdrs

from bridge.errors import AnswerNotUnderstood, StageFailed
from bridge.proxy.transport.passthrough import Inbound, aside
from bridge.proxy.upgrade.cluster_client import OwnSearches
from bridge.proxy.upgrade.planning import Plan
from bridge.proxy.upgrade.ranking import FALLBACK, Ranked, internal_error
from bridge.proxy.upgrade.sentences import Sentences
from bridge.records import Key, Passage, RankedHit, Smoothed, Terms
from bridge.search import legs
from bridge.search.collapse import Collapse, Group
from bridge.search.filter_path import filtered, without_parameter
from bridge.search.flow import Ranking
from bridge.search.fusion import tail_score
from bridge.search.json_tree import Json
from bridge.search.request import LeaveAlone
from bridge.search.response import (
    OwnAnswer,
    RawObject,
    ShownHit,
    doc_values,
    hidden,
    highlighted,
    hit_without,
    inner_hits,
    scored_terms,
    shown_hit,
    with_inner_hits,
)
from bridge.text import changed

log = structlog.get_logger(__name__)


def readable(inbound: Inbound, plans: Sequence[Plan | LeaveAlone]) -> Inbound:
    """The application's request, changed so that the whole answer can be read: without compression, which would only
    be undone again, and without `filter_path`, which is applied to the finished answer."""
    headers = inbound.headers.copy()
    headers[hdrs.ACCEPT_ENCODING] = "identity"
    target = without_parameter(inbound.target) if is_filtered(plans) else inbound.target
    return replace(inbound, headers=headers, target=target)


def is_filtered(plans: Sequence[Plan | LeaveAlone]) -> bool:
    """Whether `readable` takes `filter_path` out of the request: its answer is not yet what the application wants."""
    return any(isinstance(plan, Plan) and plan.request.filter_path is not None for plan in plans)


class Composer:
    """Composes answers. What cannot be had from the cluster is noted as a failure and left out."""

    def __init__(self, searches: OwnSearches, sentences: Sentences) -> None:
        self._searches = searches
        self._sentences = sentences

    async def compose(self, plan: Plan, ranked: Ranked, own_body: bytes, *, is_partial: bool = False) -> bytes:
        """The body of the answer; never fails. What could not be done is noted in `ranked`.

        `is_partial`: the cluster has applied the application's `filter_path` already.
        """
        try:
            if ranked.ranking.hits or not is_partial:
                own = await aside(len(own_body), lambda: OwnAnswer(own_body, is_partial=is_partial))
                finish = await self._composed(plan, ranked, own)
                return await aside(len(own_body), finish)
        except StageFailed as failed:
            ranked.notes.fall_back(failed)
        except AnswerNotUnderstood as error:
            log.warning("own answer left as it is", detail=str(error))
            ranked.notes.fall_back(StageFailed("answer_not_understood", str(error)))
        except Exception:
            # Whatever it is, a fault of ours must not fail a search that the cluster has answered.
            log.exception("composing failed")
            ranked.notes.fall_back(internal_error())
        try:
            return await aside(len(own_body), lambda: _finished(plan, own_body))
        except msgspec.DecodeError:
            return own_body

    async def _composed(self, plan: Plan, ranked: Ranked, own: OwnAnswer) -> Callable[[], bytes]:
        """What puts the answer together, of all that it needs."""
        max_score = own_best = max((hit.score for hit in own.hits), default=None)
        try:
            with ranked.notes.timed("show"):
                hits = await self._page(plan, ranked, own)
            if ranked.ranking.hits:
                max_score = ranked.ranking.hits[0].score
        except StageFailed as failed:
            if own.is_partial:
                raise
            ranked.notes.fall_back(failed)
            hits = [shown_hit(hit, score=hit.score) for hit in own.hits]
            max_score = own_best
        if plan.sentences:
            hits = await self._sentences.shown(plan, ranked, hits)
        beyond = await self._found_beyond(plan, ranked) if plan.union and ranked.stages != "lexical" else 0
        said = {**(await self._facets(plan, ranked)), **(explained_answer(ranked) if plan.explain else {})}
        more = {"_bridge": said} if said else {}

        def finished() -> bytes:
            # Here the hits are taken apart already; in the whole answer they would have to be found again.
            shown = [functools.reduce(hit_without, plan.hide, hit) for hit in hits]
            return _finished(plan, own.with_hits(shown, max_score=max_score, beyond=beyond, more=more))

        return finished

    async def _page(self, plan: Plan, ranked: Ranked, own: OwnAnswer) -> list[RawObject]:
        """The hits from `start` on: first of the ranking, then of the application's own results beyond it.

        Raises:
            StageFailed: hits that the own answer lacks could not be had, or an alias moved to another index meanwhile.
        """
        request = plan.request
        ranking = ranked.ranking.hits
        if not ranking:
            return [shown_hit(hit, score=hit.score) for hit in own.hits]
        end = request.start + request.size
        page = ranking[request.start : end]
        available = {hit.key: hit for hit in own.hits}
        if ranked.entries is not None:
            available |= await ranked.entries.shown({hit.key for hit in page} - available.keys())
            await self._searches.note_sizes(plan, own.hits)
        _refuse_mixture(plan, [*available, *(hit.key for hit in ranking)])
        if missing := [hit.key for hit in page if hit.key not in available]:
            available |= await self._missing_hits(plan, ranked.ranking, missing, own)
        reasons: dict[Key, dict[str, object]] = {}
        if plan.explain and page:
            reasons = await self._reasons(plan, [hit.key for hit in page], ranked)
        shown = [
            _shown(plan, ranked, available[hit.key], hit, rank, reasons.get(hit.key, {}))
            for rank, hit in enumerate(page, start=request.start + 1)
            if hit.key in available
        ]
        if end > len(ranking) and not ranked.ranking.complete:
            shown += await self._tail(plan, ranked.ranking)
        return shown

    async def _missing_hits(
        self, plan: Plan, ranking: Ranking, keys: Sequence[Key], own: OwnAnswer
    ) -> dict[Key, ShownHit]:
        """Hits of the ranking that the own answer lacks, without documents that are gone meanwhile."""
        request, collapse = plan.request, plan.request.collapse
        showing = self._searches.show(plan, legs.shown(request, keys))
        if collapse is None or not collapse.inner_hits:
            return {hit.key: hit for hit in await showing}
        groups = [ranking.groups[key] for key in keys]
        hits, inner = await asyncio.gather(showing, self._inner_hits(plan, collapse, groups, own))
        group_of = dict(zip(keys, groups, strict=True))
        return {hit.key: with_inner_hits(hit, inner[group_of[hit.key]]) for hit in hits if group_of[hit.key] in inner}

    async def _inner_hits(
        self, plan: Plan, collapse: Collapse, groups: Sequence[Group], own: OwnAnswer
    ) -> dict[Group, bytes]:
        """The inner hits of each group. The own answer has them if another document is the group's head there."""
        inner_of: dict[Group, bytes] = {}

        def read(hits: Sequence[ShownHit]) -> None:
            for hit in hits:
                # The application may want the same field among `fields`, and then its value comes twice.
                with contextlib.suppress(ValueError):
                    inner_of[collapse.group(doc_values(hit))] = inner_hits(hit, collapse.inner_hits)

        read(own.hits)
        for matching in (True, False):
            if unknown := [group for group in groups if group not in inner_of]:
                body = legs.groups_expanded(plan.request, collapse, unknown, matching=matching)
                read(await self._searches.show(plan, body))
        return inner_of

    async def _tail(self, plan: Plan, ranked: Ranking) -> list[RawObject]:
        """The application's own results that are not in the ranking."""
        request, ranking = plan.request, ranked.hits
        start = max(request.start - len(ranking), 0)
        size = request.start + request.size - max(request.start, len(ranking))
        keys = [hit.key for hit in ranking]
        if request.collapse is None:
            without = legs.documents(keys)
        else:
            without = request.collapse.clause(ranked.groups[key] for key in keys)
        body = legs.tail(request, without=without, start=start, size=size)
        first = len(ranking) + start + 1
        hits = await self._searches.show(plan, body)
        _refuse_mixture(plan, [*keys, *(hit.key for hit in hits)])
        return [
            shown_hit(
                hit,
                score=tail_score(hit.score),
                explanation={"rank": rank, "legs": {}, "tail": True, "own_score": hit.score} if plan.explain else None,
            )
            for rank, hit in enumerate(hits, start=first)
        ]

    async def _reasons(self, plan: Plan, keys: Sequence[Key], ranked: Ranked) -> dict[Key, dict[str, object]]:
        """Why legs found the documents: the predicted queries that match the user's words, best first, and the terms
        that the document and the query have in common."""
        request = replace(plan.request, repair=ranked.ranking.repair)
        profile, terms = plan.profile, ranked.ranking.terms
        predicted, weighed = await asyncio.gather(
            self._made(plan, keys, ranked, lambda theirs: legs.matching_predictions(request, profile, theirs))
            if profile.generator is not None
            else _none(),
            self._made(plan, keys, ranked, lambda theirs: legs.matching_terms(profile, theirs, terms))
            if terms
            else _none(),
        )
        reasons: dict[Key, dict[str, object]] = {}
        for hit in predicted:
            if queries := highlighted(hit, profile.predicted_queries_field):
                reasons.setdefault(hit.key, {})["predicted_queries"] = queries
        for hit in weighed:
            if scores := scored_terms(hit):
                reasons.setdefault(hit.key, {})["terms"] = explained_terms(scores, terms)
        return reasons

    async def _made(
        self, plan: Plan, keys: Sequence[Key], ranked: Ranked, body_of: Callable[[Sequence[Key]], Json]
    ) -> Sequence[ShownHit]:
        """The hits of a search of what the bridge made of these documents; `body_of` makes it from their keys. Of a
        companion only entries count that were made of the texts which the caller is shown."""
        try:
            if plan.profile.beside is None:
                return await self._searches.hits(plan, body_of(keys), stage="explain", deadline=plan.deadline)
            counting = [key for key in keys if ranked.entries is not None and ranked.entries.count(key)]
            return await self._searches.companion_hits(plan, counting, body_of, deadline=plan.deadline)
        except StageFailed as failed:
            ranked.notes.failures.append(failed)
            return ()

    async def _found_beyond(self, plan: Plan, ranked: Ranked) -> int:
        """How many documents of the ranking the application's own query does not match; 0 if that is not known."""
        keys = [hit.key for hit in ranked.ranking.hits]
        if not keys:
            return 0
        try:
            matched = await self._searches.hits(
                plan, legs.matched(plan.request, keys), stage="total", deadline=plan.deadline
            )
        except StageFailed as failed:
            ranked.notes.failures.append(failed)
            return 0
        return len(keys) - len(matched)

    async def _facets(self, plan: Plan, ranked: Ranked) -> dict[str, object]:
        """The application's aggregations over what it found and what the bridge found; empty if they are not wanted or
        cannot be had."""
        keys = [hit.key for hit in ranked.ranking.hits]
        if not plan.facets or not plan.request.aggregations or not keys or ranked.stages == "lexical":
            return {}
        try:
            return {"aggregations": await self._searches.aggregations(plan, legs.aggregated(plan.request, keys))}
        except StageFailed as failed:
            ranked.notes.failures.append(failed)
            return {}


def _refuse_mixture(plan: Plan, keys: Sequence[Key]) -> None:
    """Raises StageFailed if documents are of two indices though the search's name led to one."""
    if plan.of_one_index and len({index for index, _ in keys}) > 1:
        raise StageFailed("index_changed", f"{plan.expression} moved to another index meanwhile")


def explained_answer(ranked: Ranked) -> dict[str, object]:
    """What was done, what was left out, and how many milliseconds each part took; how probable it is that the index
    answers the query, if it is calibrated; and what misspelt words were taken for."""
    confidence = ranked.ranking.confidence
    return {
        "stages": ranked.stages,
        **({} if confidence is None else {"confidence": round(confidence, 4)}),
        **({"fallback": FALLBACK} if ranked.closest else {}),
        **({} if ranked.repair is None else {"repaired": ranked.repair.words}),
        "degraded": ranked.notes.degraded,
        "timings_ms": {name: round(duration, 2) for name, duration in ranked.notes.timings_ms.items()},
    }


def explained_hit(
    hit: RankedHit, *, rank: int, passage: Passage | None = None, reasons: Mapping[str, object]
) -> dict[str, object]:
    """Why the document stands at this rank (first is 1): the ranks and scores of each leg and stage.

    `reasons` of legs come after their scores. `passage` is the one that the cross-encoder read, of a document with
    several; its offsets count characters of the enriched text (the profile's fields joined).
    """
    optional: Mapping[str, object] = {
        **reasons,
        "fused_score": hit.fused_score,
        "smoothed": hit.smoothed and explained_smoothing(hit.smoothed),
        "rerank_score": hit.rerank_score,
        "cascade_score": hit.cascade_score,
        "lift": hit.lift,
        "pinned": hit.pinned or None,
        "nearest_above": hit.nearest_above,
        "passage": passage and {"start": passage.start, "end": passage.end, "text": passage.text},
    }
    return {
        "rank": rank,
        "legs": {leg: {"rank": by.rank, "score": by.score} for leg, by in sorted(hit.legs.items())},
        **{name: value for name, value in optional.items() if value is not None},
    }


def explained_terms(scores: Mapping[str, float], terms: Terms) -> list[dict[str, object]]:
    """The terms that the document and the query have in common: the weight in each, and their product, which the term
    gave to the leg's score."""
    return [
        {"term": term, "query": terms[term], "document": score / terms[term], "score": score}
        for term, score in scores.items()
        if term in terms
    ]


def explained_smoothing(smoothed: Smoothed) -> dict[str, object]:
    """The fused score before smoothing, and the share that each neighbour has in the score after it."""
    neighbours = [
        {"_index": index, "_id": doc_id, "share": share} for (index, doc_id), share in smoothed.neighbours.items()
    ]
    return {"before": smoothed.before, "neighbours": neighbours}


def _shown(
    plan: Plan, ranked: Ranked, shown: ShownHit, hit: RankedHit, rank: int, reasons: Mapping[str, object]
) -> RawObject:
    passage = ranked.ranking.passages.get(hit.key)
    mark: dict[str, object] = {"fallback": FALLBACK} if ranked.closest else {}
    explanation = explained_hit(hit, rank=rank, passage=passage, reasons=reasons) if plan.explain else {}
    return shown_hit(
        shown,
        score=hit.score,
        passage=passage.text if plan.passage and passage is not None else None,
        explanation=mark | explanation or None,
    )


async def _none() -> Sequence[ShownHit]:
    return ()


def _finished(plan: Plan, body: bytes) -> bytes:
    """The answer as it is sent: without the bridge's object, and only the parts that `filter_path` names."""
    body = hidden(body, plan.hide)
    if plan.request.filter_path is not None:
        body = filtered(body, plan.request.filter_path)
    if plan.request.pretty:
        body = changed(body, lambda readable: msgspec.json.format(readable, indent=2)) + b"\n"
    return body
