"""Backfill by Ray of an application's index: whatever is killed, every document is enriched, and none is lost."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="Ray is not installed (extra: ray)")

from opensearchpy import OpenSearch

from bridge.cluster.connection import connect
from bridge.errors import IngestError
from bridge.node.node import EmbeddedNode
from bridge.settings import ClusterSettings, IngestSettings
from ingest.job import Job
from ingest.ray.cluster_address import ClusterAddress
from ingest.ray.executor import RayExecutor
from ingest.ray.index_splits import slices
from ingest.runs.backfill import BackfillReport, run_backfill
from ingest.runs.beside import run_beside
from ingest.sources.index import IndexDocuments
from ingest.stages.models import profile_for
from ingest.writing.pace import RetryLimits
from tests.ingest.ray_models import HELD, opener, processes
from tests.ingest.toys import toy_models

pytestmark = pytest.mark.usefixtures("ray_here")

N = 300
ALL = {f"d{i}" for i in range(N)}
TEXT_FIELDS = ["title", "text"]
PROFILE = profile_for(toy_models(), TEXT_FIELDS)
PATIENCE_S = 600


@pytest.fixture
def client(node: EmbeddedNode) -> OpenSearch:
    return connect(ClusterSettings(url=node.url))


@pytest.fixture
def index(client: OpenSearch, fresh_index: str) -> str:
    """An index of an application that never heard of the bridge, in three shards."""
    settings = {"index.knn": True, "index.number_of_shards": 3, "index.number_of_replicas": 0}
    properties = {field: {"type": "text"} for field in TEXT_FIELDS}
    client.indices.create(index=fresh_index, body={"settings": settings, "mappings": {"properties": properties}})
    lines: list[object] = []
    for i in range(N):
        lines += [{"index": {"_id": f"d{i}"}}, {"title": f"title {i}", "text": f"text of {i}", "stock": i}]
    client.bulk(index=fresh_index, body="".join(json.dumps(line) + "\n" for line in lines), params={"refresh": "true"})
    return fresh_index


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the models' actors note their processes."""
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def backfill(url: str, index: str, folder: Path, *, client: OpenSearch | None = None) -> BackfillReport:
    return run_backfill(*prepared(url, index, folder, client))


def prepared(url: str, index: str, folder: Path, client: OpenSearch | None = None) -> tuple[Job, RayExecutor]:
    address = ClusterSettings(url=url)
    executor = RayExecutor(
        ClusterAddress.of(address, None), workers=2, writers=1, slice_documents=50, open_models=opener(folder)
    )
    settings = IngestSettings(queries_per_passage=3)
    return Job(index, PROFILE, toy_models(), client or connect(address), settings, folder.parent / "state"), executor


def stored(client: OpenSearch, index: str) -> dict[str, dict[str, object]]:
    """Every document, by its id."""
    client.indices.refresh(index=index)
    hits = client.search(index=index, body={"query": {"match_all": {}}, "size": 10 * N})["hits"]["hits"]
    return {hit["_id"]: hit["_source"] for hit in hits}


def enriched(client: OpenSearch, index: str) -> int:
    client.indices.refresh(index=index)
    return int(client.count(index=index, body={"query": {"exists": {"field": PROFILE.stamp_field}}})["count"])


def wait_for(true: Callable[[], object]) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < ends, "it did not come to that"
        time.sleep(0.1)


def assert_all_is_well(client: OpenSearch, index: str) -> None:
    found = stored(client, index)
    assert set(found) == ALL
    for i in range(N):
        document = found[f"d{i}"]
        neural = document.pop(PROFILE.object_field)
        assert document == {"title": f"title {i}", "text": f"text of {i}", "stock": i}
        assert isinstance(neural, dict)
        assert neural["predicted_queries"][0] == "what is title"
        assert len(neural["embedding"]) == 4


def test_slices_of_a_point_in_time_hold_every_document_once(client: OpenSearch, index: str) -> None:
    source = IndexDocuments(
        client, index, [], text_fields=TEXT_FIELDS, retry=RetryLimits(), stopped=threading.Event(), page_documents=40
    )
    parts = slices(N, source.n_shards, slice_documents=25)
    assert (len(parts), parts[0].n_slices) == (12, 12)
    with source.point_in_time() as pit:
        before = [[item.position for item in source.slice(pit, part.number, part.n_slices)] for part in parts]
        client.update_by_query(index=index, params={"refresh": "true"})
        again = [list(source.slice(pit, part.number, part.n_slices)) for part in parts]
    assert before == [[item.position for item in items] for items in again]
    ids = [item.doc_id for items in again for item in items]
    assert sorted(ids, key=str) == sorted(ALL)
    assert max(map(len, again)) < N / 5


