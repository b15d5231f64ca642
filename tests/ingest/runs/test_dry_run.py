"""A dry run reports what the run then does, and writes nothing."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.cluster.connection import connect
from bridge.cluster.dialects import OpenSearchDialect
from bridge.cluster.schema import new_index
from bridge.settings import ClusterSettings, IngestSettings
from ingest.books.ledger import Report
from ingest.job import Job
from ingest.runs.dry_run import DryRun, dry_run_of
from ingest.runs.ingest import run_ingest
from ingest.sources.documents import FieldChoice
from ingest.sources.files import FileDocuments
from ingest.stages.models import profile_for
from tests.fake_bulk import FakeCluster, fake_cluster
from tests.ingest.toys import toy_models

FIELDS = FieldChoice(["title", "text"])
PROFILE = profile_for(toy_models(), FIELDS.text_fields)


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with fake_cluster() as running:
        running.mapping = new_index(PROFILE, OpenSearchDialect((3, 6, 0)))["mappings"]
        running.settings = {"index": {"knn": "true", "uuid": "u1"}}
        yield running


def corpus(folder: Path, n: int) -> FileDocuments:
    lines = [json.dumps({"_id": f"d{i}", "title": f"number {i}", "text": "words"}) for i in range(n)]
    bad = ["no json", json.dumps({"_id": "d0", "title": "again"}), json.dumps({"_id": "empty"})]
    (folder / "corpus.jsonl").write_text("\n".join([*lines, *bad]))
    return FileDocuments([str(folder / "corpus.jsonl")], FIELDS, max_doc_bytes=10_000)


def dry_run(cluster: FakeCluster, source: FileDocuments) -> DryRun:
    return dry_run_of(
        source,
        Job(
            index="things",
            profile=PROFILE,
            models=toy_models(),
            client=connect(ClusterSettings(url=cluster.url)),
            settings=IngestSettings(),
            state_folder=Path("unused"),
        ),
        analyzer="english",
    )


def ingested(cluster: FakeCluster, source: FileDocuments, folder: Path) -> Report:
    return run_ingest(
        source,
        Job(
            index="things",
            profile=PROFILE,
            models=toy_models(),
            client=connect(ClusterSettings(url=cluster.url)),
            settings=IngestSettings(),
            state_folder=folder / "state",
        ),
    )


def writes(cluster: FakeCluster) -> list[str]:
    return [request.path for request in cluster.requests if request.method == "PUT" or "_bulk" in request.path]


@pytest.mark.case("I22")
def test_a_dry_run_counts_what_the_run_then_counts(cluster: FakeCluster, tmp_path: Path) -> None:
    source = corpus(tmp_path, 100)
    found = dry_run(cluster, source)
    assert writes(cluster) == []
    assert (found.read, found.to_write, found.without_text, found.superseded) == (103, 101, 1, 1)
    assert found.dead_letters == {"invalid_json": 1}
    assert found.examples[0].startswith(f"{tmp_path}/corpus.jsonl:101: ")
    assert (found.exists, found.mapping, found.obstacles, found.measured) == (True, {}, [], 101)
    ledger = ingested(cluster, source, tmp_path).ledger
    assert (ledger.written, ledger.superseded, ledger.dead_lettered) == (found.to_write, found.superseded, 1)
    again = dry_run(cluster, corpus(tmp_path, 110))
    # What comes twice is written again: the index may hold the version before.
    assert (again.to_write, again.unchanged, again.superseded) == (11, 100, 1)


@pytest.mark.case("I22")
def test_a_dry_run_names_what_the_mapping_lacks_and_every_obstacle_to_the_run(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    cluster.mapping = {"properties": {"title": {"type": "text", "analyzer": "french"}}}
    cluster.settings = {"index": {"uuid": "u1"}}
    found = dry_run(cluster, corpus(tmp_path, 3))
    assert found.mapping["_neural"]["properties"]["predicted_queries"] == {"type": "text", "analyzer": "french"}
    assert any("_neural.embedding is not in the mapping" in obstacle for obstacle in found.obstacles)
    assert writes(cluster) == []
