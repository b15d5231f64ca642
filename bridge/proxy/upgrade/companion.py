"""The legs of a search whose indices have companions: what a companion finds counts only if the application's index
returns it to the caller, under the caller's own conditions and with the texts that the companion's entry was made of.

Nothing is shown, counted, reranked or fused that the application's index did not return so. That holds for texts that
are masked for the caller or have changed, and for the companion of an index that was deleted and made anew.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from bridge.errors import AnswerNotUnderstood, StageFailed
from bridge.profile import IndexProfile
from bridge.proxy.transport.passthrough import aside
from bridge.proxy.upgrade.cluster_client import OwnSearches, scope
from bridge.proxy.upgrade.planning import Plan
from bridge.records import Hit, Key, Terms
from bridge.search import beside, legs
from bridge.search.flow import NEURAL_LEGS
from bridge.search.json_tree import Json
from bridge.search.response import ShownHit, doc_values, hits_of_legs, leg_rankings
from bridge.text import source_digest

_UNKNOWN = "unknown"
"""Beside the legs: the predicted queries of documents that the companion was not asked about."""
_MATCHING = "matching"
_ALL = 0
"""In place of a number of candidates: all that the conditions allow."""

_OURS = ("expansion", *NEURAL_LEGS)
"""The legs that companions answer; others are the application's own searches."""


@dataclass(frozen=True, slots=True)
class _Candidates:
    """What the companions found for a leg, by the application's keys. `asked`: how many were asked for, 0 if there are
    no more."""

    hits: Sequence[Hit]
    asked: int = 0

    def unchanged(self, entries: "Entries") -> "_Candidates":
        """Without those that are known to be made of other texts."""
        changed = entries.changed
        return replace(self, hits=[hit for hit in self.hits if hit.key not in changed]) if changed else self


def _apart(
    found: Mapping[str, _Candidates | str],
) -> tuple[dict[str, list[Hit] | str], dict[str, _Candidates]]:
    """The legs that failed, and the candidates of the others."""
    failed: dict[str, list[Hit] | str] = {leg: each for leg, each in found.items() if isinstance(each, str)}
    return failed, {leg: each for leg, each in found.items() if isinstance(each, _Candidates)}


class Entries:
    """Which entries of companions count in one search.

    Attributes:
        changed: documents with an entry that was made of other texts than the caller is shown.
        sources: texts that the application's index has shown to the caller, as JSON.
        values: the doc values of documents' entries.
    """

    def __init__(self, profile: IndexProfile) -> None:
        self._profile = profile
        self._compared: set[Key] = set()
        self._shown: list[bytes] = []
        self.changed: set[Key] = set()
        self.sources: dict[Key, bytes] = {}
        self.values: dict[Key, Mapping[str, Sequence[object]]] = {}

    def keep_shown(self, answer: bytes) -> None:
        """Keeps an answer of the application's index to a `_msearch` that shows hits as the application wants them."""
        self._shown.append(answer)

    async def shown(self, keys: Collection[Key]) -> dict[Key, ShownHit]:
        """Those of the given documents that answers have shown as the application wants them."""

        def found() -> dict[Key, ShownHit]:
            return {hit.key: hit for answer in self._shown for hit in hits_of_legs(answer) if hit.key in keys}

        return await aside(sum(map(len, self._shown)), found) if keys else {}

    def show(self, sources: Mapping[Key, bytes]) -> None:
        """Notes the texts of documents, and compares them with what entries were made of."""
        for key, source in sources.items():
            self.sources.setdefault(key, source or b"{}")
        self._compare(sources)

    def add(self, values: Mapping[Key, Mapping[str, Sequence[object]]]) -> None:
        """Notes the doc values of entries, and compares what they were made of with the texts that are known."""
        self.values |= values
        self._compare(values)

    def count(self, key: Key) -> bool:
        """Whether the document has an entry that was made of the texts which the caller is shown."""
        return key in self._compared and key not in self.changed

    def _compare(self, keys: Iterable[Key]) -> None:
        for key in keys:
            if key in self._compared or key not in self.sources or key not in self.values:
                continue
            self._compared.add(key)
            shown = source_digest(self.sources[key], self._profile.text_fields)
            if shown != beside.made_of(self.values[key], self._profile):
                self.changed.add(key)


