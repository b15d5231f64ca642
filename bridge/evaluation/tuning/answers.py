"""Caches the cluster's and the sidecar's answers for one query, so tuning sends each request only once.

`bridge.search.flow` makes the requests, as in the proxy.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from time import perf_counter
from typing import Protocol, TypeVar

import msgspec
from opensearchpy import OpenSearch

from bridge.cluster.connection import exchange
from bridge.errors import AnswerNotUnderstood, CascadeMissing
from bridge.model_servers.client import SidecarClient
from bridge.profile import IndexProfile
from bridge.records import Hit, Key, Passage, Terms
from bridge.search import json_tree, legs
from bridge.search.cascade import CascadeRequest, merge_scores, select_for_large_model
from bridge.search.flow import Backend
from bridge.search.fusion import blended
from bridge.search.json_tree import Json
from bridge.search.request import SearchRequest
from bridge.search.response import found_hits, leg_rankings, passages_to_read

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class EncodedQuery:
    """What encoders make of a query: its embedding, its weighted terms, and its embedding in the space of pictures;
    None for what the index has no use for."""

    embedding: Sequence[float] | None = None
    terms: Terms | None = None
    of_images: Sequence[float] | None = None


class Source(Protocol):
    """Where the answers come from."""

    def embed(self, text: str) -> Sequence[float] | None:
        """The query's embedding; None if the index has no vectors."""

    def weigh(self, text: str) -> Terms | None:
        """The query's weighted terms; None if the index has none."""

    def embed_for_images(self, text: str) -> Sequence[float] | None:
        """The query's embedding in the space of pictures; None if the index has no vectors of pictures."""
        return None

    def search(
        self, bodies: Mapping[str, Json], profile: IndexProfile, encoded: EncodedQuery
    ) -> Mapping[str, Sequence[Hit]]:
        """The hits of each leg's body, which `profile` and what was made of the query gave. They have the codes of
        documents even if it does not ask for them, because settings that smooth and settings that do not share the
        answers."""

    def read(
        self, keys: Sequence[Key], embedding: Sequence[float] | None, *, passages: int
    ) -> Mapping[Key, Sequence[Passage]]:
        """As `bridge.search.flow.Backend.read`."""

    def score(self, text: str, passages: Sequence[str], *, small: bool) -> Sequence[float]:
        """Logits of the large cross-encoder, or of the `small` one.

        Raises:
            CascadeMissing: there is no small one.
        """


@dataclass(frozen=True, slots=True)
class ClusterAndSidecar(Source):
    """Sends the requests of one search. A failed request ends the tuning."""

    cluster: OpenSearch
    sidecar: SidecarClient
    index: str
    profile: IndexProfile
    scope: Mapping[str, str]

    def embed(self, text: str) -> Sequence[float] | None:
        if not self.profile.has_vectors:
            return None
        return self.sidecar.embed(text, model=self.profile.encoder.identity)

    def weigh(self, text: str) -> Terms | None:
        return None if self.profile.sparse is None else self.sidecar.weigh(text, self.profile.sparse)

    def embed_for_images(self, text: str) -> Sequence[float] | None:
        image = self.profile.image
        return None if image is None else self.sidecar.embed(text, model=image.encoder.identity)

    def search(
        self, bodies: Mapping[str, Json], profile: IndexProfile, encoded: EncodedQuery
    ) -> Mapping[str, Sequence[Hit]]:
        wanted = [legs.coded(body, self.profile) for body in bodies.values()]
        answer = self._send("_msearch", legs.msearch(wanted, self.scope), "application/x-ndjson")
        return self.answered(leg_rankings(answer, list(bodies)))

    def answered(self, legs_hits: Mapping[str, Sequence[Hit] | str]) -> Mapping[str, Sequence[Hit]]:
        """The hits of each leg.

        Raises:
            AnswerNotUnderstood: one of them failed.
        """
        hits_of: dict[str, Sequence[Hit]] = {}
        for leg, hits in legs_hits.items():
            if isinstance(hits, str):
                raise AnswerNotUnderstood(f"index {self.index}: the {leg} leg failed: {hits}")
            hits_of[leg] = hits
        return hits_of

    def read(
        self, keys: Sequence[Key], embedding: Sequence[float] | None, *, passages: int
    ) -> Mapping[Key, Sequence[Passage]]:
        body = legs.texts(self.profile, keys, embedding, passages=passages)
        hits = found_hits(self._send("_search", json_tree.write(body), "application/json"))
        return passages_to_read(hits, keys, self.profile)

    def score(self, text: str, passages: Sequence[str], *, small: bool) -> Sequence[float]:
        if small and self.sidecar.cascade_model is None:
            raise CascadeMissing("the sidecar has no small cross-encoder")
        return self.sidecar.rerank(text, passages, model=self.sidecar.cascade_model if small else None)

    def _send(self, endpoint: str, body: bytes, content_type: str) -> bytes:
        answer = exchange(self.cluster, "POST", f"/{self.index}/{endpoint}", body=body, content_type=content_type)
        if answer.status != 200:
            raise AnswerNotUnderstood(
                f"index {self.index}: the cluster answered {endpoint} with status {answer.status}: "
                f"{answer.body[:300]!r}"
            )
        return answer.body


