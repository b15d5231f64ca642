"""Real documents, by the models that are shipped: ingested from files and enriched in place they are the same.

`BRIDGE_COLLECTION_DOCUMENTS` says how many of each collection; 0 takes all of them, ten minutes for each.
"""

import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.connection import connect
from bridge.node.node import EmbeddedNode
from bridge.settings import ClusterSettings, IngestSettings
from ingest.job import Job
from ingest.runs.backfill import run_backfill
from ingest.runs.ingest import run_ingest
from ingest.sources.documents import FieldChoice
from ingest.sources.files import FileDocuments
from ingest.stages.models import Models, load_models, profile_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

N_DOCUMENTS = int(os.environ.get("BRIDGE_COLLECTION_DOCUMENTS", "80")) or None
COLLECTIONS = Path(os.environ.get("BRIDGE_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data")) / "collections"
TEXT_FIELDS = ["title", "text"]
SETTINGS = IngestSettings(queries_per_passage=2, threads=1)


@pytest.fixture
def client(node: EmbeddedNode) -> Iterator[OpenSearch]:
    with connect(ClusterSettings(url=node.url, timeout_s=120)) as connected:
        yield connected


@pytest.fixture(scope="module")
def models() -> Models:
    return load_models(SETTINGS)


@pytest.fixture(params=["scifact", "vaswani"])
def corpus(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The first documents of a collection, as a file."""
    whole = COLLECTIONS / request.param / "corpus.jsonl"
    if not whole.is_file():
        pytest.skip(f"{whole} is not here: name the folder that holds `collections` in BRIDGE_SHARED_DATA")
    file = tmp_path / "corpus.jsonl"
    with whole.open(encoding="utf-8") as lines:
        file.write_text("".join(islice(lines, N_DOCUMENTS)), encoding="utf-8")
    return file


def write_as_an_application(client: OpenSearch, index: str, corpus: Path) -> int:
    """How many documents there are."""
    client.indices.create(index=index, body={"settings": {"index.knn": True, "index.number_of_replicas": 0}})
    n_documents = 0
    with corpus.open(encoding="utf-8") as lines:
        while some := list(islice(lines, 500)):
            actions: list[dict[str, Any]] = []
            for line in some:
                document = json.loads(line)
                actions += [{"index": {"_id": document.pop("_id")}}, document]
            client.bulk(index=index, body="".join(json.dumps(action) + "\n" for action in actions))
            n_documents += len(some)
    client.indices.refresh(index=index)
    return n_documents


def every_document(client: OpenSearch, index: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Id and source of each document, in the order of their writing."""
    client.indices.refresh(index=index)
    after = [-1]
    while True:
        body = {"size": 500, "sort": [{"_seq_no": "asc"}], "search_after": after}
        hits = client.search(index=index, body=body)["hits"]["hits"]
        if not hits:
            return
        yield from ((hit["_id"], hit["_source"]) for hit in hits)
        after = hits[-1]["sort"]


def test_files_and_an_index_in_use_give_the_same_documents(
    client: OpenSearch, fresh_index: str, corpus: Path, models: Models, tmp_path: Path
) -> None:
    profile = profile_for(models, TEXT_FIELDS)
    n_documents = write_as_an_application(client, fresh_index, corpus)
    own = dict(every_document(client, fresh_index))
    backfilled = run_backfill(
        Job(
            fresh_index,
            profile=profile,
            models=models,
            client=client,
            settings=SETTINGS,
            state_folder=tmp_path / "in place",
        ),
    ).report
    from_files = f"{fresh_index}-from-files"
    indices.create(client, from_files, profile)
    try:
        ingested = run_ingest(
            FileDocuments([str(corpus)], FieldChoice(TEXT_FIELDS), max_doc_bytes=1_000_000),
            Job(
                index=from_files,
                profile=profile,
                models=models,
                client=client,
                settings=SETTINGS,
                state_folder=tmp_path / "from files",
            ),
        )
        assert backfilled.ledger.written == ingested.ledger.written == n_documents
        with_queries = 0
        for (doc_id, in_place), (written_id, written) in zip(
            sorted(every_document(client, fresh_index)), sorted(every_document(client, from_files)), strict=True
        ):
            assert doc_id == written_id
            ours, theirs = in_place.pop("_neural"), written.pop("_neural")
            assert in_place == written == own[doc_id]
            # The stamp of a file's document also speaks of the rest of its body.
            assert theirs.pop("stamp").startswith(ours.pop("stamp") + ".")
            assert ours == theirs
            with_queries += bool(ours["predicted_queries"])
        assert with_queries > n_documents * 0.9
    finally:
        client.indices.delete(index=from_files)
