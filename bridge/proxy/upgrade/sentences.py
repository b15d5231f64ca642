"""The sentence that answers, in place of a highlight that the application wants and a hit lacks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from bridge.errors import StageFailed
from bridge.proxy.transport.passthrough import aside
from bridge.proxy.upgrade.cluster_client import OwnSearches, deadline_of_showing
from bridge.proxy.upgrade.model_client import Sidecar
from bridge.proxy.upgrade.planning import Plan
from bridge.proxy.upgrade.ranking import Ranked, Ranker
from bridge.records import Key
from bridge.search import legs
from bridge.search.highlighting import (
    MAX_SENTENCES,
    WORDS_WEIGHT,
    WantedFragments,
    scores_by_words,
    sentences_to_read,
    wanted_fragments,
)
from bridge.search.response import RawObject, with_members
from bridge.text import decode_answer, strings_in

MAX_READ = 200
"""Sentences of one page that the cross-encoder reads; hits further down that lack a highlight then get none."""

_FILTERS_OF_SOURCE = ("_source", "_source_excludes", "_source_includes", "stored_fields")


@dataclass(slots=True)
class _Lack:
    """A field of a hit that has no highlight; `candidates` are sentences of its `texts`: number of the text, start and
    end."""

    at: int
    key: Key
    wanted: WantedFragments
    texts: Sequence[str] = ()
    candidates: Sequence[tuple[int, int, int]] = ()

    def sentences(self) -> list[str]:
        """The texts of the candidates."""
        return [self.texts[n][start:end] for n, start, end in self.candidates]


class Sentences:
    """Finds sentences in what the cluster shows of a document to the caller, and lets the cross-encoder choose."""

    def __init__(self, searches: OwnSearches, ranker: Ranker, sidecar: Sidecar) -> None:
        self._searches = searches
        self._ranker = ranker
        self._sidecar = sidecar

    async def shown(self, plan: Plan, ranked: Ranked, hits: Sequence[RawObject]) -> list[RawObject]:
        """The hits, with a sentence wherever one was wanted and found; as they are, with a note, if it fails."""
        plan = replace(plan, request=replace(plan.request, repair=ranked.repair))
        wanted = wanted_fragments(plan.request.presentation.get("highlight"), plan.profile.text_fields)
        lacks = [lack for at, hit in enumerate(hits) for lack in _lacks(at, hit, wanted)]
        if not lacks:
            return list(hits)
        try:
            with ranked.notes.timed("sentences"):
                await self._find_candidates(plan, ranked, hits, lacks)
                return await self._with_best(plan, ranked, hits, _first_read(lacks))
        except StageFailed as failed:
            ranked.notes.failures.append(failed)
            return list(hits)

    async def _find_candidates(
        self, plan: Plan, ranked: Ranked, hits: Sequence[RawObject], lacks: Sequence[_Lack]
    ) -> None:
        sources = {lack.key: bytes(hits[lack.at].get("_source", b"{}")) for lack in lacks}
        await _read_texts(sources, lacks)
        request = plan.request
        if any(name in request.presentation or name in request.url_presentation for name in _FILTERS_OF_SOURCE):
            # A highlight may show a field that the application leaves out of `_source`.
            unread = list(dict.fromkeys(lack.key for lack in lacks if not lack.texts))
            if unread:
                fetched = await self._searches.hits(
                    plan, legs.texts(plan.profile, unread, None), stage="sentences", deadline=deadline_of_showing(plan)
                )
                sources = {hit.key: bytes(hit.members.get("_source", b"{}")) for hit in fetched}
                await _read_texts(sources, [lack for lack in lacks if not lack.texts])
        await aside(_chars(lacks), lambda: _choose(lacks, plan, {}))
        if long := [lack.key for lack in lacks if len(lack.candidates) == MAX_SENTENCES]:
            passages = await self._best_passages(plan, ranked, list(dict.fromkeys(long)))
            await aside(
                _chars(lacks), lambda: _choose([each for each in lacks if each.key in passages], plan, passages)
            )

    async def _best_passages(self, plan: Plan, ranked: Ranked, keys: Sequence[Key]) -> dict[Key, str]:
        """What the reranker read of each document; of others the passage nearest to the query."""
        read = {key: passage.text for key, passage in ranked.ranking.passages.items() if key in keys}
        if unread := [key for key in keys if key not in read]:
            nearest = await self._ranker.passages(plan, ranked, unread)
            read |= {key: passage.text for key, [passage, *_] in nearest.items()}
        return read

    async def _with_best(
        self, plan: Plan, ranked: Ranked, hits: Sequence[RawObject], lacks: Sequence[_Lack]
    ) -> list[RawObject]:
        """The hits, with the sentence of each field that has the highest score by the cross-encoder and by its words in
        common with the query, the first of equals."""
        several = [lack for lack in lacks if len(lack.candidates) > 1]  # of one sentence there is nothing to choose
        logits: Iterator[float] = iter(())
        if several:
            texts = [sentence for lack in several for sentence in lack.sentences()]
            deadline = deadline_of_showing(plan)
            logits = iter(await self._sidecar.read_sentences(plan.request.meant_text, texts, deadline=deadline))
        highlights: dict[int, dict[str, list[str]]] = {}
        explanations: dict[int, dict[str, object]] = {}
        for lack in lacks:
            score, best = None, 0
            if len(lack.candidates) > 1:
                by_words = scores_by_words(plan.request.meant_text, lack.sentences())
                scores = [next(logits) + WORDS_WEIGHT * words for words in by_words]
                score = max(scores)
                best = scores.index(score)
            n, start, end = lack.candidates[best]
            name, text = lack.wanted.name, lack.texts[n]
            highlights.setdefault(lack.at, {})[name] = [lack.wanted.fragment(text, start, end)]
            explained = {"value": n, "start": start, "end": end}
            explanations.setdefault(lack.at, {})[name] = explained if score is None else {**explained, "score": score}
        ranked.notes.n_sentences = len(highlights)
        shown = list(hits)
        for at, added in highlights.items():
            shown[at] = with_members(shown[at], "highlight", added)
            if plan.explain:
                shown[at] = with_members(shown[at], "_bridge", {"sentences": explanations[at]})
        return shown


def _lacks(at: int, hit: RawObject, wanted: Sequence[WantedFragments]) -> Iterator[_Lack]:
    own = decode_answer(bytes(hit.get("highlight", b"{}")), dict[str, msgspec.Raw])
    key = decode_answer(bytes(hit["_index"]), str), decode_answer(bytes(hit["_id"]), str)
    return (_Lack(at, key, each) for each in wanted if each.name not in own)


async def _read_texts(sources: Mapping[Key, bytes], lacks: Sequence[_Lack]) -> None:
    def read() -> None:
        names = sorted({lack.wanted.text_field for lack in lacks})
        texts = {key: _texts(source, names) for key, source in sources.items()}
        for lack in lacks:
            lack.texts = texts.get(lack.key, {}).get(lack.wanted.text_field, ())

    await aside(sum(map(len, sources.values())), read)


def _texts(source: bytes, names: Sequence[str]) -> dict[str, list[str]]:
    try:
        return strings_in(source, names)
    except (ValueError, RecursionError):
        return {}


def _choose(lacks: Sequence[_Lack], plan: Plan, passages: Mapping[Key, str]) -> None:
    for lack in lacks:
        lack.candidates = sentences_to_read(
            lack.texts,
            max_chars=lack.wanted.max_chars,
            passage=passages.get(lack.key),
            query=plan.request.meant_text,
        )


def _chars(lacks: Sequence[_Lack]) -> int:
    return sum(len(text) for lack in lacks for text in lack.texts)


def _first_read(lacks: Sequence[_Lack]) -> list[_Lack]:
    """Those whose sentences are read, in the order of the page."""
    read, n_sentences = [], 0
    for lack in lacks:
        n_sentences += len(lack.candidates)
        if n_sentences > MAX_READ:
            break
        if lack.candidates:
            read.append(lack)
    return read
