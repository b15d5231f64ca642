"""Runs queries through the proxy, stopped at a stage, as an application would send them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from opensearchpy import OpenSearch

from bridge.cluster.connection import exchange
from bridge.errors import AnswerNotUnderstood
from bridge.profile import Stage

CONTROL_HEADER = "x-bridge"
MARKER_HEADER = "x-bridge"


class _Hit(msgspec.Struct):
    id: str = msgspec.field(name="_id")


class _Hits(msgspec.Struct):
    hits: list[_Hit]


class _SearchAnswer(msgspec.Struct):
    hits: _Hits


@dataclass(frozen=True, slots=True)
class StageRun:
    """What a stage answered.

    `rankings`: doc_ids by query_id, best first. `took_ms`: float64, (n_queries,), wall-clock time of
    each search at the client, in milliseconds, in the order of the queries. `degraded`: how many
    searches ended at an earlier stage than asked for.
    """

    stage: Stage
    rankings: Mapping[str, list[str]]
    took_ms: NDArray[np.float64]
    degraded: int


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
        AnswerNotUnderstood: the proxy let a search pass instead of serving it: the measurement would be
            of another stage than its name says.
    """
    rankings: dict[str, list[str]] = {}
    took_ms = np.zeros(len(queries))
    degraded = 0
    for row, (query_id, text) in enumerate(queries.items()):
        body = msgspec.json.encode({**body_of(text), "_source": False})
        begun = perf_counter()
        answer = exchange(client, "POST", f"/{index}/_search", body=body, headers={CONTROL_HEADER: stage})
        took_ms[row] = (perf_counter() - begun) * 1000
        marker = answer.headers.get(MARKER_HEADER, "")
        # The lexical stage is the application's own search, which the proxy has no reason to touch.
        passed = marker.startswith("pass") and marker != "pass; reason=lexical"
        if answer.status != 200 or not marker or passed:
            raise AnswerNotUnderstood(
                f"stage {stage}, query {query_id}: the proxy answered {answer.status}, {MARKER_HEADER}: {marker!r}; "
                f"expected 200 and the stage: is the address the proxy's, and index {index} enriched?"
            )
        degraded += "degraded=" in marker
        found = msgspec.json.decode(answer.body, type=_SearchAnswer)
        rankings[query_id] = [hit.id for hit in found.hits.hits]
        on_query()
    return StageRun(stage, rankings, took_ms, degraded)
