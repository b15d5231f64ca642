"""One search from its words to a ranking: legs, fusion, reranking.

The proxy, `tune`, `adapt` and the benchmark of models all rank by `rank`, each with a `Backend` of its own, which asks
the cluster and the models. Nothing here opens a connection.
"""

import asyncio
import base64
import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol

import msgspec

from bridge.cluster.dialects import code_bytes
from bridge.errors import CascadeMissing
from bridge.profile import IndexProfile, Stage
from bridge.records import Hit, Key, Passage, RankedHit, Terms
from bridge.search import boosts, legs
from bridge.search.boosts import Boosts
from bridge.search.cascade import CascadeRequest
from bridge.search.collapse import Group, first_of_each, groups_of
from bridge.search.fusion import (
    LegRankings,
    cascade,
    confidence,
    diversify,
    first_stage,
    fuse,
    fused_scores,
    leg_weights,
    lifted,
    of_passages,
    pinned,
    rerank,
    smooths,
    without_distant,
)
from bridge.search.json_tree import Json
from bridge.search.request import Repair, SearchRequest

CONFIDENT = "+confident"
"""What the names of a ranking's stages end with if one text leg ranked alone."""

DIVERSE = "+diverse"
"""What they end with if likeness to the documents before counted."""

_FOR_URLS = str.maketrans("-_", "+/")

TEXT_LEGS = ("expansion", "lexical")
NEURAL_LEGS = ("vector", "sparse", "image")
WORDS, BOOSTS = "words", "boosts"
"""Names of the searches that `bridge.search.boosts` reads; like the leg `lexical` they are the application's own."""
_RERANKED = ("rerank", "cascade")

READ_CHARS = 2_000
"""Characters of a passage that a cross-encoder is sent: more than it reads. The rest of a long text need not travel."""


class Backend(Protocol):
    """Answers what a search needs to know.

    An answer that cannot be had is None or empty, and the search goes on without it; the backend notes why.
    """

    async def repair(self, request: SearchRequest) -> Repair | None:
        """What misspelt words of the user's were meant to be; None if there are none, and by default."""
        return None

    async def embed(self, text: str) -> Sequence[float] | None:
        """The query's embedding, of unit length."""

    async def embed_for_images(self, text: str) -> Sequence[float] | None:
        """The query's embedding in the space of pictures, of unit length; None by default."""
        return None

    async def weigh(self, text: str) -> Terms | None:
        """The query's weighted terms; empty if it has none."""

    def begin(self, bodies: Mapping[str, Json]) -> None:
        """Called while the query is being encoded, with bodies that `search` gets for certain afterwards, among others.
        They may be run at once; by default nothing is."""
        return

    async def search(self, bodies: Mapping[str, Json]) -> Mapping[str, Sequence[Hit]]:
        """Runs one search body per leg. Returns leg → hits, best first, each document once; with the doc values
        that the bodies ask for: codes (`bridge.search.legs.coded`), and the field by which hits are grouped."""

    async def read(
        self, keys: Sequence[Key], embedding: Sequence[float] | None, *, passages: int
    ) -> Mapping[Key, Sequence[Passage]]:
        """Up to `passages` passages of each document, nearest to `embedding` first; the whole text if the document has
        no passages or `embedding` is None. In the order of `keys`, without documents that have no visible text."""

    def affordable(self, sizes: Sequence[int]) -> int:
        """How many of the documents that were read, with so many characters each, the large cross-encoder can score in
        time, the first ones; all of them by default."""
        return len(sizes)

    def check_cascade(self) -> None:
        """Called before documents are read for a cascade.

        Raises:
            CascadeMissing: it is known already that there is no small cross-encoder.
        """

    async def score(
        self, text: str, passages: Sequence[str], *, cascade: CascadeRequest | None = None
    ) -> Sequence[float] | None:
        """The large cross-encoder's logits, in the order of `passages`; with `cascade`, those of both models merged
        (`bridge.search.cascade.merge_scores`).

        Raises:
            CascadeMissing: `cascade` is given, and there is no small cross-encoder.
        """


