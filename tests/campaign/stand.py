"""What a campaign runs on: a node with indices of every kind, a sidecar with toy models, and a watched proxy."""

import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opensearchpy import OpenSearch

from bridge.node.node import EmbeddedNode
from bridge.processes import owned
from bridge.settings import ClusterSettings, load_settings
from tests.campaign.doors import SETTINGS as DOORS
from tests.proxy_stack import NESTED, ProxyStack, proxy_stack
from tests.servers import client
from tests.toys import WORDS

N_DOCUMENTS = 120
PROPERTIES: dict[str, Any] = {
    "kind": {"type": "keyword"},
    "n": {"type": "integer"},
    "price": {"type": "float"},
    "day": {"type": "date"},
    "tags": {"type": "keyword"},
    "parts": {"type": "nested", "properties": {"name": {"type": "text"}, "size": {"type": "integer"}}},
}
SETTINGS = {"number_of_replicas": 0}
START_TIMEOUT_S = 600.0
HEAP_MB = 2048
TWINS = ("twin-d", "twin-p")
"""The indices that requests change: one side's directly, the other's through the proxy."""


def campaign_node() -> AbstractContextManager[EmbeddedNode]:
    """A node with fresh data and so much heap that no circuit breaker trips in a long run; a busy machine may take
    minutes to start it."""
    settings = load_settings().node.model_copy(update={"start_timeout_s": START_TIMEOUT_S, "heap_mb": HEAP_MB})
    return EmbeddedNode.owned("campaign", settings)


@dataclass(frozen=True)
class Stand:
    """Addresses of what runs; `holds` is the file in which the proxy's process notes how long its loop was held, and
    `ready_at` when it was ready, by the monotonic clock that both processes share."""

    node_url: str
    proxy_url: str
    pid: int
    holds: Path
    ready_at: float
    stack: ProxyStack

    def longest_holds(self, count: int = 5) -> list[dict[str, Any]]:
        """The longest stretches since the proxy was ready, the longest first."""
        stretches = [json.loads(line) for line in self.holds.read_text("utf-8").splitlines()]
        served = [each for each in stretches if each["at"] > self.ready_at]
        return sorted(served, key=lambda each: -each["cpu_ms"])[:count]


@contextmanager
def stand(environment: Mapping[str, str] | None = None) -> Iterator[Stand]:
    """All of it while the block runs; `environment` is added to the proxy's."""
    with contextlib.ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        node = running.enter_context(campaign_node())
        stack = running.enter_context(proxy_stack(ClusterSettings(url=node.url), folder))
        with client(node.url) as direct:
            fill(direct, stack, random.Random(1))
        holds = folder / "holds.jsonl"
        holds.touch()
        url, pid = running.enter_context(watched_proxy(node.url, stack.sidecar_url, holds, environment))
        yield Stand(node.url, url, pid, holds, time.monotonic(), stack)


@contextmanager
def watched_proxy(
    cluster_url: str, sidecar_url: str, holds: Path, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[str, int]]:
    """A proxy process with a watch on its loop: its address and its process id."""
    command = [sys.executable, str(owned.__file__), str(os.getpid())]
    command += [sys.executable, "-m", "tests.campaign.watched_proxy", str(holds), "serve", "proxy"]
    command += ["--port", "0", "--admin-port", "0", "--cluster", cluster_url, "--sidecar", sidecar_url]
    # Ample time for the models, so that a busy machine takes no stage out; rankings are kept, so that they are used.
    given = {"BRIDGE_PROXY__BUDGET_MS": "30000", "BRIDGE_PROXY__RANKING_TTL_S": "60", **DOORS}
    process = subprocess.Popen(
        command, env={**os.environ, **given, **(environment or {})}, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        url = json.loads(process.stderr.readline())["url"]
        # Later lines must not fill the pipe.
        threading.Thread(target=_keep, args=(process.stderr, holds.with_suffix(".log")), daemon=True).start()
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(30)


def _keep(lines: Iterable[str], file: Path) -> None:
    with file.open("a", encoding="utf-8", buffering=1) as log:
        log.writelines(lines)


def documents(chance: random.Random) -> dict[str, tuple[dict[str, Any], list[str]]]:
    """Documents with their predicted queries, some with what seldom stands in one."""

    def words(count: int) -> str:
        return " ".join(chance.choice(WORDS) for _ in range(count))

    made: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for i in range(N_DOCUMENTS):
        document: dict[str, Any] = {
            "title": words(3),
            "body": f"{words(8)}. {words(8)}.",
            "kind": chance.choice(("paper", "ad", "note")),
            "n": i,
            "day": f"2020-01-{i % 28 + 1:02}",
            "tags": [f"t{chance.randrange(4)}" for _ in range(i % 3)],
            "parts": [{"name": words(2), "size": chance.randrange(9)} for _ in range(i % 3)],
        }
        if i % 2:
            document["price"] = i / 7
        if i % 10 == 3:
            document |= {"title": f"{words(1)} café \u2028 😀", "item.info": {"name": words(1)}, "_note": '"_neural":1'}
        made[str(i)] = document, [words(4)] if i % 4 else []
    return made


def fill(direct: OpenSearch, stack: ProxyStack, chance: random.Random) -> None:
    """Makes the indices."""
    made = documents(chance)
    stack.fill(direct, "papers", made, properties=PROPERTIES, settings=SETTINGS)
    stack.fill(direct, "longs", made, properties=PROPERTIES, settings=SETTINGS, passages=NESTED)
    stack.fill(direct, "päpers", dict(list(made.items())[:20]), properties=PROPERTIES, settings=SETTINGS)
    mapping = {"dynamic": False, "properties": {**PROPERTIES, "title": {"type": "text"}, "body": {"type": "text"}}}
    for index in ("plain", *TWINS):
        # What a refresh at a moment of the node's own choice lets be seen would differ between the twins.
        settings = {**SETTINGS, "hidden": True, "refresh_interval": -1} if index in TWINS else SETTINGS
        direct.indices.create(index=index, body={"settings": settings, "mappings": mapping})
    lines: list[dict[str, Any]] = []
    for doc_id, (document, _) in made.items():
        lines += [{"index": {"_id": doc_id}}, document]
    direct.bulk(index="plain", body=lines, params={"refresh": "true"})
    # A document that holds half of a surrogate pair in one of its texts.
    raw = '{"index":{"_id":"half"}}\n{"title":"wing \\ud83d pressure","body":"flow","n":500,"kind":"ad"}\n'
    direct.bulk(index="papers", body=raw, params={"refresh": "true"})
    direct.indices.put_alias(index="papers", name="Papers-Alias")
    direct.indices.put_alias(index="papers", name="few", body={"filter": {"range": {"n": {"lt": 30}}}})
