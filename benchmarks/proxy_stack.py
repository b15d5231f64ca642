"""What the proxy's benchmark stands on: an index of made-up documents, a stand-in sidecar, a proxy process."""

import asyncio
import json
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web

from bridge.cluster.connection import capabilities, connect
from bridge.cluster.dialects import components, dialect_of
from bridge.cluster.schema import fitted, new_index
from bridge.processes import owned
from bridge.profile import IndexProfile, ModelReference
from bridge.settings import ClusterSettings

INDEX = "proxy-benchmark"
DIMENSION = 384
VOCABULARY = 2_000
WORDS_PER_DOCUMENT = 150
SEED = 7


def application_query(chance: random.Random) -> dict[str, Any]:
    """What an application would ask: a `multi_match` of three words."""
    return {"size": 10, "query": {"multi_match": {"query": words(chance, 3), "fields": ["title", "text"]}}}


def words(chance: random.Random, count: int) -> str:
    """So many words, common ones more often, as in texts."""
    return " ".join(f"word{_rank(chance)}" for _ in range(count))


def _rank(chance: random.Random) -> int:
    return int(VOCABULARY ** chance.random())


def embedding(chance: random.Random) -> list[float]:
    """A direction by chance, `DIMENSION` numbers of unit length."""
    vector = np.random.default_rng(chance.randrange(2**32)).standard_normal(DIMENSION)
    unit: list[float] = (vector / np.linalg.norm(vector)).round(6).tolist()
    return unit


def fill(cluster_url: str, chance: random.Random, n_documents: int) -> IndexProfile:
    """An index of made-up documents of about 1 KB with predicted queries and vectors."""
    profile = IndexProfile(
        text_fields=["title", "text"],
        encoder=ModelReference("benchmark", "0" * 12),
        generator=ModelReference("benchmark", "0" * 12),
        dimension=DIMENSION,
    )
    with connect(ClusterSettings(url=cluster_url)) as client:
        dialect = dialect_of(capabilities(client))
        profile = fitted(profile, dialect)
        client.indices.create(index=INDEX, body=new_index(profile, dialect))
        for start in range(0, n_documents, 500):
            lines: list[dict[str, Any]] = []
            for i in range(start, start + 500):
                text = words(chance, WORDS_PER_DOCUMENT)
                vector = components(profile, embedding(chance))
                ours = {"predicted_queries": [words(chance, 5)], "embedding": vector, "stamp": "s"}
                document = {"title": words(chance, 6), "text": text, "_neural": ours}
                lines += [{"index": {"_id": str(i)}}, document]
            client.bulk(index=INDEX, body=lines)
        client.indices.refresh(index=INDEX)
        client.indices.forcemerge(index=INDEX, params={"max_num_segments": "1"})
    return profile


@asynccontextmanager
async def embedder(scoring_s: float = 0.0) -> AsyncIterator[str]:
    """A sidecar that embeds at once and takes `scoring_s` to score, both by chance: its address."""
    chance = random.Random(SEED)

    async def embed(_: web.Request) -> web.Response:
        return web.json_response([embedding(chance)])

    async def rerank(request: web.Request) -> web.Response:
        texts = (await request.json())["texts"]
        await asyncio.sleep(scoring_s)
        return web.json_response([{"index": i, "score": chance.random()} for i in range(len(texts))])

    app = web.Application()
    app.router.add_post("/embed", embed)
    app.router.add_post("/rerank", rerank)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def proxy_process(
    cluster_url: str, sidecar_url: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[str, int]]:
    """A proxy process: its address and process id. It ends with the block, and with this process; `environment`
    is added to this one's."""
    owning = [sys.executable, str(Path(owned.__file__)), str(os.getpid())]
    options = ["--port", "0", "--admin-port", "0", "--cluster", cluster_url, "--sidecar", sidecar_url]
    process = subprocess.Popen(  # noqa: ASYNC220 (nothing else runs yet)
        [*owning, sys.executable, "-m", "bridge.cli", "serve", "proxy", *options],
        env={**os.environ, **(environment or {})},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        if process.stderr is None:
            raise TypeError("the proxy's log was asked for as a pipe")
        line = await asyncio.to_thread(process.stderr.readline)
        # Later lines (a search that was degraded) must not fill the pipe.
        draining = asyncio.create_task(asyncio.to_thread(process.stderr.read))
        yield json.loads(line)["url"], process.pid
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)
    await draining


def resident_mb(pid: int) -> float:
    """Resident memory of a process; 0 where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def cpu_ms(pid: int) -> float:
    """Processor time of a process so far, in milliseconds, in steps of the kernel's clock; 0 where the system does not
    tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    user, system = fields[11:13]
    return (int(user) + int(system)) * 1000 / os.sysconf("SC_CLK_TCK")