class CompanionLegs:
    """Answers the legs of one search, and notes in `entries` what it sees. `embedding`, `terms` and `of_images`,
    its embedding for pictures, are the query's, or None."""

    def __init__(
        self,
        plan: Plan,
        searches: OwnSearches,
        entries: Entries,
        *,
        embedding: Sequence[float] | None,
        terms: Terms | None,
        of_images: Sequence[float] | None = None,
    ) -> None:
        self._plan = plan
        self._searches = searches
        self._entries = entries
        self._embedding = embedding
        self._terms = terms
        self._of_images = of_images
        self._conditions = searches.conditions(plan)
        self._presentation = searches.presentation(plan)

    async def answer(self, bodies: Mapping[str, Json]) -> dict[str, list[Hit] | str]:
        """The hits of each leg, or what kind of error it met; `bodies` are the legs' searches of an index that holds
        the bridge's object itself.

        Raises:
            StageFailed: the application's index did not answer, as `OwnSearches.msearch`; `texts_differ`: no entry was
                made of the texts that the caller is shown.
        """
        own, ours = await asyncio.gather(
            self._by_caller({leg: bodies[leg] for leg in bodies if leg not in _OURS}),
            self._ours([leg for leg in bodies if leg in _OURS]),
        )
        return own | ours

    async def _ours(self, wanted: Sequence[str]) -> dict[str, list[Hit] | str]:
        """The hits of the legs that companions answer."""
        if not wanted:
            return {}
        reach = self._searches.reach.get(self._conditions)
        if reach == _ALL and (among := await self._matching()) is not None:
            failed, candidates = _apart(await self._found_among(wanted, among))
            return failed | await self._admitted(candidates)
        conditions = bool(legs.allowed(self._plan.request))
        sizes = {leg: reach or beside.n_candidates(self._plan.profile, leg, allowed=not conditions) for leg in wanted}
        found, many = await asyncio.gather(
            self._found({leg: self._question(leg, size) for leg, size in sizes.items()}),
            self._many() if conditions and reach is None else asyncio.sleep(0, None),
        )
        failed, candidates = _apart(found)
        admitted = await self._admitted(candidates)
        try:
            while better := await self._better(candidates, admitted, many):
                candidates |= better
                admitted |= {
                    leg: hits for leg, hits in (await self._admitted(better)).items() if isinstance(hits, list)
                }
        except StageFailed:
            # There was no time for more questions.
            pass
        return failed | admitted

    async def _better(
        self, candidates: Mapping[str, _Candidates], admitted: Mapping[str, list[Hit] | str], many: bool | None
    ) -> dict[str, _Candidates]:
        """New candidates for legs whose conditions dropped too many of them, or that met documents which the companion
        has not scored; none if nothing is to be had. `many`: see `_many`; None if it is not known."""
        profile = self._plan.profile
        hits_of = {leg: hits for leg, hits in admitted.items() if not isinstance(hits, str)}
        full = {leg: hits for leg, hits in hits_of.items() if candidates[leg].asked}
        known = {hit.key for hit in candidates["expansion"].hits} if "expansion" in full else set()
        unknown = [hit.doc_id for hit in full.get("expansion", ()) if hit.key not in known]
        # Conditions dropped candidates: the request's, or those of an alias or of document-level security.
        few = any(len(hits) < profile.window for hits in full.values()) or 2 * len(unknown) > profile.window
        if few or (unknown and legs.allowed(self._plan.request)):
            most = max(candidates[leg].asked for leg in full)
            # Of the leg that lost the largest share of its candidates.
            shares = [(len(hits) / candidates[leg].asked, leg) for leg, hits in full.items() if leg in NEURAL_LEGS]
            asked, n_admitted = most, profile.window - len(unknown)
            if shares:
                _, leg = min(shares)
                asked, n_admitted = candidates[leg].asked, len(full[leg])
            if most == beside.MAX_CANDIDATES or asked * profile.window > n_admitted * beside.MAX_CANDIDATES:
                many = await self._many() if many is None else many
                if not many and (among := await self._matching()) is not None:
                    exact = _apart(await self._found_among(full, among))[1]
                    return {leg: replace(each, asked=0) for leg, each in exact.items()}
            if most < beside.MAX_CANDIDATES:
                more = max(beside.n_more(profile, asked, n_admitted), min(2 * most, beside.MAX_CANDIDATES))
                self._searches.reach[self._conditions] = more
                return _apart(await self._found({leg: self._question(leg, more) for leg in full}))[1]
        if not unknown:
            return {}
        scored = _apart(await self._found({_UNKNOWN: self._question("expansion", len(unknown), unknown)}))[1]
        together = [hit for each in scored.values() for hit in each.hits]
        together += candidates["expansion"].hits
        return {"expansion": _Candidates(together[: beside.MAX_CANDIDATES])}

    async def _many(self) -> bool:
        """Whether the conditions allow too many documents to compare each of them. That is told at once; so many ids
        would take tens of milliseconds."""
        return bool((await self._by_caller({_MATCHING: beside.beyond_matching(self._plan.request)}))[_MATCHING])

    async def _matching(self) -> list[str] | None:
        """The ids of all documents that the conditions allow; None if there are too many, or none can be had."""
        hits = (await self._by_caller({_MATCHING: beside.matching(self._plan.request)}))[_MATCHING]
        if isinstance(hits, str) or len(hits) >= beside.MAX_MATCHING:
            self._searches.reach.pop(self._conditions, None)
            return None
        self._searches.reach[self._conditions] = _ALL
        return [hit.doc_id for hit in hits]

    async def _found_among(self, wanted: Iterable[str], among: Sequence[str]) -> dict[str, _Candidates | str]:
        """Every document of `among`, scored by the companions."""
        # Each index may have its own document of an id.
        profile = self._plan.profile
        n_documents = len(among) * len(profile.beside_indices)
        none: dict[str, _Candidates | str] = {leg: _Candidates([]) for leg in wanted}
        sizes = {leg: min(n_documents, beside.n_candidates(profile, leg, allowed=True)) for leg in wanted if among}
        return none | await self._found({leg: self._question(leg, size, among) for leg, size in sizes.items()})

    def _question(self, leg: str, size: int, among: Collection[str] | None = None) -> Json:
        plan = self._plan
        match leg:
            case "vector":
                return beside.vector(plan.profile, self._embedding or (), size=size, among=among)
            case "image":
                return beside.vector(plan.profile, self._of_images or (), size=size, among=among, images=True)
            case "sparse":
                return beside.sparse(plan.profile, self._terms or {}, size=size, among=among)
        return beside.expansion(plan.request, plan.profile, size=size, among=among)

    async def _found(self, questions: Mapping[str, Json]) -> dict[str, _Candidates | str]:
        """The companions' answers, or why there are none."""
        if not questions:
            return {}
        indices = self._searches.companions(self._plan)
        try:
            answer = await self._searches.companion_msearch(self._plan, questions.values())
            id_field = self._plan.profile.entry_id_field
            found = await aside(len(answer), lambda: leg_rankings(answer, list(questions), id_field=id_field))
        except (StageFailed, AnswerNotUnderstood) as failed:
            return dict.fromkeys(questions, str(failed))
        candidates: dict[str, _Candidates | str] = {}
        for leg, hits in found.items():
            if isinstance(hits, str):
                candidates[leg] = hits
                continue
            size = questions[leg]["size"]
            ours = [msgspec.structs.replace(hit, index=indices[hit.index]) for hit in hits if hit.index in indices]
            self._entries.add({hit.key: hit.fields for hit in ours})
            candidates[leg] = _Candidates(ours, size if len(hits) >= size else 0).unchanged(self._entries)
        return candidates

    async def _admitted(self, candidates: Mapping[str, _Candidates]) -> dict[str, list[Hit] | str]:
        """The legs' hits in the application's index. Documents whose texts are others than those of which the companion
        made its entries count as if it had none of them."""
        hits_of = await self._shown(candidates)
        fresh = {leg: each.unchanged(self._entries) for leg, each in candidates.items()}
        changed = {leg: each for leg, each in fresh.items() if len(each.hits) < len(candidates[leg].hits)}
        if changed and not any(map(self._entries.count, self._entries.sources)):
            raise StageFailed("texts_differ", "no companion's entry was made of the texts that the caller is shown")
        # Without them the window shows others, which may have changed too: one of these is left out, and no more asked.
        again = await self._shown(changed)
        for leg, each in changed.items():
            hits = again[leg]
            later = self._entries.changed & {hit.key for hit in each.hits}
            hits_of[leg] = hits if isinstance(hits, str) else [hit for hit in hits if hit.key not in later]
        return {leg: hits if isinstance(hits, str) else list(map(self._coded, hits)) for leg, hits in hits_of.items()}

    def _coded(self, hit: Hit) -> Hit:
        """A hit of the application's index with the code that its entry has, if that one counts."""
        code_field = self._plan.profile.code_field
        code = self._entries.values.get(hit.key, {}).get(code_field)
        if code is None or not self._entries.count(hit.key):
            return hit
        return msgspec.structs.replace(hit, fields={**hit.fields, code_field: code})

    async def _shown(self, candidates: Mapping[str, _Candidates]) -> dict[str, list[Hit] | str]:
        """The legs' hits in the application's index; their texts are noted."""
        plan = self._plan
        hits_of = await self._by_caller(
            {
                leg: beside.admission(plan.request, plan.profile, leg, each.hits, shown=self._presentation)
                for leg, each in candidates.items()
            },
            shows=self._presentation is not None,
        )
        for leg in NEURAL_LEGS:
            if isinstance(scored := hits_of.get(leg), list):
                hits_of[leg] = beside.in_order(plan.profile, candidates[leg].hits, scored)
        shown = {hit.key: hit.source for hits in hits_of.values() if not isinstance(hits, str) for hit in hits}
        await aside(sum(map(len, shown.values())), lambda: self._entries.show(shown))
        return hits_of

    async def _by_caller(self, bodies: Mapping[str, Json], *, shows: bool = False) -> dict[str, list[Hit] | str]:
        if not bodies:
            return {}
        plan = self._plan
        answer = await self._searches.msearch(plan, legs.msearch(bodies.values(), scope(plan)), stage="legs")
        if shows:
            self._entries.keep_shown(answer)
        try:
            return await aside(len(answer), lambda: leg_rankings(answer, list(bodies)))
        except AnswerNotUnderstood as error:
            raise StageFailed("legs_unavailable", str(error)) from error


