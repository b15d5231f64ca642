"""What the cluster and the sidecar say of one query, asked once: enough to rank it anew under any setting.

The bodies of the legs, the fusion and the reranking are the proxy's own, from `bridge.search`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import msgspec
from opensearchpy import OpenSearch

from bridge.cluster.connection import exchange
from bridge.errors import AnswerNotUnderstood
from bridge.evaluation.application_query import BodyOf
from bridge.evaluation.tuning.setting import BOOSTS, MOST_PASSAGES, WINDOWS
from bridge.model_servers.client import SidecarClient
from bridge.profile import IndexProfile
from bridge.records import Hit, Key
from bridge.search import json_tree, legs
from bridge.search.json_tree import Json
from bridge.search.request import LeaveAlone, SearchRequest, parse
from bridge.search.response import found_hits, leg_rankings, nearest_passages, source_texts

_READ_CHARS = 2_000
"""More than a cross-encoder reads of a passage."""


@dataclass(slots=True)
class Pace:
    """How long things took, one with the other."""

    total_ms: float = 0.0
    n_things: int = 0

    def add(self, took_ms: float, n_things: int) -> None:
        """Counts a request in."""
        self.total_ms += took_ms
        self.n_things += n_things

    @property
    def each_ms(self) -> float:
        """Milliseconds per thing; 0 before the first."""
        return self.total_ms / self.n_things if self.n_things else 0.0


@dataclass(slots=True)
class Costs:
    """What each part took for one query. In milliseconds: the application's own search, the query's embedding,
    the text leg alone, all legs of a hybrid search together. Per document: to fetch its text; per passage: to have
    it read by the large and by the small cross-encoder."""

    own: float
    embed: float
    text_leg: float
    hybrid_legs: float
    texts: Pace = field(default_factory=Pace)
    large: Pace = field(default_factory=Pace)
    small: Pace = field(default_factory=Pace)


@dataclass(slots=True)
class CachedSearch:
    """One query. `lexical` and `vector`: hits of those legs in the largest window; `expansion`: those of the
    expansion leg by boost. As settings ask for them, `texts` gets the passages of each document that are nearest to
    the query, nearest first (its whole text where it has none), and `large` and `small` their scores, as many as
    were asked for."""

    query_id: str
    text: str
    embedding: Sequence[float] | None
    lexical: Sequence[Hit]
    expansion: Mapping[float, Sequence[Hit]]
    vector: Sequence[Hit]
    costs: Costs
    texts: dict[Key, list[str]] = field(default_factory=dict)
    large: dict[Key, list[float]] = field(default_factory=dict)
    small: dict[Key, list[float]] = field(default_factory=dict)


class SearchCache:
    """Asks the cluster and the sidecar, each thing once."""

    def __init__(
        self, cluster: OpenSearch, sidecar: SidecarClient, *, index: str, profile: IndexProfile, body_of: BodyOf
    ) -> None:
        """Nothing is sent yet."""
        self._cluster = cluster
        self._sidecar = sidecar
        self._index = index
        self._widest = msgspec.structs.replace(profile, window=max(*WINDOWS, profile.window))
        self._boosts = sorted({*BOOSTS, profile.expansion_boost}) if profile.generator is not None else []
        self._body_of = body_of

    def search(self, query_id: str, text: str) -> CachedSearch | None:
        """Runs every leg for a query; None where the proxy would leave such a search alone."""
        profile = self._widest
        body = self._body_of(text)
        request = parse(
            json_tree.write(body),
            "",
            text_fields=profile.text_fields,
            object_field=profile.object_field,
            rules=profile.rules,
        )
        if isinstance(request, LeaveAlone):
            return None
        own_ms = self._timed(request, {"lexical": legs.lexical(request, profile)})[1]
        embedding, embed_ms = None, 0.0
        bodies = {"lexical": legs.lexical(request, profile), **self._expansions(request)}
        if profile.vector_type != "none":
            begun = perf_counter()
            embedding = self._sidecar.embed(request.text, model=profile.encoder.identity)
            embed_ms = _ms_since(begun)
            bodies["vector"] = legs.vector(request, profile, embedding)
        found = self._timed(request, bodies)[0]
        if embedding is not None and len(found["vector"]) < profile.window:
            found |= self._timed(request, {"vector": legs.exact_vector(request, profile, embedding)})[0]
        text_leg = next(iter(self._expansions(request).values()), bodies["lexical"])
        text_leg_ms = self._timed(request, {"text": text_leg})[1]
        hybrid_ms = text_leg_ms
        if embedding is not None:
            hybrid_ms = self._timed(request, {"text": text_leg, "vector": bodies["vector"]})[1]
        return CachedSearch(
            query_id=query_id,
            text=request.text,
            embedding=embedding if found.get("vector") else None,
            lexical=found["lexical"],
            expansion={boost: found[_named(boost)] for boost in self._boosts},
            vector=found.get("vector", ()),
            costs=Costs(own_ms, embed_ms, text_leg_ms, hybrid_ms),
        )

    def read_large(self, search: CachedSearch, keys: Sequence[Key], *, n_passages: int) -> None:
        """Has the large cross-encoder score what it has not read yet of these documents' first passages."""
        self._read(search, keys, n_passages, search.large, search.costs.large, model=None)

    def read_small(self, search: CachedSearch, keys: Sequence[Key]) -> None:
        """The same by the small one, of the first passage alone."""
        self._read(search, keys, 1, search.small, search.costs.small, model=self._sidecar.cascade_model)

    def _read(
        self,
        search: CachedSearch,
        keys: Sequence[Key],
        n_passages: int,
        scores: dict[Key, list[float]],
        pace: Pace,
        *,
        model: str | None,
    ) -> None:
        self._fetch_texts(search, [key for key in keys if key not in search.texts])
        for key in keys:
            scores.setdefault(key, [])
        unread = [(key, text) for key in keys for text in search.texts[key][len(scores[key]) : n_passages]]
        if unread:
            begun = perf_counter()
            given = self._sidecar.rerank(search.text, [text for _, text in unread], model=model)
            pace.add(_ms_since(begun), len(unread))
            for (key, _), score in zip(unread, given, strict=True):
                scores[key].append(score)

    def _fetch_texts(self, search: CachedSearch, keys: Sequence[Key]) -> None:
        """Adds what a cross-encoder reads of these documents; nothing where there is nothing to see."""
        if not keys:
            return
        fields = self._widest.text_fields
        most = max(MOST_PASSAGES, self._widest.rerank.passages)
        body = legs.texts(self._widest, keys, search.embedding, passages=most)
        begun = perf_counter()
        hits = found_hits(self._send("_search", json_tree.write(body)))
        search.costs.texts.add(_ms_since(begun), len(keys))
        search.texts.update({key: [] for key in keys})
        for hit in hits:
            text = source_texts(hit, fields)
            nearest = nearest_passages(hit, self._widest.passages_field)
            stretches = [text[start:end] for start, end in nearest if text[start:end]] or [text]
            search.texts[hit.key] = [stretch[:_READ_CHARS] for stretch in stretches if stretch]

    def _expansions(self, request: SearchRequest) -> dict[str, Json]:
        return {
            _named(boost): legs.expansion(request, msgspec.structs.replace(self._widest, expansion_boost=boost))
            for boost in self._boosts
        }

    def _timed(self, request: SearchRequest, bodies: Mapping[str, Json]) -> tuple[dict[str, Sequence[Hit]], float]:
        """The hits of each body, and how long the cluster took for all of them together."""
        begun = perf_counter()
        answer = self._send("_msearch", legs.msearch(bodies.values(), request.scope))
        took_ms = _ms_since(begun)
        found: dict[str, Sequence[Hit]] = {}
        for leg, hits in leg_rankings(answer, list(bodies)).items():
            if isinstance(hits, str):
                raise AnswerNotUnderstood(f"index {self._index}: the {leg} leg failed: {hits}")
            found[leg] = hits
        return found, took_ms

    def _send(self, endpoint: str, body: bytes) -> bytes:
        kind = "application/x-ndjson" if endpoint == "_msearch" else "application/json"
        answer = exchange(self._cluster, "POST", f"/{self._index}/{endpoint}", body=body, content_type=kind)
        if answer.status != 200:
            raise AnswerNotUnderstood(
                f"index {self._index}: the cluster answered {endpoint} with status {answer.status}: "
                f"{answer.body[:300]!r}"
            )
        return answer.body


def _named(boost: float) -> str:
    return f"expansion {boost:g}"


def _ms_since(begun: float) -> float:
    return (perf_counter() - begun) * 1000