@dataclass(slots=True)
class AverageTime:
    """Average time per item, such as a passage."""

    total_ms: float = 0.0
    n_things: int = 0

    def add(self, took_ms: float, n_things: int) -> None:
        """Adds a request for `n_things` items."""
        self.total_ms += took_ms
        self.n_things += n_things

    @property
    def each_ms(self) -> float:
        """Milliseconds per item; 0 before the first request."""
        return self.total_ms / self.n_things if self.n_things else 0.0


@dataclass(slots=True)
class Costs:
    """Milliseconds per part of one query.

    `own`: the application's own search; `embed`: the query's embedding; `weigh`: its terms; `embed_image`: its
    embedding for pictures; `text_leg` alone; `hybrid_legs`: the text leg and the vector leg together; `all_legs`:
    these, the sparse leg and that of pictures. `texts`: per document, to fetch its text; `large` and `small`: per
    passage, to score it.
    """

    own: float = 0.0
    embed: float = 0.0
    weigh: float = 0.0
    embed_image: float = 0.0
    text_leg: float = 0.0
    hybrid_legs: float = 0.0
    all_legs: float = 0.0
    texts: AverageTime = field(default_factory=AverageTime)
    large: AverageTime = field(default_factory=AverageTime)
    small: AverageTime = field(default_factory=AverageTime)


