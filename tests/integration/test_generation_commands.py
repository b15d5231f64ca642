"""A change of models as an operator does it, by commands, while searches go on through the proxy."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from opensearchpy import OpenSearch

from bridge.cli import cli
from bridge.cluster.shard_progress import index_progress
from bridge.errors import IndexUnsuitable
from bridge.models.artifact import resolve
from bridge.models.encoder import Encoder
from bridge.node.node import EmbeddedNode
from bridge.settings import ClusterSettings
from tests.ingest.follow.test_follower import eventually
from tests.proxy_stack import ProxyStack, proxy_stack
from tests.toys import WORDS, make_toy_encoder, make_toy_static_encoder

DOCUMENTS = {word: {"title": f"about {word}", "body": f"{word} {word} and more"} for word in WORDS[:20]}


@pytest.fixture
def new_encoder(tmp_path: Path) -> str:
    """The folder of an encoder that puts words elsewhere than the toys' usual one, and has a dimension more."""
    return str(make_toy_encoder(tmp_path / "new-encoder", ["first", *WORDS]).path)


@pytest.fixture
def static_encoder(tmp_path: Path) -> str:
    """The folder of an encoder without a neural network, of half the dimensions."""
    return str(make_toy_static_encoder(tmp_path / "static-encoder", WORDS[:20]).path)


@pytest.fixture
def stack(node: EmbeddedNode, tmp_path: Path, new_encoder: str, static_encoder: str) -> Iterator[ProxyStack]:
    """A proxy and a sidecar with all three encoders."""
    more = [Encoder.load(resolve(folder), threads=1) for folder in (new_encoder, static_encoder)]
    settings = ClusterSettings(url=node.url)
    with proxy_stack(settings, tmp_path, more_encoders=more, profile_ttl_s=0.2, budget_ms=20_000) as running:
        yield running


@pytest.fixture
def environment(node: EmbeddedNode, stack: ProxyStack, tmp_path: Path) -> dict[str, str]:
    return {
        "BRIDGE_CLUSTER__URL": node.url,
        "BRIDGE_PROXY__SIDECAR_URL": stack.sidecar_url,
        "BRIDGE_INGEST__ENCODER": str(tmp_path / "encoder"),
        "BRIDGE_INGEST__GENERATOR": "",
        "BRIDGE_INGEST__THREADS": "1",
        "BRIDGE_INGEST__FOLLOW_INTERVAL_S": "0.2",
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }


@pytest.fixture
def application_index(opensearch: OpenSearch, fresh_index: str) -> str:
    """An index as an application wrote it."""
    settings = {"index.knn": True, "index.number_of_replicas": 0}
    mapping = {"properties": {"title": {"type": "text"}, "body": {"type": "text"}}}
    opensearch.indices.create(index=fresh_index, body={"settings": settings, "mappings": mapping})
    for word, document in DOCUMENTS.items():
        opensearch.index(index=fresh_index, id=word, body=document)
    opensearch.indices.refresh(index=fresh_index)
    return fresh_index


def neural_bridge(environment: dict[str, str], *arguments: str) -> Result:
    """A command as it is typed; in this process, since importing everything takes its time."""
    return CliRunner().invoke(cli, arguments, env=environment)


def printed(result: Result) -> Any:
    """The one JSON object on stdout, where the sidecar logs too."""
    return json.JSONDecoder().raw_decode(result.stdout[result.stdout.index("{\n") :])[0]


def backfill(environment: dict[str, str], index: str, way: str = "--in-place", *options: str) -> Result:
    fields = ("--text-field", "title", "--text-field", "body")
    return neural_bridge(environment, "backfill", index, way, *fields, "--quiet", *options)


class Searching:
    """Searches by vector through the proxy, one after another on a thread, until the block ends."""

    def __init__(self, url: str, index: str) -> None:
        self.answers: Counter[tuple[str, str]] = Counter()
        self._target = f"{url}/{index}/_search"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._search)

    def _search(self) -> None:
        body = json.dumps({"query": {"match": {"body": "wing"}}, "size": 1}).encode()
        headers = {"content-type": "application/json", "x-bridge": "vector"}
        while not self._over.is_set():
            request = urllib.request.Request(self._target, body, headers)
            with urllib.request.urlopen(request, timeout=60) as answer:
                [hit] = json.load(answer)["hits"]["hits"]
                self.answers[hit["_id"], re.split("[;+]", answer.headers["x-bridge"])[0]] += 1

    def have_answered(self, searches: int) -> bool:
        return self.answers.total() >= searches

    def __enter__(self) -> "Searching":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)


