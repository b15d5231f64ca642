"""The stages that Ray carries, one after another in this process: every item of every split ends once."""

import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from bridge.cluster.dialects import OpenSearchDialect
from bridge.cluster.schema import new_index
from bridge.records import Document
from bridge.settings import ClusterSettings, IngestSettings
from ingest.ray.cluster_address import ClusterAddress
from ingest.ray.stages import Enrich, Part, WorkerJob, Write, parts
from ingest.sources.documents import FieldChoice
from ingest.sources.files import FileDocuments
from ingest.stages.models import profile_for
from tests.fake_bulk import FakeCluster, fake_cluster
from tests.ingest.toys import toy_models

FIELDS = FieldChoice(text_fields=["title"], id_field="id")
PROFILE = profile_for(toy_models(), FIELDS.text_fields)
N = 200


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with fake_cluster() as running:
        running.mapping = new_index(PROFILE, OpenSearchDialect((3, 6, 0)))["mappings"]
        yield running


@pytest.fixture
def job(cluster: FakeCluster, tmp_path: Path) -> WorkerJob:
    file = tmp_path / "corpus.jsonl"
    lines = [f'{{"id": "d{i}", "title": "title {i}"}}' for i in range(N)]
    file.write_text("\n".join([*lines[:9], "no json", '{"id": "NaN", "title": "NaN"}', *lines[9:]]))
    return WorkerJob(
        source=FileDocuments([str(file)], FIELDS, max_doc_bytes=1000, part_bytes=1000),
        index="shop",
        profile=PROFILE,
        settings=IngestSettings(bulk_documents=20),
        cluster=ClusterAddress.of(ClusterSettings(url=cluster.url, password=SecretStr("not for others")), None),
        open_models=toy_models,
    )


def carried(job: WorkerJob) -> list[Part]:
    """The parts as the run gathers them; between the stages they go from process to process."""
    enrich, write = Enrich(job), Write(job)
    rows = [row for part in job.source.parts() for row in parts({"part": part}, job)]
    return [write(pickle.loads(pickle.dumps(enrich(row))))["part"] for row in rows]  # noqa: S301 our own bytes


def test_every_item_ends_once_and_is_counted_where_it_was_read(cluster: FakeCluster, job: WorkerJob) -> None:
    done = carried(job)
    assert len(job.source.parts()) > 5
    ended = Counter(outcome.kind for part in done for _, outcome in part.ended)
    assert ended == {"written": N, "dead_lettered": 2}
    assert sum(part.n_read for part in done if part.n_read is not None) == N + 2
    assert [part.n_read is not None for part in done].count(True) == len(job.source.parts())
    assert set(cluster.documents) == {f"d{i}" for i in range(N)}


def test_parts_that_are_made_again_change_nothing(cluster: FakeCluster, job: WorkerJob) -> None:
    first, again = carried(job), carried(job)
    assert [len(part.ended) for part in again] == [len(part.ended) for part in first]
    ended = Counter(outcome.kind for part in again for _, outcome in part.ended)
    assert ended == {"unchanged": N, "dead_lettered": 2}
    assert len(cluster.documents) == N


def test_only_dead_letters_come_back_whole(job: WorkerJob) -> None:
    items = {outcome.kind: item for part in carried(job) for item, outcome in part.ended if isinstance(item, Document)}
    assert items["written"].body == b""
    assert items["dead_lettered"].body == b'{"id": "NaN", "title": "NaN"}'
