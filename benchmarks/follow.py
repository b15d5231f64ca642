"""`scripts/bench follow`: how long a document waits for its vectors and its predicted queries, while an
application writes.

The application, the followers with their models, and the node share this machine. Each document's time runs
from the answer to its write until a reader finds the stamp that says so.
"""

import json as json_module
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np
from opensearchpy import OpenSearch

from benchmarks.documents import cluster_at, write_corpus
from bridge.cluster import index as indices
from bridge.cluster.connection import connect
from bridge.models.session import compute_threads
from bridge.settings import ClusterSettings, IngestSettings, load_settings
from bridge.text import value_at
from ingest.follow.fields import followed_profile
from ingest.follow.pair import FollowerPair
from ingest.job import Job
from ingest.signals import StopRequest
from ingest.stages.models import load_models, profile_for
from ingest.stages.stamps import recipe, recipe_of

INDEX = "bench-follow"
_WRITES_PER_S = 5
_LOOK_EVERY_S = 0.2
_LOOK_FOR_QUERIES_EVERY_S = 1.0
_LONGEST_WAIT_S = 120.0


class Waits(msgspec.Struct, frozen=True):
    """How long documents waited, in seconds. `left`: documents that still waited two minutes after the last
    write; they count as infinitely long."""

    lag_s_p50: float
    lag_s_p95: float
    lag_s_max: float
    left: int

    def __str__(self) -> str:
        told = f"median {self.lag_s_p50:.1f} s, 95 % {self.lag_s_p95:.1f} s, longest {self.lag_s_max:.1f} s"
        return told if not self.left else f"{told}; {self.left} waited {_LONGEST_WAIT_S:.0f} s after the last write"


class Figures(msgspec.Struct, frozen=True):
    """What was measured: `documents` written at `rate` in a second, and their waits. `predicted_queries` is None
    where none were asked for."""

    documents: int
    rate: float
    vectors: Waits
    predicted_queries: Waits | None
    threads: int


@click.command()
@click.option("--rate", default=50.0, show_default=True, help="Documents that the application writes in a second.")
@click.option("--seconds", default=30.0, show_default=True, help="How long it writes.")
@click.option("--no-expansion", is_flag=True, help="Vectors alone, without predicted queries.")
@click.option("--url", help="Cluster to use; an embedded node by default.")
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object on a line.")
def command(rate: float, seconds: float, no_expansion: bool, url: str | None, as_json: bool) -> None:
    """Measures the lag of a follower behind an application."""
    settings = load_settings(ingest={"generator": ""} if no_expansion else {})
    with cluster_at(url) as address:
        figures = measure(connect(ClusterSettings(url=address)), settings.ingest, rate=rate, seconds=seconds)
    click.echo(f"{figures.documents} documents at {figures.rate:.1f}/s, waiting")
    click.echo(f"  for their vectors: {figures.vectors}")
    if figures.predicted_queries:
        click.echo(f"  for their predicted queries: {figures.predicted_queries}")
    if as_json:
        click.echo(msgspec.json.encode(figures).decode())


def measure(client: OpenSearch, settings: IngestSettings, *, rate: float, seconds: float) -> Figures:
    """Writes to a fresh index for so long, and watches the followers keep up."""
    models = load_models(settings)
    profile = profile_for(models, ["text"])
    if indices.find(client, INDEX) is not None:
        indices.delete(client, INDEX)
    indices.create(client, INDEX, profile, settings={"index.number_of_replicas": 0})
    profile = followed_profile(indices.look(client, INDEX), None, models)
    stop = StopRequest()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as pool, ExitStack() as held:
        documents = list(_documents(Path(folder), round(rate * seconds)))
        job = Job(INDEX, profile, models, client, settings, Path(folder) / "state")
        followers = held.enter_context(FollowerPair(job, stop))
        following = pool.submit(followers.follow)
        watches = [_Watch(client, profile.stamp_field, lambda _: True, every_s=_LOOK_EVERY_S)]
        if models.generator is not None:
            whole = recipe(profile, settings)
            last = _Watch(
                client, profile.stamp_field, lambda stamp: recipe_of(stamp) == whole, every_s=_LOOK_FOR_QUERIES_EVERY_S
            )
            watches.append(last)
        try:
            for watch in watches:
                held.enter_context(watch.watching())
            began = time.perf_counter()
            _write(client, documents, rate, watches)
            written_s = time.perf_counter() - began
            for watch in watches:
                watch.wait()
        finally:
            stop.ask(signal.SIGTERM)
            following.result()
    waits = [watch.waits() for watch in watches]
    return Figures(
        documents=len(documents),
        rate=len(documents) / written_s,
        vectors=waits[0],
        predicted_queries=waits[1] if len(waits) == 2 else None,
        threads=compute_threads(settings.threads),
    )


class _Watch:
    """Looks for stamps of what was written. `written`: when, by id, what has no such stamp yet."""

    def __init__(
        self, client: OpenSearch, stamp_field: str, is_wanted: Callable[[str], bool], *, every_s: float
    ) -> None:
        self._client = client
        self._stamp_field = stamp_field
        self._is_wanted = is_wanted
        self._every_s = every_s
        self._over = threading.Event()
        self._waited: list[float] = []
        self.written: dict[str, float] = {}

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

    def waits(self) -> Waits:
        """How long each document waited."""
        waits = np.array([*self._waited, *([np.inf] * len(self.written))])
        middle, late = np.percentile(waits, [50, 95], method="higher")
        return Waits(float(middle), float(late), float(waits.max()), len(self.written))

    def _watch(self) -> None:
        while not self._over.wait(self._every_s):
            waiting = [{"_id": doc_id, "_source": [self._stamp_field]} for doc_id in list(self.written)]
            if not waiting:
                continue
            found = self._client.mget(index=INDEX, body={"docs": waiting})["docs"]
            now = time.perf_counter()
            for document in found:
                stamp = value_at(document.get("_source") or {}, self._stamp_field)
                if isinstance(stamp, str) and self._is_wanted(stamp):
                    self._waited.append(now - self.written.pop(document["_id"]))


def _write(client: OpenSearch, documents: Sequence[dict[str, Any]], rate: float, watches: Sequence[_Watch]) -> None:
    """What an application does: a small bulk request, several times in a second."""
    size = max(1, round(rate / _WRITES_PER_S))
    began = time.perf_counter()
    for begin in range(0, len(documents), size):
        time.sleep(max(0.0, began + begin / rate - time.perf_counter()))
        some = documents[begin : begin + size]
        lines = [line for each in some for line in ({"index": {"_id": each["_id"]}}, {"text": each["text"]})]
        client.bulk(index=INDEX, body="".join(json_module.dumps(line) + "\n" for line in lines))
        now = time.perf_counter()
        for watch in watches:
            watch.written.update((each["_id"], now) for each in some)


def _documents(folder: Path, n_documents: int) -> Iterator[dict[str, Any]]:
    with write_corpus(folder / "corpus.jsonl", n_documents).open(encoding="utf-8") as lines:
        yield from map(json_module.loads, lines)