@pytest.mark.parametrize("way", ["--in-place", "--beside"])
def test_searches_keep_their_vectors_while_an_index_changes_its_models(
    opensearch: OpenSearch,
    application_index: str,
    stack: ProxyStack,
    environment: dict[str, str],
    new_encoder: str,
    tmp_path: Path,
    way: str,
) -> None:
    def generation(command: str, *options: str) -> Result:
        return neural_bridge(environment, "generation", command, application_index, *options)

    def serving() -> int:
        standing = printed(generation("status", "--json"))["generations"]
        return int(next(one["generation"] for one in standing if one["serves"]))

    def shown() -> Any:
        return opensearch.indices.get(index=application_index), index_progress(opensearch, application_index).shards

    before = shown()
    assert backfill(environment, application_index, way).exit_code == 0
    with Searching(stack.url, application_index) as searching:
        filled = generation("fill", "--encoder", new_encoder, "--quiet")
        assert (filled.exit_code, "generation 2 is filled" in filled.stdout) == (0, True)
        verified = generation("verify")
        assert (verified.exit_code, "it may serve searches" in verified.stdout) == (0, True)

        judgements = tmp_path / "judgements.csv"
        judgements.write_text("query,docid,rating\n" + "".join(f"{word},{word},1\n" for word in DOCUMENTS))
        compared = printed(generation("verify", "--json", "--judgements", str(judgements)))["quality"]
        assert (compared["queries"], compared["serving_mean"], compared["other_mean"]) == (20, 1.0, 1.0)

        refused = generation("cutover", "--sidecar", "http://127.0.0.1:9")
        assert isinstance(refused.exception, IndexUnsuitable)
        assert "gives no answer" in str(refused.exception)
        assert "or name another one with --sidecar" in str(refused.exception)
        assert serving() == 1

        for command, expected in (("cutover", 2), ("rollback", 1), ("cutover", 2)):
            assert generation(command).exit_code == 0
            assert serving() == expected
            enough = searching.answers.total() + 5
            eventually(partial(searching.have_answered, enough))
    assert set(searching.answers) == {("wing", "vector")}

    assert f"is out of {len(DOCUMENTS)} documents" in generation("drop", "--yes").stdout
    if way == "--in-place":
        neural = opensearch.get(index=application_index, id="wing")["_source"]["_neural"]
        assert list(neural) == ["generation_2"]
    else:
        companions = f"neural-bridge.{application_index}*"
        there = opensearch.indices.get(index=companions, params={"expand_wildcards": "all"})
        assert list(there) == [f"neural-bridge.{application_index}~2"]
        # The third takes the first one's name and place.
        assert generation("fill", "--quiet").exit_code == 0
        assert (generation("cutover").exit_code, serving()) == (0, 3)
        assert neural_bridge(environment, "undo", application_index, "--yes").exit_code == 0
        assert opensearch.indices.get(index=companions, params={"expand_wildcards": "all"}) == {}
        assert shown() == before


@pytest.mark.parametrize("way", ["--in-place", "--beside"])
def test_an_index_that_a_static_encoder_filled_gets_better_vectors_while_it_is_searched(
    application_index: str, stack: ProxyStack, environment: dict[str, str], static_encoder: str, way: str
) -> None:
    def generation(command: str, *options: str) -> Result:
        return neural_bridge(environment, "generation", command, application_index, *options)

    def encoders() -> dict[int, tuple[str, bool]]:
        standing = printed(generation("status", "--json"))["generations"]
        return {one["generation"]: (one["encoder"].partition("@")[0], one["serves"]) for one in standing}

    assert backfill(environment, application_index, way, "--encoder", static_encoder).exit_code == 0
    assert encoders() == {1: ("toy-static-encoder", True)}
    with Searching(stack.url, application_index) as searching:
        eventually(partial(searching.have_answered, 5))
        assert generation("fill", "--quiet").exit_code == 0
        assert generation("verify").exit_code == 0
        assert generation("cutover").exit_code == 0
        assert encoders() == {1: ("toy-static-encoder", False), 2: ("toy-encoder", True)}
        eventually(partial(searching.have_answered, searching.answers.total() + 5))
    assert set(searching.answers) == {("wing", "vector")}
    assert generation("drop", "--yes").exit_code == 0
    assert encoders() == {2: ("toy-encoder", True)}


def test_a_follower_is_a_service_that_tells_its_lag_and_ends_when_it_is_told(
    opensearch: OpenSearch, application_index: str, environment: dict[str, str]
) -> None:
    assert backfill(environment, application_index).exit_code == 0
    follower = subprocess.Popen(
        [sys.executable, "-m", "bridge.cli", "follow", application_index, "--metrics-port", "0", "--json"],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert follower.stderr is not None
        found = re.search(r"http://\S+", follower.stderr.readline())
        assert found is not None
        opensearch.update(index=application_index, id="wing", body={"doc": {"body": "pressure"}})
        opensearch.index(index=application_index, id="new", body={"title": "flow", "body": "heat"})

        def metrics() -> str:
            with urllib.request.urlopen(found[0], timeout=60) as answer:
                return str(answer.read().decode())

        written = f'bridge_ingest_documents_total{{fields="all",index="{application_index}",outcome="written"}} 2.0'
        eventually(lambda: written in metrics())
        lag = f'bridge_follow_lag_seconds{{fields="all",generation="1",index="{application_index}"}} '
        assert lag in metrics()
        assert len(opensearch.get(index=application_index, id="new")["_source"]["_neural"]["embedding"]) == len(WORDS)
    finally:
        follower.send_signal(signal.SIGTERM)
        told, _ = follower.communicate(timeout=120)
    assert follower.returncode == 0
    assert [each["ledger"]["written"] for each in json.loads(told)] == [2]
