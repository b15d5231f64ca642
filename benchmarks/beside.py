"""`scripts/bench beside`: what a search of an index with a companion costs, against the same documents in place.

One node and one proxy of its own serve both; each query goes to both, in turn. Embeddings and scores come from a
stand-in that answers at once, so the figures are of the cluster and the proxy alone, unless `--scoring-ms` says what a
cross-encoder takes.
"""

import asyncio
import json
import random
import statistics
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import click
import msgspec
import numpy as np
from aiohttp import web
from opensearchpy import OpenSearch

from benchmarks.proxy_requests import Ask, send, timed
from benchmarks.proxy_stack import DIMENSION, SEED, application_query, embedder, embedding, proxy_process, words
from bridge.cluster import companion
from bridge.cluster import index as indices
from bridge.cluster.connection import capabilities, connect
from bridge.cluster.dialects import components, dialect_of
from bridge.cluster.schema import new_index
from bridge.node.node import EmbeddedNode
from bridge.profile import ENTRY_ID, IndexProfile, ModelReference
from bridge.search import json_tree
from bridge.settings import ClusterSettings, CompanionSettings, load_settings
from bridge.text import text_digest

IN_PLACE, BESIDE = "in-place", "beside"
PREFIX = CompanionSettings().prefix
KINDS = ("paper", "note", "ad", "letter", "rare")
TARGET = 1.15
"""What the median of a search beside may be of the median in place."""

PROFILE = IndexProfile(
    text_fields=["title", "text"],
    encoder=ModelReference("benchmark", "0" * 12),
    generator=ModelReference("benchmark", "0" * 12),
    dimension=DIMENSION,
)
SEARCHES = {"hybrid": None, "rerank": None, "rerank, filtered": "paper", "rerank, rare filter": "rare"}
"""Stages, and the kind of document that a filter demands."""


class Figures(msgspec.Struct, frozen=True):
    """Of one kind of search: medians in milliseconds, quartiles of each, the ratio of the medians, quartiles of the
    ratio of two searches that followed each other, and requests to the cluster for one search."""

    in_place_ms: tuple[float, float, float]
    beside_ms: tuple[float, float, float]
    ratio: float
    ratio_quartiles: tuple[float, float]
    requests_in_place: dict[str, float]
    requests_beside: dict[str, float]


@click.command()
@click.option("--documents", default=5_000, show_default=True, help="Documents of about 1 KB in each index.")
@click.option("--rounds", default=200, show_default=True, help="Searches of each kind and way.")
@click.option("--scoring-ms", default=0.0, show_default=True, help="What scoring takes with a real cross-encoder.")
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object.")
def command(documents: int, rounds: int, scoring_ms: float, as_json: bool) -> None:
    """Measures searches beside against searches in place, and prints a table, or one JSON object."""
    with EmbeddedNode.owned("beside-benchmark", load_settings(node={"heap_mb": 1536}).node) as node:
        figures = asyncio.run(measure(node.url, documents, rounds, scoring_ms / 1000))
    if as_json:
        click.echo(json.dumps({name: msgspec.to_builtins(each) for name, each in figures.items()}))
        return
    titles = ("search", "in place, ms", "beside, ms", f"ratio (aim {TARGET})", "requests in place; beside")
    click.echo("{:20} {:>22} {:>22} {:>20}  {}".format(*titles))
    for name, each in figures.items():
        times = (f"{median:.1f} [{low:.1f}, {high:.1f}]" for low, median, high in (each.in_place_ms, each.beside_ms))
        ratio = "{:.2f} [{:.2f}, {:.2f}]".format(each.ratio, *each.ratio_quartiles)
        asked = "; ".join(
            ", ".join(f"{count:g} {kind}" for kind, count in counts.items())
            for counts in (each.requests_in_place, each.requests_beside)
        )
        click.echo("{:20} {:>22} {:>22} {:>20}  {}".format(name, *times, ratio, asked))


async def measure(cluster_url: str, n_documents: int, rounds: int, scoring_s: float = 0.0) -> dict[str, Figures]:
    """All figures; fills both indices first."""
    chance = random.Random(SEED)
    await asyncio.to_thread(fill, cluster_url, chance, n_documents)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        embedder(scoring_s) as sidecar_url,
        proxy_process(cluster_url, sidecar_url, _ENVIRONMENT) as (proxy_url, _),
        _counting(session, cluster_url) as (counting_url, counts),
        proxy_process(counting_url, sidecar_url, _ENVIRONMENT) as (counted_url, _),
    ):
        return {
            name: await _measured(session, chance, proxy_url, counted_url, counts, name, kind, rounds)
            for name, kind in SEARCHES.items()
        }


_ENVIRONMENT = {"BRIDGE_PROXY__BUDGET_MS": "30000"}


