"""Two proxies, each with a sidecar of its own, before one node: whichever answers, the ranking is the same."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import cycle
from typing import Any

import pytest
from opensearchpy import OpenSearch

from bridge.node.node import EmbeddedNode
from bridge.profile import PassageSettings, RerankSettings
from bridge.settings import ClusterSettings
from tests.proxy_stack import NESTED, proxy_stack
from tests.servers import client, unused_index_name

WINDOW = 60
PAGE = 7
TOPICS = ("wing pressure", "boundary layer", "shock wave", "heat flow", "flat plate")
DOCUMENTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    f"d{i}": (
        {"title": f"{TOPICS[i % 5]} {i}", "body": f"{TOPICS[i % 3]} over a {TOPICS[i % 4]}. Part {i % 11}."},
        [TOPICS[(i + 1) % 5]] if i % 2 else [],
    )
    for i in range(150)
}
QUERIES = ("wing", "flat plate heat", "pressure of a shock wave", "boundary layer flow over a wing")


@pytest.fixture(scope="module")
def replicas(node: EmbeddedNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[OpenSearch]]:
    """Clients of two proxies that share nothing but the node and the models' files; and one index on it."""
    with ExitStack() as running:
        folder = tmp_path_factory.mktemp("models")
        stacks = [
            running.enter_context(proxy_stack(ClusterSettings(url=node.url), folder, budget_ms=120_000))
            for _ in range(2)
        ]
        yield [running.enter_context(client(stack.url)) for stack in stacks]


@pytest.fixture(scope="module", params=["single", "nested"])
def index(
    node: EmbeddedNode, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """An enriched index in several shards, whose equal documents are ranked by their keys alone."""
    name = unused_index_name()
    folder = tmp_path_factory.mktemp("filling")
    with client(node.url) as direct, proxy_stack(ClusterSettings(url=node.url), folder) as filling:
        filling.fill(
            direct,
            name,
            DOCUMENTS,
            settings={"number_of_shards": 3, "number_of_replicas": 0},
            passages=NESTED if request.param == "nested" else PassageSettings(),
            rerank=RerankSettings(depth=20),
            window=WINDOW,
        )
        yield name
        direct.indices.delete(index=name)


def ranked(
    replica: OpenSearch, index: str, words: str, *, start: int = 0, size: int = WINDOW
) -> list[tuple[str, float]]:
    """Ids and scores of a page."""
    body = {"query": {"multi_match": {"query": words, "fields": ["title", "body"]}}, "from": start, "size": size}
    answer = replica.search(index=index, body=body)
    return [(hit["_id"], hit["_score"]) for hit in answer["hits"]["hits"]]


@pytest.mark.parametrize("words", QUERIES)
def test_replicas_give_one_ranking_with_the_same_scores(replicas: Sequence[OpenSearch], index: str, words: str) -> None:
    first, second = (ranked(replica, index, words) for replica in replicas)
    assert len(first) == WINDOW
    assert first == second


@pytest.mark.parametrize("words", QUERIES)
def test_pages_taken_from_each_in_turn_repeat_nothing_and_leave_nothing_out(
    replicas: Sequence[OpenSearch], index: str, words: str
) -> None:
    whole = ranked(replicas[0], index, words)
    in_turn = cycle(replicas)
    pages = [
        ranked(next(in_turn), index, words, start=start, size=min(PAGE, WINDOW - start))
        for start in range(0, WINDOW, PAGE)
    ]
    assert [hit for page in pages for hit in page] == whole


def test_what_one_replica_remembers_changes_nothing_for_the_other(replicas: Sequence[OpenSearch], index: str) -> None:
    first, second = replicas
    alone = [ranked(first, index, words, size=PAGE) for words in QUERIES for _ in range(2)]
    cold_then_warm = [ranked(second, index, words, size=PAGE) for words in QUERIES for _ in range(2)]
    assert alone == cold_then_warm
