"""`scripts/bench follow`: how long a document waits until it is enriched, while an application writes.

The application, the follower with its models, and the node share this machine. Each document's time runs
from the answer to its write until a reader finds its stamp.
"""

import json as json_module
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np
from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.connection import connect
from bridge.cluster.node import EmbeddedNode
from bridge.models.session import compute_threads
from bridge.profile import IndexProfile
from bridge.settings import ClusterSettings, IngestSettings, load_settings
from ingest.benchmark import write_corpus
from ingest.follow import Follower
from ingest.models import load_models, profile_for
from ingest.signals import StopRequest

INDEX = "bench-follow"
_WRITES_PER_S = 5
_LOOK_EVERY_S = 0.2
_LONGEST_WAIT_S = 120.0


class Figures(msgspec.Struct, frozen=True):
    """What was measured: `documents` written at `rate` in a second, and their waiting times in seconds.
    `left`: documents that were not enriched two minutes after the last write."""

    documents: int
    rate: float
    lag_s_p50: float
    lag_s_p95: float
    lag_s_max: float
    left: int
    predicted_queries: bool
    threads: int


@click.command()
@click.option("--rate", default=50.0, show_default=True, help="Documents that the application writes in a second.")
@click.option("--seconds", default=30.0, show_default=True, help="How long it writes.")
@click.option("--no-expansion", is_flag=True, help="Vectors alone, without predicted queries.")
@click.option("--url", help="Cluster to use; an embedded node by default.")
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object on a line.")
def main(rate: float, seconds: float, no_expansion: bool, url: str | None, as_json: bool) -> None:
    """Measures the lag of a follower behind an application."""
    settings = load_settings(ingest={"generator": ""} if no_expansion else {})
    node = nullcontext(url) if url else _node_url()
    with node as address:
        figures = measure(connect(ClusterSettings(url=address)), settings.ingest, rate=rate, seconds=seconds)
    click.echo(f"{figures.documents} documents at {figures.rate:.1f}/s, waiting until they were enriched:")
    click.echo(f"  median {figures.lag_s_p50:.1f} s, 95 % {figures.lag_s_p95:.1f} s, longest {figures.lag_s_max:.1f} s")
    if figures.left:
        click.echo(f"  {figures.left} still waited {_LONGEST_WAIT_S:.0f} s after the last write")
    if as_json:
        click.echo(msgspec.json.encode(figures).decode())


def measure(client: OpenSearch, settings: IngestSettings, *, rate: float, seconds: float) -> Figures:
    """Writes to a fresh index for so long, and watches a follower keep up."""
    models = load_models(settings)
    profile = profile_for(models, ["text"])
    if indices.find(client, INDEX) is not None:
        indices.delete(client, INDEX)
    indices.create(client, INDEX, profile, settings={"index.number_of_replicas": 0})
    stop = StopRequest()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as pool:
        documents = list(_documents(Path(folder), round(rate * seconds)))
        follower = Follower(
            client,
            INDEX,
            generation=None,
            models=models,
            settings=settings,
            state_folder=Path(folder) / "state",
            stop=stop,
        )
        with follower:
            following = pool.submit(follower.follow)
            watch = _Watch(client, profile)
            with watch.watching():
                began = time.perf_counter()
                _write(client, documents, rate, watch)
                written_s = time.perf_counter() - began
                watch.wait()
            stop.number = signal.SIGTERM
            stop.stopped.set()
            following.result()
    waits = np.array([*watch.waits, *([np.inf] * len(watch.written))])
    middle, late = np.percentile(waits, [50, 95], method="higher")
    return Figures(
        documents=len(documents),
        rate=len(documents) / written_s,
        lag_s_p50=float(middle),
        lag_s_p95=float(late),
        lag_s_max=float(waits.max()),
        left=len(watch.written),
        predicted_queries=models.generator is not None,
        threads=compute_threads(settings.threads),
    )


class _Watch:
    """Looks for the stamps of what was written. `written`: when, by id, what has none yet; `waits`: how long the
    others waited, in seconds."""

    def __init__(self, client: OpenSearch, profile: IndexProfile) -> None:
        self._client = client
        self._stamp = profile.stamp_field
        self._over = threading.Event()
        self.written: dict[str, float] = {}
        self.waits: list[float] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Looks all the while."""
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def wait(self) -> None:
        """Until all is enriched, or nobody would wait any longer."""
        end = time.perf_counter() + _LONGEST_WAIT_S
        while self.written and time.perf_counter() < end:
            time.sleep(_LOOK_EVERY_S)

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_EVERY_S):
            waiting = [{"_id": doc_id, "_source": [self._stamp]} for doc_id in list(self.written)]
            if not waiting:
                continue
            found = self._client.mget(index=INDEX, body={"docs": waiting})["docs"]
            now = time.perf_counter()
            for document in found:
                if document.get("_source"):
                    self.waits.append(now - self.written.pop(document["_id"]))


def _write(client: OpenSearch, documents: Sequence[dict[str, Any]], rate: float, watch: _Watch) -> None:
    """What an application does: a small bulk request, several times in a second."""
    size = max(1, round(rate / _WRITES_PER_S))
    began = time.perf_counter()
    for begin in range(0, len(documents), size):
        time.sleep(max(0.0, began + begin / rate - time.perf_counter()))
        some = documents[begin : begin + size]
        lines = [line for each in some for line in ({"index": {"_id": each["_id"]}}, {"text": each["text"]})]
        client.bulk(index=INDEX, body="".join(json_module.dumps(line) + "\n" for line in lines))
        now = time.perf_counter()
        watch.written.update((each["_id"], now) for each in some)


def _documents(folder: Path, n_documents: int) -> Iterator[dict[str, Any]]:
    with write_corpus(folder / "corpus.jsonl", n_documents).open(encoding="utf-8") as lines:
        yield from map(json_module.loads, lines)


@contextmanager
def _node_url() -> Iterator[str]:
    with EmbeddedNode.owned("bench", load_settings().node) as node:
        yield node.url


if __name__ == "__main__":
    main()