@dataclass(frozen=True, slots=True)
class Ranking:
    """A ranking and how it came about.

    `hits`: best first, each document once, or each group if the search is collapsed; empty if no leg answered.
    `complete`: every document that the application's own query matches is among them, or one of its group. `stages`:
    what took part, for example `hybrid+rerank`. `legs`: the hits of each leg. `groups`: the group of each document,
    empty if the search is not collapsed. `passages`: of documents with several, the one that the cross-encoder scored
    best. `embedding`: the query's; None if there is none, or if the caller may not see the vectors to compare it with.
    `terms`: the query's, if leg `sparse` was searched. `confidence`: the probability that the index answers the query,
    None if it is not calibrated or the vector leg found nothing. `closest`: the application's own query matches
    nothing, and these are the closest documents in its place. `repair`: what misspelt words were taken for.
    """

    hits: Sequence[RankedHit] = ()
    complete: bool = False
    stages: str = "lexical"
    legs: LegRankings = field(default_factory=dict)
    groups: Mapping[Key, Group] = field(default_factory=dict)
    passages: Mapping[Key, Passage] = field(default_factory=dict)
    embedding: Sequence[float] | None = None
    terms: Terms = field(default_factory=dict)
    confidence: float | None = None
    closest: bool = False
    repair: Repair | None = None

    @property
    def own(self) -> list[Key]:
        """What the application's own query found, best first and one of each group; empty if it was no leg."""
        hits = self.legs.get("lexical", ())
        return [hit.key for hit in (first_of_each(hits, self.groups) if self.groups else hits)]


@dataclass(frozen=True, slots=True)
class Distance:
    """What becomes of documents that only vectors found.

    `cutoff`: those that answer the query with a smaller probability are left out; 0 leaves none out. `fallback`: if
    nothing is left, and the application's own query matches nothing, the closest documents are ranked all the same.
    """

    cutoff: float = 0.0
    fallback: bool = False


ANY_DISTANCE = Distance()


async def rank(
    request: SearchRequest,
    profile: IndexProfile,
    stage: Stage,
    backend: Backend,
    *,
    explain: bool = False,
    distance: Distance = ANY_DISTANCE,
) -> Ranking:
    """Ranks by all stages up to `stage`, without those that the backend has no answers for.

    `explain` also runs the application's own query as a leg if it has no weight, so that its ranks can be shown. If the
    search is collapsed, all documents that the legs found are ranked, the best of each group stays, and the window is
    cut last: every page is of the same groups.
    """
    ranking = await _rank_documents(request, profile, stage, backend, explain, distance)
    if distance.fallback and ranking.legs and not ranking.hits and profile.has_vectors:
        by_vectors: Stage = stage if "vector" in leg_weights(profile, stage) else "vector"
        if (by_vectors, distance.cutoff) != (stage, 0):
            every = replace(distance, cutoff=0.0)
            repaired = replace(request, repair=ranking.repair)
            ranking = await _rank_documents(repaired, profile, by_vectors, backend, explain, every)
    if request.collapse is None:
        return ranking
    groups = groups_of((hit for hits in ranking.legs.values() for hit in hits), request.collapse)
    return replace(ranking, hits=first_of_each(ranking.hits, groups)[: profile.window], groups=groups)


