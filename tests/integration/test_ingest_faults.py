"""Ingest and backfill over a bad network, and killed at bad moments: every document is there once, enriched, and
the books balance."""

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.connection import connect
from bridge.cluster.shard_progress import index_progress
from bridge.errors import CheckpointUnusable
from bridge.node.node import EmbeddedNode
from bridge.profile import companion_of
from bridge.records import Document, SourcePosition
from bridge.settings import ClusterSettings, IngestSettings
from ingest.books.ledger import Ledger, Progress
from ingest.job import Job
from ingest.runs.backfill import run_backfill
from ingest.runs.ingest import run_ingest
from ingest.sources.documents import FieldChoice
from ingest.sources.files import FileDocuments
from ingest.stages.models import profile_for
from ingest.stages.stamps import text_stamp
from tests.command_line import run
from tests.ingest.application import MAPPING, TEXT_FIELDS
from tests.ingest.toys import toy_models
from tests.tcp_faults import TcpFaults, random_faults, tcp_faults
from tests.toys import make_toy_encoder

N_DOCUMENTS = 1000
OWN = {f"d{i}": {"title": f"title {i}", "text": f"text of {i}", "price": i / 8} for i in range(N_DOCUMENTS)}
SMALL_REQUESTS = IngestSettings(bulk_documents=20, queries_per_passage=2)
PROFILE = profile_for(toy_models(), TEXT_FIELDS)


@pytest.fixture
def client(node: EmbeddedNode) -> Iterator[OpenSearch]:
    with connect(ClusterSettings(url=node.url)) as direct:
        yield direct


def write_as_an_application(client: OpenSearch, index: str, *, knn: bool = True) -> None:
    settings = {"index.number_of_replicas": 0, **({"index.knn": True} if knn else {})}
    client.indices.create(index=index, body={"settings": settings, "mappings": {"properties": MAPPING}})
    lines = [line for doc_id, body in OWN.items() for line in ({"index": {"_id": doc_id}}, body)]
    client.bulk(index=index, body="".join(json.dumps(line) + "\n" for line in lines), params={"refresh": "true"})


def corpus(folder: Path) -> Path:
    file = folder / "corpus.jsonl"
    file.write_text("".join(json.dumps({"_id": doc_id, **body}) + "\n" for doc_id, body in OWN.items()))
    return file


def stored(client: OpenSearch, index: str) -> dict[str, dict[str, Any]]:
    """Every document of an index, by id."""
    client.indices.refresh(index=index)
    hits = client.search(index=index, body={"size": 2 * N_DOCUMENTS})["hits"]["hits"]
    assert len({hit["_id"] for hit in hits}) == len(hits)
    return {hit["_id"]: hit["_source"] for hit in hits}


def check_all_are_enriched_and_otherwise_untouched(found: dict[str, dict[str, Any]]) -> None:
    ours = {doc_id: body.pop("_neural", {}) for doc_id, body in found.items()}
    assert found == OWN
    assert [doc_id for doc_id, made in ours.items() if not made.get("stamp")] == []


def balances(ledger: Ledger) -> bool:
    return ledger.read == ledger.answered


def arming(faults: TcpFaults) -> Callable[[Progress], None]:
    """Lets the faults begin with the first progress: the run is under way."""
    return lambda _: faults.armed.set()


def over_a_bad_network(node: EmbeddedNode, run: Callable[[OpenSearch, TcpFaults], None], seed: int) -> None:
    """Connections fail a dozen times at moments by chance, then no more."""
    faults = random_faults(seed, resets_and_cuts=11, stalls=1, up_to_bytes=4000)
    with (
        tcp_faults(node.url, faults) as proxy,
        connect(ClusterSettings(url=proxy.url, timeout_s=5)) as client,
    ):
        run(client, proxy)
        assert proxy.done.total() == len(faults), "the run ended before all had happened"


@pytest.mark.case("I8")
@pytest.mark.timeout(600)
def test_ingest_over_a_network_that_cuts_resets_and_stalls_is_exact(
    node: EmbeddedNode, client: OpenSearch, fresh_index: str, tmp_path: Path
) -> None:
    indices.create(client, fresh_index, PROFILE)

    def ingest(through: OpenSearch, faults: TcpFaults) -> None:
        report = run_ingest(
            FileDocuments([str(corpus(tmp_path))], FieldChoice(TEXT_FIELDS), max_doc_bytes=10_000),
            Job(
                index=fresh_index,
                profile=PROFILE,
                models=toy_models(),
                client=through,
                settings=SMALL_REQUESTS,
                state_folder=tmp_path / "state",
                on_progress=arming(faults),
            ),
        )
        assert (report.complete, report.exit_code) == (True, 0)
        assert report.sent_again > 0
        assert (report.ledger.read, report.ledger.written) == (N_DOCUMENTS, N_DOCUMENTS)

    over_a_bad_network(node, ingest, seed=1)
    check_all_are_enriched_and_otherwise_untouched(stored(client, fresh_index))