class RememberedSearch(Backend):
    """A backend for one query that asks `source` only for what it does not have yet, and records times in `costs`.

    It asks for `most_hits` per leg and `most_passages` per document, so smaller settings find their answers in the
    cache.
    """

    def __init__(
        self, query_id: str, request: SearchRequest, source: Source, *, most_hits: int, most_passages: int
    ) -> None:
        self.query_id = query_id
        self.request = request
        self.costs = Costs()
        self.own: Sequence[Hit] = ()
        """What the application's own query finds; known after `measure`."""
        self.source = source
        self._most_hits = most_hits
        self._most_passages = most_passages
        self._profile: IndexProfile
        self._encoded = EncodedQuery()
        self._hits: dict[bytes, Sequence[Hit]] = {}
        self._passages: dict[Key, Sequence[Passage]] = {}
        self._scores: dict[tuple[str, bool], float] = {}

    def measure(self, profile: IndexProfile) -> None:
        """Times the legs of the profile, and remembers their hits.

        Raises:
            BridgeError: the source does not answer.
        """
        self._profile = profile
        lexical = {"lexical": legs.lexical(self.request, profile)}
        text = {"expansion": legs.expansion(self.request, profile)} if profile.generator is not None else lexical
        hits_of, self.costs.own = _timed(lambda: self._ask(lexical))
        self.own = hits_of["lexical"]
        embedding, self.costs.embed = _timed(lambda: self.source.embed(self.request.text))
        terms, self.costs.weigh = _timed(lambda: self.source.weigh(self.request.text))
        of_images, self.costs.embed_image = _timed(lambda: self.source.embed_for_images(self.request.text))
        self._encoded = EncodedQuery(embedding, terms, of_images)
        bodies = hybrid = text
        if embedding is not None:
            bodies = hybrid = text | {"vector": legs.vector(self.request, profile, embedding)}
        if terms:
            bodies = bodies | {"sparse": legs.sparse(self.request, profile, terms)}
        if of_images is not None:
            bodies = bodies | {"image": legs.vector(self.request, profile, of_images, images=True)}
        self._ask(bodies)  # The first time pays for what later searches find done.
        costs = self.costs
        costs.text_leg = costs.hybrid_legs = _timed(lambda: self._ask(text))[1]
        if hybrid != text:
            costs.hybrid_legs = _timed(lambda: self._ask(hybrid))[1]
        costs.all_legs = costs.hybrid_legs if bodies == hybrid else _timed(lambda: self._ask(bodies))[1]

    def by(self, profile: IndexProfile) -> "RememberedSearch":
        """The same search by another profile: what one of them asks, all remember."""
        other = copy(self)
        other._profile = profile
        return other

    async def embed(self, text: str) -> Sequence[float] | None:
        return self._encoded.embedding

    async def embed_for_images(self, text: str) -> Sequence[float] | None:
        return self._encoded.of_images

    async def weigh(self, text: str) -> Terms | None:
        return self._encoded.terms

    async def search(self, bodies: Mapping[str, Json]) -> Mapping[str, Sequence[Hit]]:
        unknown = {leg: body for leg, body in bodies.items() if _without_size(body) not in self._hits}
        if unknown:
            self._ask(unknown)
        return {leg: self._hits[_without_size(body)][: body["size"]] for leg, body in bodies.items()}

    def _ask(self, bodies: Mapping[str, Json]) -> Mapping[str, Sequence[Hit]]:
        sized = {leg: body | {"size": max(self._most_hits, body["size"])} for leg, body in bodies.items()}
        hits_of = self.source.search(sized, self._profile, self._encoded)
        self._hits |= {_without_size(bodies[leg]): hits for leg, hits in hits_of.items()}
        return hits_of

    async def read(
        self, keys: Sequence[Key], embedding: Sequence[float] | None, *, passages: int
    ) -> Mapping[Key, Sequence[Passage]]:
        if unknown := [key for key in keys if key not in self._passages]:
            read, took_ms = _timed(lambda: self.source.read(unknown, embedding, passages=self._most_passages))
            self.costs.texts.add(took_ms, len(unknown))
            self._passages |= {key: read.get(key, ()) for key in unknown}
        return {key: known[:passages] for key in keys if (known := self._passages[key])}

    def check_cascade(self) -> None:
        """Does nothing: `score` raises the error."""

    async def score(
        self, text: str, passages: Sequence[str], *, cascade: CascadeRequest | None = None
    ) -> Sequence[float]:
        """Scores as the sidecar does. The cascade is simulated here, so another depth scores no passage again."""
        if cascade is None:
            return self._score(passages, small=False)
        first = self._score(passages, small=True)
        preferences = blended(first, cascade.prior_scores, cascade.prior_weight)
        best = select_for_large_model(first, depth=cascade.depth, preferences=preferences)
        second = self._score([passages[place] for place in best], small=False)
        return merge_scores(first, dict(zip(best, second, strict=True)))

    def _score(self, passages: Sequence[str], *, small: bool) -> list[float]:
        if unknown := [passage for passage in dict.fromkeys(passages) if (passage, small) not in self._scores]:
            scores, took_ms = _timed(lambda: self.source.score(self.request.text, unknown, small=small))
            (self.costs.small if small else self.costs.large).add(took_ms, len(unknown))
            self._scores |= {(passage, small): score for passage, score in zip(unknown, scores, strict=True)}
        return [self._scores[passage, small] for passage in passages]


def _without_size(body: Json) -> bytes:
    """A cache key for a body whatever its `size`, with or without codes."""
    return msgspec.json.encode({name: body[name] for name in body if name not in ("size", "docvalue_fields")})


def _timed(ask: Callable[[], _T]) -> tuple[_T, float]:
    """The answer, and the milliseconds it took."""
    began = perf_counter()
    answer = ask()
    return answer, (perf_counter() - began) * 1000