async def _rank_documents(
    request: SearchRequest, profile: IndexProfile, stage: Stage, backend: Backend, explain: bool, distance: Distance
) -> Ranking:
    weights = leg_weights(profile, stage)
    # A text leg alone ranks as the boosts want it.
    reordered = stage in _RERANKED or not weights.keys().isdisjoint(NEURAL_LEGS)
    boosting = request.clause.boosted and profile.rules.boosts > 0 and reordered
    tells_matches = distance.fallback or (distance.cutoff > 0 and weights.keys().isdisjoint(TEXT_LEGS))
    wanted = weights.keys() | {"lexical"} if explain or boosting or tells_matches else weights.keys()
    smoothing = smooths(profile, stage)
    diverse = profile.rules.diversity > 0 and profile.has_codes and reordered
    request, hits_of, embedding, terms = await _run_legs(
        request, profile, wanted, backend, coded=smoothing or diverse, words=boosting
    )
    hits_of, wishes = await _boosts(hits_of, request, profile, backend) if boosting else (hits_of, Boosts())
    unpinned: LegRankings = hits_of
    if wishes.pinned:
        unpinned = {leg: [hit for hit in hits if hit.key not in wishes.pinned] for leg, hits in hits_of.items()}
    confident = confident_leg(unpinned, weights, profile.rules.confident_lead)
    if confident is not None:
        weights, wishes, unpinned = {confident: 1.0}, Boosts(), hits_of
    counting = {leg: hits for leg, hits in hits_of.items() if weights.get(leg, 0.0) > 0}
    nearest = hits_of.get("vector")
    certainty = confidence(profile, nearest[0].score) if nearest else None
    if not counting:
        return Ranking(legs=hits_of, embedding=embedding, terms=terms, confidence=certainty, repair=request.repair)
    fusion = msgspec.structs.replace(profile.fusion, weights=weights)
    codes = codes_of(counting, profile) if (smoothing or diverse) and confident is None else {}
    fused = fuse(
        unpinned, fusion, window=profile.window, codes=codes if smoothing else {}, cut=request.collapse is None
    )
    if distance.cutoff > 0 and not hits_of.keys().isdisjoint(TEXT_LEGS):
        fused = without_distant(fused, profile, distance.cutoff)
    ranking = Ranking(
        hits=first_stage(lifted(fused, wishes.lifts)),
        complete=_holds_all_matches(counting, profile.window),
        stages="hybrid" if len(counting) > 1 else next(iter(counting)),
        legs=hits_of,
        embedding=embedding,
        terms=terms,
        confidence=certainty,
        closest=distance.fallback and bool(fused) and not hits_of.get("lexical", True),
        repair=request.repair,
    )
    if confident is not None:
        return replace(ranking, stages=ranking.stages + CONFIDENT)
    if stage == "smoothing" and smoothing and codes:
        ranking = replace(ranking, stages=f"{ranking.stages}+smoothing")
    elif ranking.hits and request.start < reranked_documents(profile, stage):
        ranking = await _read(ranking, request, profile, stage, backend, n_pinned=len(wishes.pinned))
    if diverse and codes:
        reranked = max(reranked_documents(profile, stage) - len(wishes.pinned), 0)
        apart = diversify(ranking.hits, codes, profile.rules.diversity, reranked=reranked, before=wishes.pinned)
        ranking = replace(ranking, hits=apart, stages=ranking.stages + DIVERSE)
    if not wishes.pinned:
        return ranking
    hits = [*pinned(wishes.pinned, hits_of), *ranking.hits]
    return replace(ranking, hits=hits[: profile.window] if request.collapse is None else hits)


async def _boosts(
    hits_of: LegRankings, request: SearchRequest, profile: IndexProfile, backend: Backend
) -> tuple[dict[str, Sequence[Hit]], Boosts]:
    """The legs without what was asked of the words alone, and what the application's boosts say of the documents found;
    nothing if that cannot be had."""
    found = {leg: hits for leg, hits in hits_of.items() if leg != WORDS}
    keys = sorted({hit.key for hits in found.values() for hit in hits})
    if WORDS not in hits_of or not keys:
        return found, Boosts()
    words = hits_of[WORDS]
    asked = boosts.boosts_alone(request, profile, keys, boosts.level_of(words))
    scored = (await backend.search({BOOSTS: asked})).get(BOOSTS, ())
    return found, Boosts.read(words, scored, found.get("lexical", ()), profile.rules.boosts)