@pytest.mark.case("I28")
@pytest.mark.timeout(600)
def test_backfill_over_a_network_that_cuts_resets_and_stalls_is_exact(
    node: EmbeddedNode, client: OpenSearch, fresh_index: str, tmp_path: Path
) -> None:
    write_as_an_application(client, fresh_index)

    def backfill(through: OpenSearch, faults: TcpFaults) -> None:
        done = run_backfill(
            Job(
                fresh_index,
                profile=PROFILE,
                models=toy_models(),
                client=through,
                settings=SMALL_REQUESTS,
                state_folder=tmp_path / "state",
                on_progress=arming(faults),
            ),
        )
        assert (done.report.complete, done.report.exit_code, done.left) == (True, 0, 0)
        ledger = done.report.ledger
        assert balances(ledger)
        # What was written although its answer was lost is found enriched when it is read again.
        assert ledger.read == N_DOCUMENTS + done.read_again
        assert ledger.written + ledger.unchanged == N_DOCUMENTS

    over_a_bad_network(node, backfill, seed=2)
    check_all_are_enriched_and_otherwise_untouched(stored(client, fresh_index))


@pytest.mark.case("I9")
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("command", ["ingest", "backfill"])
def test_five_kills_on_a_real_node_lose_nothing(
    node: EmbeddedNode, client: OpenSearch, fresh_index: str, tmp_path: Path, command: str
) -> None:
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    make_toy_encoder(encoder)
    if command == "backfill":
        write_as_an_application(client, fresh_index)
    arguments = [
        *(sys.executable, "-m", "bridge.cli", command, fresh_index),
        *([str(corpus(tmp_path))] if command == "ingest" else []),
        *("--cluster", node.url, "--encoder", str(encoder), "--no-expansion", "--threads", "1", "--json"),
        *("--text-field", "title", "--text-field", "text", "--state-folder", str(tmp_path / "state")),
    ]
    moments = random.Random(9)
    enriched = 0
    for _ in range(5):
        slowed = [*arguments, "--max-docs-per-second", "100"]
        with subprocess.Popen(slowed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            enriched = wait_for_more(client, fresh_index, enriched, process)
            time.sleep(moments.uniform(0, 0.4))
            process.kill()
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    ledger = report["ledger"]
    assert ledger["written"] + ledger["unchanged"] == N_DOCUMENTS
    # What a killed backfill still had under way may land between reading and writing: such documents are read twice.
    assert ledger["read"] == N_DOCUMENTS + ledger["superseded"]
    assert command == "backfill" or ledger["superseded"] == 0
    assert report["skipped"] + ledger["unchanged"] >= enriched, "what a killed run had written was made again"
    check_all_are_enriched_and_otherwise_untouched(stored(client, fresh_index))


@pytest.mark.case("I9")
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("command", ["backfill", "follow"])
def test_five_kills_beside_lose_nothing_while_the_application_writes_and_deletes(
    node: EmbeddedNode, client: OpenSearch, fresh_index: str, tmp_path: Path, command: str
) -> None:
    encoder, ours = tmp_path / "encoder", companion_of(fresh_index, "neural-bridge.")
    encoder.mkdir()
    make_toy_encoder(encoder)
    write_as_an_application(client, fresh_index, knn=False)

    def arguments(command: str, *options: str) -> list[str]:
        made_by = ["--cluster", node.url, "--encoder", str(encoder), "--threads", "1", "--json", "--quiet"]
        folder = ["--state-folder", str(tmp_path / command)]
        return [sys.executable, "-m", "bridge.cli", command, fresh_index, *made_by, *folder, *options]

    fields = ["--beside", "--no-expansion", "--text-field", "title", "--text-field", "text"]
    once = {"backfill": arguments("backfill", *fields), "follow": arguments("follow", "--once")}[command]
    killed = once if command == "backfill" else arguments("follow")
    if command == "follow":
        subprocess.run(arguments("backfill", *fields), capture_output=True, timeout=600, check=True)
    moments = random.Random(9)
    try:
        with Application(client, fresh_index) as application:
            for _ in range(5):
                before = last_written(client, ours)
                slowed = [*killed, "--max-docs-per-second", "100"]
                with subprocess.Popen(slowed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                    while last_written(client, ours) == before:
                        assert process.poll() is None, "the run ended before it could be killed"
                        time.sleep(0.05)
                    time.sleep(moments.uniform(0, 0.4))
                    process.kill()
        done = subprocess.run(once, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr
        found, made = stored(client, fresh_index), stored(client, ours)
        assert (found, made.keys()) == (application.documents, found.keys())
        for doc_id, body in found.items():
            texts = {name: body[name] for name in TEXT_FIELDS}
            expected = text_stamp("", Document(doc_id, b"", texts, SourcePosition(fresh_index, 0)))
            assert made[doc_id]["_neural"]["stamp"].endswith(expected), doc_id
        vectors = {"query": {"exists": {"field": "_neural.embedding"}}}
        assert client.count(index=ours, body=vectors)["count"] == len(made)
        # Each change takes a sequence number: nobody but the application made any.
        changes = sum(shard.last + 1 for shard in index_progress(client, fresh_index).shards.values())
        assert changes == N_DOCUMENTS + application.changes
    finally:
        client.indices.delete(index=ours, params={"ignore_unavailable": "true"})


@pytest.mark.parametrize("command", ["ingest", "backfill"])
def test_a_state_folder_that_cannot_be_written_leaves_no_index_behind(
    node: EmbeddedNode, client: OpenSearch, fresh_index: str, tmp_path: Path, command: str
) -> None:
    folder, encoder, ours = (
        tmp_path / "file" / "state",
        tmp_path / "encoder",
        companion_of(fresh_index, "neural-bridge."),
    )
    folder.parent.write_text("no folder can be made in a file")
    make_toy_encoder(encoder)
    if command == "backfill":
        write_as_an_application(client, fresh_index, knn=False)
    named = [str(corpus(tmp_path))] if command == "ingest" else ["--beside"]
    options = ("--cluster", node.url, "--encoder", str(encoder), "--no-expansion", "--threads", "1")
    with pytest.raises(CheckpointUnusable, match=r"state cannot be written \(Not a directory\).*--state-folder"):
        run(command, fresh_index, *named, *options, "--text-field", "title", "--state-folder", str(folder))
    assert not client.indices.exists(index=fresh_index if command == "ingest" else ours)


class Application:
    """Writes and deletes documents of an index, one after another on a thread, until the block ends."""

    def __init__(self, client: OpenSearch, index: str) -> None:
        self.documents = {doc_id: dict(body) for doc_id, body in OWN.items()}
        self.changes = 0
        self._client, self._index = client, index
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> "Application":
        self._working = self._pool.submit(self._work)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._working.result(60)
        self._pool.shutdown()

    def _work(self) -> None:
        chance = random.Random(3)
        while not self._over.wait(0.02):
            doc_id, number = chance.choice(list(self.documents)), self.changes
            match chance.randrange(4):
                case 0:
                    self._client.delete(index=self._index, id=doc_id)
                    del self.documents[doc_id]
                case 1:
                    new = {"title": f"new {number}", "text": f"came as change {number}", "price": 0.5}
                    self._client.index(index=self._index, id=f"new{number}", body=new)
                    self.documents[f"new{number}"] = new
                case 2:
                    self._client.update(index=self._index, id=doc_id, body={"doc": {"price": number + 0.25}})
                    self.documents[doc_id]["price"] = number + 0.25
                case _:
                    self._client.update(index=self._index, id=doc_id, body={"doc": {"text": f"changed {number}"}})
                    self.documents[doc_id]["text"] = f"changed {number}"
            self.changes += 1


def last_written(client: OpenSearch, index: str) -> int:
    """How many changes an index has seen, 0 if there is none."""
    if not client.indices.exists(index=index):
        return 0
    return sum(shard.last + 1 for shard in index_progress(client, index).shards.values())


def wait_for_more(client: OpenSearch, index: str, enriched: int, process: subprocess.Popen[bytes]) -> int:
    """How many documents are enriched, once there are more than `enriched`."""
    query = {"query": {"exists": {"field": "_neural.stamp"}}}
    while True:
        if client.indices.exists(index=index):
            client.indices.refresh(index=index)
            if (found := int(client.count(index=index, body=query)["count"])) > enriched:
                return found
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.05)