async def _measured(
    session: aiohttp.ClientSession,
    chance: random.Random,
    proxy_url: str,
    counted_url: str,
    counts: Counter[str],
    name: str,
    kind: str | None,
    rounds: int,
) -> Figures:
    headers = {"x-bridge": name.partition(",")[0]}

    def ask(url: str, way: str, body: json_tree.Json) -> Ask:
        return lambda: send(session, "POST", f"{url}/{way}/_search", json_tree.write(body), headers)

    taken: dict[str, list[float]] = {IN_PLACE: [], BESIDE: []}
    warm_up = rounds // 4
    for i in range(warm_up + rounds):
        body = _query(chance, kind)
        # Whoever comes second finds the words in the cluster's caches.
        for way in (IN_PLACE, BESIDE) if i % 2 else (BESIDE, IN_PLACE):
            duration = await timed(ask(proxy_url, way, body))
            if i >= warm_up:
                taken[way].append(duration)
    requests: dict[str, dict[str, float]] = {}
    for way in taken:
        await ask(counted_url, way, _query(chance, kind))()
        counts.clear()
        for _ in range(_COUNTED):
            await ask(counted_url, way, _query(chance, kind))()
        requests[way] = {endpoint: round(n / _COUNTED, 2) for endpoint, n in sorted(counts.items())}
    ratios = [beside / in_place for in_place, beside in zip(taken[IN_PLACE], taken[BESIDE], strict=True)]
    return Figures(
        in_place_ms=_quartiles(taken[IN_PLACE]),
        beside_ms=_quartiles(taken[BESIDE]),
        ratio=statistics.median(taken[BESIDE]) / statistics.median(taken[IN_PLACE]),
        ratio_quartiles=(_quartiles(ratios)[0], _quartiles(ratios)[2]),
        requests_in_place=requests[IN_PLACE],
        requests_beside=requests[BESIDE],
    )


_COUNTED = 20


def _query(chance: random.Random, kind: str | None) -> dict[str, Any]:
    body = application_query(chance)
    if kind is not None:
        body["query"] = {"bool": {"must": [body["query"]], "filter": [{"term": {"kind": kind}}]}}
    return body


def _quartiles(values: list[float]) -> tuple[float, float, float]:
    low, median, high = np.percentile(values, (25, 50, 75))
    return float(low), float(median), float(high)


def fill(cluster_url: str, chance: random.Random, n_documents: int) -> None:
    """The same documents in an index that is enriched in place, and in one that has a companion."""
    properties = {"kind": {"type": "keyword"}}
    texts = {name: {"type": "text", "analyzer": "english"} for name in PROFILE.text_fields}
    with connect(ClusterSettings(url=cluster_url)) as client:
        dialect = dialect_of(capabilities(client))
        client.indices.create(index=IN_PLACE, body=new_index(PROFILE, dialect, properties=properties))
        client.indices.create(index=BESIDE, body={"mappings": {"properties": texts | properties}})
        state = companion.create(client, indices.look(client, BESIDE), PROFILE, PREFIX)
        if state.profile is None:
            raise TypeError("a companion has a profile")
        made = list(_documents(chance, n_documents, state.profile))
        _write(client, IN_PLACE, [{**document, "_neural": ours} for document, ours in made])
        _write(client, BESIDE, [document for document, _ in made])
        texts_and_ours = [
            {name: document[name] for name in PROFILE.text_fields} | {"_neural": ours | {ENTRY_ID: str(i)}}
            for i, (document, ours) in enumerate(made)
        ]
        _write(client, state.name, texts_and_ours)


def _documents(
    chance: random.Random, n_documents: int, profile: IndexProfile
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Documents, and what is made of each."""
    for i in range(n_documents):
        texts = {"title": words(chance, 6), "text": words(chance, 150)}
        kind = KINDS[-1] if i % 500 == 0 else KINDS[i % (len(KINDS) - 1)]
        ours = {
            "predicted_queries": [words(chance, 5) for _ in range(3)],
            "embedding": components(profile, embedding(chance)),
            "stamp": f"recipe.{text_digest(texts)}",
        }
        yield {**texts, "kind": kind}, ours


def _write(client: OpenSearch, index: str, documents: list[dict[str, Any]]) -> None:
    for start in range(0, len(documents), 500):
        lines: list[dict[str, Any]] = []
        for i, document in enumerate(documents[start : start + 500], start):
            lines += [{"index": {"_id": str(i)}}, document]
        if client.bulk(index=index, body=lines)["errors"]:
            raise click.ClickException(f"index {index}: documents were refused, so the figures would mean nothing")
    client.indices.refresh(index=index)
    client.indices.forcemerge(index=index, params={"max_num_segments": "1"})


@asynccontextmanager
async def _counting(session: aiohttp.ClientSession, cluster_url: str) -> AsyncIterator[tuple[str, Counter[str]]]:
    """The address of a relay before the cluster, and how often each endpoint was asked for, companions apart."""
    counts: Counter[str] = Counter()

    async def relay(request: web.Request) -> web.Response:
        endpoint = request.path.rsplit("/", 1)[-1]
        counts[f"{endpoint} of the companion" if PREFIX in request.path else endpoint] += 1
        body = await request.read()
        headers = {"Content-Type": request.headers.get("Content-Type", "application/json")}
        url = f"{cluster_url}{request.path_qs}"
        async with session.request(request.method, url, data=body, headers=headers) as answer:
            return web.Response(
                status=answer.status, body=await answer.read(), content_type=answer.content_type or "text/plain"
            )

    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{path:.*}", relay)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", counts
    finally:
        await runner.cleanup()