async def _run_legs(
    request: SearchRequest,
    profile: IndexProfile,
    wanted: Collection[str],
    backend: Backend,
    *,
    coded: bool,
    words: bool,
) -> tuple[SearchRequest, dict[str, Sequence[Hit]], Sequence[float] | None, Terms]:
    """The request, repaired if words are misspelt; the hits of the legs that answered, `coded` with codes; the query's
    embedding, and its weighted terms; with `words` also what these alone are worth."""

    def complete(bodies: Mapping[str, Json]) -> dict[str, Json]:
        return {leg: legs.coded(body, profile) if coded else body for leg, body in bodies.items()}

    def of_text(request: SearchRequest) -> dict[str, Json]:
        bodies: dict[str, Json] = {WORDS: boosts.words_alone(request, profile)} if words else {}
        if "lexical" in wanted:
            bodies["lexical"] = legs.lexical(request, profile)
        if "expansion" in wanted:
            bodies["expansion"] = legs.expansion(request, profile)
        return bodies

    async def encoded(text: str) -> tuple[Sequence[float] | None, Terms | None, Sequence[float] | None]:
        return await asyncio.gather(
            backend.embed(text) if "vector" in wanted else _nothing(),
            backend.weigh(text) if "sparse" in wanted else _nothing(),
            backend.embed_for_images(text) if "image" in wanted else _nothing(),
        )

    may_repair = profile.rules.repair and request.repair is None
    bodies = of_text(request)
    if bodies and not may_repair and any(leg in wanted for leg in NEURAL_LEGS):
        backend.begin(complete(bodies))
    # Mostly nothing is misspelt: the text as typed is encoded meanwhile.
    (embedding, terms, of_images), repair = await asyncio.gather(
        encoded(request.meant_text), backend.repair(request) if may_repair else _nothing()
    )
    if repair is not None:
        request = replace(request, repair=repair)
        bodies = of_text(request)
        meant = await encoded(repair.text)
        embedding, terms, of_images = meant[0] or embedding, meant[1] or terms, meant[2] or of_images
    if embedding is not None:
        bodies["vector"] = legs.vector(request, profile, embedding)
    if terms:
        bodies["sparse"] = legs.sparse(request, profile, terms)
    if of_images is not None:
        bodies["image"] = legs.vector(request, profile, of_images, images=True)
    hits_of = dict(await backend.search(complete(bodies))) if bodies else {}
    few = {leg for leg in ("vector", "image") if leg in hits_of and len(hits_of[leg]) < profile.window}
    if few and profile.beside is None:
        # Few documents are allowed, or document-level security hid the nearest: only a full comparison tells, and
        # among few documents it costs little. A companion knows no conditions: there the backend finds out which
        # documents are allowed.
        exact: dict[str, Json] = {}
        if embedding is not None and "vector" in few:
            exact["vector"] = legs.exact_vector(request, profile, embedding)
        if of_images is not None and "image" in few:
            exact["image"] = legs.exact_vector(request, profile, of_images, images=True)
        hits_of |= await backend.search(complete(exact))
    if not hits_of.get("vector"):
        # Vectors that the caller may not see are not compared with anything further on either.
        embedding = None
    if request.min_score is not None:
        hits_of |= {leg: _reaching_min_score(hits_of, leg) for leg in NEURAL_LEGS if leg in hits_of}
    return request, hits_of, embedding, terms or {}


async def _nothing() -> None:
    return None


def codes_of(hits_of: LegRankings, profile: IndexProfile) -> dict[Key, bytes]:
    """The codes of the documents found; a code of another length is not one of ours."""
    found = {
        hit.key: _code(hit.fields.get(profile.code_field)) for hits in hits_of.values() for hit in hits if hit.fields
    }
    return {key: code for key, code in found.items() if len(code) == code_bytes(profile)}


def _code(values: Sequence[object] | None) -> bytes:
    """A binary doc value: Elasticsearch writes it in base64, OpenSearch in that for URLs and without padding."""
    match values:
        case [str(value)]:
            with contextlib.suppress(ValueError):
                return base64.b64decode(value.translate(_FOR_URLS) + "=" * (-len(value) % 4))
    return b""


def _reaching_min_score(hits_of: LegRankings, leg: str) -> list[Hit]:
    """The hits of a neural leg that a text leg has too: only those are known to reach `min_score`."""
    reaching = {hit.key for leg in TEXT_LEGS for hit in hits_of.get(leg, ())}
    return [hit for hit in hits_of[leg] if hit.key in reaching]


def _holds_all_matches(counting: LegRankings, window: int) -> bool:
    """Whether the window cut off no document that the application's query matches, so that there is no tail."""
    merged = {hit.key for hits in counting.values() for hit in hits}
    return len(merged) <= window and any(len(counting[leg]) < window for leg in TEXT_LEGS if leg in counting)


def reranked_documents(profile: IndexProfile, stage: Stage) -> int:
    """How many documents the cross-encoders order at a stage: no page beyond them needs any."""
    match stage:
        case "rerank":
            return profile.rerank.depth
        case "cascade":
            return max(profile.rerank.cascade.candidates, profile.rerank.depth)
    return 0


