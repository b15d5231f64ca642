"""The legs of a search whose index has a companion: what the companion finds counts only if the application's index
returns it to the caller, under the caller's own conditions and in the version that the companion knows.

Nothing is shown, counted, reranked or fused that the application's index did not return so.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from bridge.errors import AnswerNotUnderstood, StageFailed
from bridge.proxy.upgrade.cluster_client import OwnSearches, scope
from bridge.proxy.upgrade.planning import Plan
from bridge.records import DocumentVersion, Hit, Key
from bridge.search import beside, legs
from bridge.search.json_tree import Json
from bridge.search.response import ShownHit, leg_rankings

_UNKNOWN = "unknown"
"""Beside the legs: the predicted queries of documents that the companion was not asked about."""


@dataclass(frozen=True, slots=True)
class _Candidates:
    """What the companion found for a leg. `full`: there may be more."""

    hits: Sequence[Hit]
    full: bool = False

    @property
    def versions(self) -> dict[str, DocumentVersion | None]:
        return {hit.doc_id: hit.version for hit in self.hits}

    def without(self, ids: Collection[str]) -> "_Candidates":
        return replace(self, hits=[hit for hit in self.hits if hit.doc_id not in ids])


class CompanionLegs:
    """Answers the legs of one search. `embedding` is the query's, None if there is none."""

    def __init__(self, plan: Plan, searches: OwnSearches, embedding: Sequence[float] | None) -> None:
        self._plan = plan
        self._searches = searches
        self._embedding = embedding

    async def answer(self, bodies: Mapping[str, Json]) -> dict[str, list[Hit] | str]:
        """The hits of each leg, or what kind of error it met; `bodies` are the legs' searches of an index that holds
        the bridge's object itself.

        Raises:
            StageFailed: the application's index did not answer, as `OwnSearches.msearch`.
        """
        wanted = [leg for leg in bodies if leg != "lexical"]
        size = beside.n_candidates(self._plan.profile)
        finding = asyncio.create_task(self._found({leg: self._question(leg, size) for leg in wanted}, size))
        try:
            own = await self._by_caller({leg: bodies[leg] for leg in bodies if leg not in wanted})
            found = await finding
        finally:
            finding.cancel()
        failed = {leg: each for leg, each in found.items() if isinstance(each, str)}
        candidates = {leg: each for leg, each in found.items() if isinstance(each, _Candidates)}
        admitted = await self._admitted(candidates)
        return {**own, **failed, **admitted, **await self._improved(candidates, admitted)}

    async def _improved(
        self, candidates: Mapping[str, _Candidates], admitted: Mapping[str, list[Hit] | str]
    ) -> dict[str, list[Hit]]:
        """The legs that more questions made better; none if there was no time for them."""
        try:
            better = await self._admitted(await self._better(candidates, admitted))
        except StageFailed:
            return {}
        return {leg: hits for leg, hits in better.items() if not isinstance(hits, str)}

    async def _better(
        self, candidates: Mapping[str, _Candidates], admitted: Mapping[str, list[Hit] | str]
    ) -> dict[str, _Candidates]:
        """New candidates for legs whose conditions dropped too many of them, or that met documents which the companion
        has not scored."""
        profile = self._plan.profile
        hits_of = {leg: hits for leg, hits in admitted.items() if not isinstance(hits, str)}
        full = {leg: hits for leg, hits in hits_of.items() if candidates[leg].full}
        known = candidates["expansion"].versions if "expansion" in full else {}
        unknown = [hit.doc_id for hit in full.get("expansion", ()) if hit.doc_id not in known]
        # Conditions dropped candidates: the request's, or those of an alias or of document-level security.
        few = any(len(hits) < profile.window for hits in full.values()) or 2 * len(unknown) > profile.window
        # Without conditions nearly everything would match.
        matching = await self._matching() if few or (unknown and legs.allowed(self._plan.request)) else None
        if matching is not None:
            size = min(len(matching), beside.MAX_CANDIDATES)
            exact = await self._found({leg: self._question(leg, size, matching) for leg in full if size}, size)
            return {leg: each for leg, each in exact.items() if isinstance(each, _Candidates)}
        questions: dict[str, Json] = {}
        if "vector" in full and len(full["vector"]) < profile.window:
            questions["vector"] = self._question("vector", beside.MAX_CANDIDATES)
        if unknown:
            questions[_UNKNOWN] = self._question("expansion", len(unknown), unknown)
        found = await self._found(questions, beside.MAX_CANDIDATES)
        better = {leg: each for leg, each in found.items() if isinstance(each, _Candidates)}
        if (scored := better.pop(_UNKNOWN, None)) is not None:
            together = [*scored.hits, *candidates["expansion"].hits]
            better["expansion"] = _Candidates(together[: beside.MAX_CANDIDATES])
        return better

    async def _matching(self) -> list[str] | None:
        """The ids of all documents that the conditions allow; None if there are too many, or none can be had."""
        request = self._plan.request
        # Whether there are more is told at once; so many ids take tens of milliseconds.
        if (await self._by_caller({"beyond": beside.beyond_matching(request)}))["beyond"]:
            return None
        hits = (await self._by_caller({"matching": beside.matching(request)}))["matching"]
        return None if isinstance(hits, str) else [hit.doc_id for hit in hits]

    def _question(self, leg: str, size: int, among: Collection[str] | None = None) -> Json:
        plan = self._plan
        if leg == "expansion":
            return beside.expansion(plan.request, plan.profile, size=size, among=among)
        return beside.vector(plan.profile, self._embedding or (), size=size, among=among)

    async def _found(self, questions: Mapping[str, Json], size: int) -> dict[str, _Candidates | str]:
        """The companion's answers, or why there are none."""
        if not questions:
            return {}
        profile = self._plan.profile
        try:
            answer = await self._searches.companion_msearch(self._plan, questions.values())
            found = leg_rankings(answer, list(questions), profile.version_fields)
        except (StageFailed, AnswerNotUnderstood) as failed:
            return dict.fromkeys(questions, str(failed))
        return {
            leg: hits
            if isinstance(hits, str)
            else _Candidates([msgspec.structs.replace(hit, index=profile.beside) for hit in hits], len(hits) >= size)
            for leg, hits in found.items()
        }

    async def _admitted(self, candidates: Mapping[str, _Candidates]) -> dict[str, list[Hit] | str]:
        """The legs' hits in the application's index. Documents that have changed since the companion read them count
        as if it had none of them."""
        hits_of = await self._by_caller(self._admissions(candidates))
        stale = {leg: each.without(_stale(each, hits_of[leg])) for leg, each in candidates.items()}
        changed = {leg: each for leg, each in stale.items() if len(each.hits) < len(candidates[leg].hits)}
        # Without them the window shows others, which may have changed too: one of these is left out, and no more asked.
        again = await self._by_caller(self._admissions(changed))
        for leg, each in changed.items():
            hits = again[leg]
            later = _stale(each, hits)
            hits_of[leg] = hits if isinstance(hits, str) else [hit for hit in hits if hit.doc_id not in later]
        return hits_of

    def _admissions(self, candidates: Mapping[str, _Candidates]) -> dict[str, Json]:
        plan = self._plan
        return {leg: beside.admission(plan.request, plan.profile, leg, each.hits) for leg, each in candidates.items()}

    async def _by_caller(self, bodies: Mapping[str, Json]) -> dict[str, list[Hit] | str]:
        if not bodies:
            return {}
        plan = self._plan
        answer = await self._searches.msearch(plan, legs.msearch(bodies.values(), scope(plan)), stage="legs")
        try:
            return leg_rankings(answer, list(bodies))
        except AnswerNotUnderstood as error:
            raise StageFailed("legs_unavailable", str(error)) from error