def test_every_document_is_enriched_and_a_second_run_finds_nothing_to_do(
    node: EmbeddedNode, client: OpenSearch, index: str, folder: Path
) -> None:
    done = backfill(node.url, index, folder)
    assert (done.report.ledger.read, done.report.ledger.written, done.report.exit_code) == (N, N, 0)
    assert_all_is_well(client, index)
    again = backfill(node.url, index, folder).report.ledger
    assert (again.read, again.unchanged) == (N, N)


def test_beside_every_document_is_enriched_in_the_companion_alone(
    node: EmbeddedNode, client: OpenSearch, index: str, folder: Path
) -> None:
    before = stored(client, index)
    job, executor = prepared(node.url, index, folder)
    try:
        done = run_beside(job, "neural-bridge.", executor)
        assert (done.report.ledger.written, done.removed, done.report.exit_code) == (N, 0, 0)
        assert enriched(client, done.companion) == N
        assert stored(client, index) == before
        client.delete(index=index, id="d1", params={"refresh": "true"})
        again = run_beside(job, "neural-bridge.", executor)
        assert (again.report.ledger.written, again.removed) == (0, 1)
    finally:
        client.indices.delete(index=f"neural-bridge.{index}")


def test_what_changes_meanwhile_is_read_again_and_what_is_deleted_stays_deleted(
    node: EmbeddedNode, client: OpenSearch, index: str, folder: Path
) -> None:
    def application() -> None:
        wait_for(lambda: enriched(client, index))
        for i in range(0, N, 5):
            client.update(index=index, id=f"d{i}", body={"doc": {"text": f"new text of {i}"}})
        client.delete(index=index, id="d1")
        (folder / HELD).unlink()

    (folder / HELD).touch()
    busy = threading.Thread(target=application)
    busy.start()
    done = backfill(node.url, index, folder)
    busy.join()
    assert (done.left, done.report.exit_code) == (0, 0)
    assert 0 < done.read_again <= N // 5 + 1
    found = stored(client, index)
    assert set(found) == ALL - {"d1"}
    assert all(found[f"d{i}"]["text"] == f"new text of {i}" for i in range(0, N, 5))
    last = backfill(node.url, index, folder).report.ledger
    # One that was enriched before it changed is stale still: as it is after a run in one process.
    assert last.unchanged + last.written == N - 1
    assert last.written <= N // 5


def test_a_killed_worker_costs_no_document(node: EmbeddedNode, client: OpenSearch, index: str, folder: Path) -> None:
    killed: list[int] = []

    def murder() -> None:
        wait_for(lambda: enriched(client, index))
        killed.extend(processes(folder)[:1])
        os.kill(killed[0], signal.SIGKILL)
        (folder / HELD).unlink()

    (folder / HELD).touch()
    murderer = threading.Thread(target=murder)
    murderer.start()
    ledger = backfill(node.url, index, folder).report.ledger
    murderer.join()
    assert killed
    assert (ledger.read, ledger.dead_lettered) == (ledger.answered, 0)
    assert_all_is_well(client, index)


def test_a_killed_driver_is_run_again(node: EmbeddedNode, client: OpenSearch, index: str, folder: Path) -> None:
    (folder / HELD).touch()
    driver = subprocess.Popen([sys.executable, "-m", __name__, node.url, index, str(folder)])
    try:
        wait_for(lambda: enriched(client, index))
        assert driver.poll() is None
    finally:
        driver.kill()
        driver.wait(60)
    n_before = enriched(client, index)
    assert 0 < n_before < N
    # Its actors end with it: nobody writes any more.
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes(folder)))
    (folder / HELD).unlink()
    ledger = backfill(node.url, index, folder).report.ledger
    assert (ledger.read, ledger.unchanged >= n_before) == (N, True)
    assert_all_is_well(client, index)


def test_a_lost_point_in_time_is_followed_by_another(
    node: EmbeddedNode, client: OpenSearch, index: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one is closed as soon as it is open."""
    opened: list[str] = []
    connection = client.transport.get_connection()
    ask = connection.perform_request

    def asked(method: str, url: str, *more: Any, **options: Any) -> Any:
        answer = ask(method, url, *more, **options)
        if method == "POST" and url.endswith("/point_in_time"):
            opened.append(json.loads(answer[2])["pit_id"])
            if len(opened) == 1:
                ask("DELETE", "/_search/point_in_time", None, json.dumps({"pit_id": opened}).encode())
        return answer

    monkeypatch.setattr(connection, "perform_request", asked)
    ledger = backfill(node.url, index, folder, client=client).report.ledger
    assert len(opened) == 2
    assert (ledger.read, ledger.written) == (N, N)
    assert_all_is_well(client, index)


def test_an_error_on_a_machine_is_told_in_our_words(node: EmbeddedNode, index: str, folder: Path) -> None:
    folder.rmdir()  # no actor can open its models
    with pytest.raises(IngestError, match=r"Ray gave the run up: .*No such file"):
        backfill(node.url, index, folder)


if __name__ == "__main__":
    print(backfill(sys.argv[1], sys.argv[2], Path(sys.argv[3])))  # noqa: T201
