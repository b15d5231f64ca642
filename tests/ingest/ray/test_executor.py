"""Ingest by Ray on this machine, into a cluster that keeps what it is sent: nothing lost, nothing twice."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="Ray is not installed (extra: ray)")

from bridge.cluster.connection import connect
from bridge.cluster.dialects import OpenSearchDialect
from bridge.cluster.schema import new_index
from bridge.errors import IngestError
from bridge.settings import ClusterSettings, IngestSettings
from ingest.books.ledger import Report
from ingest.job import Job
from ingest.ray.cluster_address import ClusterAddress
from ingest.ray.executor import RayExecutor
from ingest.runs.ingest import run_ingest
from ingest.sources.documents import FieldChoice
from ingest.sources.files import FileDocuments
from ingest.stages.models import profile_for
from tests.fake_bulk import Action, FakeCluster, fake_cluster
from tests.ingest.ray_models import HELD, opener, processes
from tests.ingest.toys import toy_models

pytestmark = pytest.mark.usefixtures("ray_here")

FIELDS = FieldChoice(text_fields=["title", "text"], id_field="id")
N = 600


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with fake_cluster() as running:
        profile = profile_for(toy_models(), FIELDS.text_fields)
        running.mapping = new_index(profile, OpenSearchDialect((3, 6, 0)))["mappings"]
        running.settings = {"index": {"knn": "true"}}
        yield running


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    file = tmp_path / "corpus.jsonl"
    lines = [json.dumps({"id": f"d{i}", "title": f"title {i}", "text": f"text of {i}"}) for i in range(N)]
    file.write_text("\n".join([*lines[: N // 2], "no json", *lines[N // 2 :]]) + "\n")
    return file


def run(cluster: FakeCluster, corpus: Path, folder: Path, **settings: int) -> Report:
    address = ClusterSettings(url=cluster.url)
    with connect(address) as client:
        profile = profile_for(toy_models(), FIELDS.text_fields)
        return run_ingest(
            FileDocuments([str(corpus)], FIELDS, max_doc_bytes=1000, part_bytes=5_000),
            Job("shop", profile, toy_models(), client, IngestSettings(**settings), folder / "state"),
            RayExecutor(ClusterAddress.of(address, None), workers=2, writers=1, open_models=opener(folder)),
        )


def test_every_document_is_written_once_and_accounted_for(cluster: FakeCluster, corpus: Path, tmp_path: Path) -> None:
    report = run(cluster, corpus, tmp_path)
    assert (report.ledger.read, report.ledger.written, report.ledger.dead_lettered) == (N + 1, N, 1)
    assert (report.complete, report.exit_code) == (True, 3)
    assert set(cluster.documents) == {f"d{i}" for i in range(N)}
    assert report.dead_letters is not None
    assert "no json" in Path(report.dead_letters).read_text()
    again = run(cluster, corpus, tmp_path)
    assert (again.ledger.written, again.ledger.unchanged, again.ledger.dead_lettered) == (0, N, 1)


def test_a_killed_worker_costs_no_document(cluster: FakeCluster, corpus: Path, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill_once(_n: int, _actions: list[Action]) -> None:
        if not killed:
            killed.extend(processes(tmp_path)[:1])
            os.kill(killed[0], signal.SIGKILL)
            (tmp_path / HELD).unlink()

    (tmp_path / HELD).touch()
    cluster.on_bulk = kill_once
    report = run(cluster, corpus, tmp_path)
    assert killed
    assert (report.ledger.read, report.ledger.written + report.ledger.unchanged) == (N + 1, N)
    assert set(cluster.documents) == {f"d{i}" for i in range(N)}


def test_too_many_dead_letters_end_the_run(cluster: FakeCluster, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(IngestError, match="max_errors allows 0"):
        run(cluster, corpus, tmp_path, max_errors=0)