def _stale(candidates: _Candidates, admitted: Sequence[Hit] | str) -> set[str]:
    """The candidates that are another version of their document than the application's index returned."""
    versions = candidates.versions
    hits = () if isinstance(admitted, str) else admitted
    return {hit.doc_id for hit in hits if hit.doc_id in versions and versions[hit.doc_id] != hit.version}


async def companion_texts(
    plan: Plan,
    searches: OwnSearches,
    keys: Sequence[Key],
    embedding: Sequence[float] | None,
    passages: int,
    deadline: float,
) -> list[ShownHit]:
    """The answer to `legs.texts`: texts as the application's index shows them to the caller, and the offsets of
    passages from the companion.

    Raises:
        StageFailed: as `OwnSearches.hits` and `OwnSearches.companion_hits`.
    """
    profile = plan.profile
    texts = searches.hits(plan, legs.texts(profile, keys, None), stage="texts", deadline=deadline)
    if embedding is None or profile.passages.layout == "single":
        return await texts

    def nearest(theirs: Sequence[Key]) -> Json:
        return legs.offsets(profile, theirs, embedding, passages=passages)

    hits, found = await asyncio.gather(
        texts, searches.companion_hits(plan, keys, nearest, deadline=deadline), return_exceptions=True
    )
    if isinstance(hits, BaseException):
        raise hits
    if isinstance(found, BaseException):
        raise found
    inner = {hit.key: hit.members["inner_hits"] for hit in found if "inner_hits" in hit.members}
    return [
        replace(hit, members={**hit.members, "inner_hits": inner[hit.key]}) if hit.key in inner else hit for hit in hits
    ]
