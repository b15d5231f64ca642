"""Runs queries through the proxy, stopped at a stage, as an application would send them."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from time import perf_counter
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from opensearchpy import OpenSearch

from bridge.cluster.connection import exchange
from bridge.errors import AnswerNotUnderstood, BridgeError
from bridge.profile import Stage
from bridge.search.confidence import CONFIDENT

CONTROL_HEADER = "x-bridge"
MARKER_HEADER = "x-bridge"

WARM_UP = 10
"""Searches before the measured ones: the first ones after a start pay for what later ones find done."""

_OF_THE_STACK = frozenset(
    {
        "canary",
        "index_expression",
        "mapping_unreadable",
        "no_profile",
        "off",
        "profile_unreadable",
        "profiles_differ",
        "signed",
        "unmarked",
    }
)
"""Reasons to let a search pass that lie in the stack and not in the query (see `bridge.search.reasons`)."""


class StageUnavailable(BridgeError):
    """No search reached the stage that was asked for."""


class _Hit(msgspec.Struct):
    id: str = msgspec.field(name="_id")


class _Hits(msgspec.Struct):
    hits: list[_Hit]


class _SearchAnswer(msgspec.Struct):
    hits: _Hits


@dataclass(frozen=True, slots=True)
class StageRun:
    """What a stage answered.

    `rankings`: doc_ids by query_id, best first; none where the cluster refused the search. `took_ms`:
    float64, (n_queries,), wall-clock time of each search at the client, in milliseconds, in the order of the
    queries. `degraded`: how many searches ended at an earlier stage than asked for. `left_alone`: how many the
    proxy answered as the cluster does since it upgrades no query like it, by reason; `refused`: how many the
    cluster refused, by status.
    """

    stage: Stage
    rankings: Mapping[str, list[str]]
    took_ms: NDArray[np.float64]
    degraded: int = 0
    left_alone: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Search:
    """One answered search: `marker` is the proxy's header; `doc_ids` None where the cluster refused."""

    status: int
    marker: str
    doc_ids: list[str] | None
    took_ms: float

    def reached(self, stage: Stage) -> bool:
        """Whether the answer is the stage's, and nothing of it was left out."""
        if self.left_alone is not None:
            # The lexical stage is the application's own search, which the proxy has no reason to touch.
            return stage == "lexical"
        read = stage in ("rerank", "cascade") and bool(self.doc_ids) and CONFIDENT not in self.marker
        return "degraded=" not in self.marker and (not read or stage in self.marker)

    @property
    def left_alone(self) -> str | None:
        """Why the proxy did not upgrade it."""
        if not self.marker:
            return "unmarked"
        if not self.marker.startswith("pass"):
            return None
        return self.marker.partition("reason=")[2].partition(";")[0]


def run_stage(
    client: OpenSearch,
    index: str,
    queries: Mapping[str, str],
    *,
    stage: Stage,
    body_of: Callable[[str], dict[str, Any]],
    on_query: Callable[[], object] = lambda: None,
) -> StageRun:
    """Sends each query once, one after the other, through `client`, which points at the proxy.

    Args:
        queries: text by query_id.
        body_of: query text → search body, `size` included.
        on_query: called after each search.

    Raises:
        AnswerNotUnderstood: the proxy lets searches of this index pass instead of serving them, or the cluster
            refuses them all.
        StageUnavailable: none of the first searches reached the stage.
    """
    warm_up = [_search(client, index, stage, body_of(text)) for text in islice(queries.values(), WARM_UP)]
    if all(search.doc_ids is None for search in warm_up):
        raise AnswerNotUnderstood(
            f"stage {stage}: the cluster answers every search of index {index} with status {warm_up[0].status}: does "
            f"the index exist, may this user search it, is the search body right?"
        )
    if all(search.left_alone in _OF_THE_STACK for search in warm_up):
        raise AnswerNotUnderstood(
            f"stage {stage}: {MARKER_HEADER} of the answers is {warm_up[0].marker!r}, expected the stage: is the "
            f"address the proxy's, and index {index} enriched?"
        )
    if not any(search.reached(stage) for search in warm_up):
        raise StageUnavailable(f"the proxy answers {MARKER_HEADER}: {warm_up[0].marker}")
    rankings: dict[str, list[str]] = {}
    took_ms = np.zeros(len(queries))
    degraded = 0
    left_alone: Counter[str] = Counter()
    refused: Counter[int] = Counter()
    for row, (query_id, text) in enumerate(queries.items()):
        search = _search(client, index, stage, body_of(text))
        rankings[query_id], took_ms[row] = search.doc_ids or [], search.took_ms
        if search.doc_ids is None:
            refused[search.status] += 1
        elif search.left_alone is not None and stage != "lexical":
            left_alone[search.left_alone] += 1
        else:
            degraded += not search.reached(stage)
        on_query()
    return StageRun(stage, rankings, took_ms, degraded, left_alone, refused)


def _search(client: OpenSearch, index: str, stage: Stage, body: dict[str, Any]) -> _Search:
    content = msgspec.json.encode({**body, "_source": False})
    begun = perf_counter()
    answer = exchange(client, "POST", f"/{index}/_search", body=content, headers={CONTROL_HEADER: stage})
    took_ms = (perf_counter() - begun) * 1000
    marker = answer.headers.get(MARKER_HEADER, "")
    if answer.status != 200:
        return _Search(answer.status, marker, None, took_ms)
    hits = msgspec.json.decode(answer.body, type=_SearchAnswer).hits.hits
    return _Search(answer.status, marker, [hit.id for hit in hits], took_ms)