async def companion_texts(
    plan: Plan,
    searches: OwnSearches,
    entries: Entries,
    keys: Sequence[Key],
    embedding: Sequence[float] | None,
    passages: int,
    deadline: float,
) -> list[ShownHit]:
    """The answer to `legs.texts`: texts as the application's index shows them to the caller, most of which came with
    the legs' hits, and the offsets of passages from the companions.

    Raises:
        StageFailed: as `OwnSearches.hits` and `OwnSearches.companion_hits`.
    """
    unknown = [key for key in keys if key not in entries.sources]
    nested = embedding is not None and plan.profile.passages.layout == "nested"
    read, found = await asyncio.gather(
        searches.hits(plan, legs.texts(plan.profile, unknown, None), stage="texts", deadline=deadline)
        if unknown
        else _none(),
        searches.companion_hits(
            plan,
            keys,
            lambda theirs: legs.offsets(plan.profile, theirs, embedding or (), passages=passages),
            deadline=deadline,
        )
        if nested
        else _none(),
        return_exceptions=True,
    )
    if isinstance(read, BaseException):
        raise read
    if isinstance(found, BaseException):
        raise found
    entries.show({hit.key: bytes(hit.members.get("_source", b"{}")) for hit in read})
    entries.add({hit.key: doc_values(hit) for hit in found})
    offsets = {
        hit.key: hit.members["inner_hits"] for hit in found if "inner_hits" in hit.members and entries.count(hit.key)
    }
    return [
        ShownHit(key, 0.0, {"_source": msgspec.Raw(source)} | ({"inner_hits": offsets[key]} if key in offsets else {}))
        for key in keys
        if (source := entries.sources.get(key)) is not None
    ]


async def _none() -> list[ShownHit]:
    return []