async def _read(
    ranking: Ranking, request: SearchRequest, profile: IndexProfile, stage: Stage, backend: Backend, *, n_pinned: int
) -> Ranking:
    """The cross-encoders over the first documents. Pinned ones before them are not read, and count among them."""
    if stage == "cascade":
        try:
            return await _rerank_by_cascade(ranking, request, profile, backend, n_pinned)
        except CascadeMissing:
            # The large cross-encoder alone reads fewer documents, and is still worth having.
            pass
    return await _rerank(ranking, request, profile, backend, n_pinned)


async def _rerank(
    ranking: Ranking, request: SearchRequest, profile: IndexProfile, backend: Backend, n_pinned: int
) -> Ranking:
    """The large cross-encoder over the first documents."""
    settings = profile.rerank
    keys = [hit.key for hit in ranking.hits[: max(settings.depth - n_pinned, 0)]]
    read = await backend.read(keys, ranking.embedding, passages=settings.passages)
    sizes = [sum(min(len(passage.text), READ_CHARS) for passage in passages) for passages in read.values()]
    read = dict(islice(read.items(), backend.affordable(sizes)))
    scores = await _score(request, read, backend)
    if not scores:
        return ranking
    logits = {key: of_passages(each, settings.passage_scores) for key, each in scores.items()}
    return replace(
        ranking,
        hits=rerank(ranking.hits, logits, settings),
        stages=f"{ranking.stages}+rerank",
        passages=_best_passages(ranking, profile, read, scores),
    )


async def _rerank_by_cascade(
    ranking: Ranking, request: SearchRequest, profile: IndexProfile, backend: Backend, n_pinned: int
) -> Ranking:
    """The small cross-encoder over one passage of many documents, the large one over the best of them.

    Raises:
        CascadeMissing: the backend has no small cross-encoder.
    """
    backend.check_cascade()
    settings = profile.rerank
    candidates = ranking.hits[: max(settings.cascade.candidates - n_pinned, 0)]
    read = await backend.read([hit.key for hit in candidates], ranking.embedding, passages=1)
    prior_scores = fused_scores([hit for hit in candidates if hit.key in read])
    wish = CascadeRequest(settings.cascade.depth, prior_scores, settings.blend)
    scores = await _score(request, read, backend, wish)
    if not scores:
        return ranking
    return replace(
        ranking,
        hits=cascade(ranking.hits, {key: score for key, [score] in scores.items()}, settings),
        stages=f"{ranking.stages}+cascade",
        passages=_best_passages(ranking, profile, read, scores),
    )


async def _score(
    request: SearchRequest,
    read: Mapping[Key, Sequence[Passage]],
    backend: Backend,
    cascade: CascadeRequest | None = None,
) -> dict[Key, list[float]]:
    """The cross-encoders' logits of each document's passages, in their order; empty if they cannot be had."""
    texts = [passage.text[:READ_CHARS] for passages in read.values() for passage in passages]
    scores = await backend.score(request.meant_text, texts, cascade=cascade) if texts else None
    if scores is None:
        return {}
    following = iter(scores)
    return {key: [next(following) for _ in passages] for key, passages in read.items()}


def _best_passages(
    ranking: Ranking,
    profile: IndexProfile,
    read: Mapping[Key, Sequence[Passage]],
    scores: Mapping[Key, Sequence[float]],
) -> dict[Key, Passage]:
    """The passage of each document with the best score; empty if documents have only one."""
    if profile.passages.layout != "nested" or ranking.embedding is None:
        return {}
    return {key: passages[scores[key].index(max(scores[key]))] for key, passages in read.items()}


def confident_leg(found: Mapping[str, Sequence[Hit]], weights: Mapping[str, float], lead: float | None) -> str | None:
    """The first text leg with a weight if its first score is at least `lead` times its second; else None.

    A first hit far ahead of the second is what a query for one certain document looks like, such as a title: then
    nothing is added to the leg's ranking. A leg with one hit alone says nothing, and `lead` None turns the rule off.
    """
    for leg in TEXT_LEGS:
        if lead is not None and weights.get(leg, 0.0) > 0 and len(hits := found.get(leg, ())) > 1:
            return leg if hits[0].score >= lead * hits[1].score > 0 else None
    return None
