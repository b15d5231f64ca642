"""A copy has every document of its index, byte for byte and enriched, and its shard copies are waited for."""

import json
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.connection import connect, exchange
from bridge.cluster.schema import field_mapping
from bridge.errors import IndexUnsuitable
from bridge.node.node import EmbeddedNode
from bridge.settings import ClusterSettings, IngestSettings
from ingest.job import Job
from ingest.runs.copy import run_copy, wait_for_copies
from ingest.sources.documents import FieldChoice
from ingest.stages.models import profile_for
from tests.fake_bulk import Recorded, Reply, fake_cluster
from tests.ingest.application import TEXT_FIELDS
from tests.ingest.toys import toy_models

FIELDS = FieldChoice(TEXT_FIELDS)
PROFILE = profile_for(toy_models(), TEXT_FIELDS)


@pytest.fixture
def client(node: EmbeddedNode) -> OpenSearch:
    return connect(ClusterSettings(url=node.url))


@pytest.fixture
def copy_name(client: OpenSearch, fresh_index: str) -> Iterator[str]:
    """The name of an index to copy into; removed afterwards."""
    yield f"{fresh_index}-copy"
    client.indices.delete(index=f"{fresh_index}-copy", params={"ignore_unavailable": "true"})


@pytest.mark.case("I25")
def test_a_copy_is_exact_enriched_and_takes_over_the_alias(
    client: OpenSearch, fresh_index: str, copy_name: str, tmp_path: Path
) -> None:
    analysis = {"analyzer": {"shout": {"tokenizer": "whitespace", "filter": ["uppercase"]}}}
    mapping = {"title": {"type": "text", "analyzer": "shout"}, "price": {"type": "double"}}
    body = {"settings": {"index.analysis": analysis}, "mappings": {"properties": mapping, "dynamic": "strict"}}
    client.indices.create(index=fresh_index, body=body)
    alias = f"{fresh_index}-alias"
    client.indices.put_alias(index=fresh_index, name=alias)
    for i in range(70):
        exact = b'{ "title" : "item %d", "price" : 1.10000000000000000001 }' % i
        exchange(client, "PUT", f"/{fresh_index}/_doc/d{i}", body=exact)
    client.indices.refresh(index=fresh_index)
    profile = profile_for(toy_models(), ["title"])
    done = run_copy(
        fresh_index,
        Job(
            copy_name,
            profile=profile,
            models=toy_models(),
            client=client,
            settings=IngestSettings(),
            state_folder=tmp_path,
        ),
    )
    assert (done.settled, done.passes, done.old_documents, done.new_documents) == (True, 2, 70, 70)
    raw = exchange(client, "GET", f"/{copy_name}/_doc/d7").body
    assert b'{"title" : "item 7", "price" : 1.10000000000000000001,"_neural":{"stamp":' in raw
    predicted = field_mapping(indices.look(client, copy_name).mapping, "_neural.predicted_queries")
    assert predicted == {"type": "text", "analyzer": "shout"}
    indices.move_alias(client, alias, old=fresh_index, new=copy_name)
    assert indices.look(client, alias).name == copy_name
    with pytest.raises(IndexUnsuitable, match="no alias"):
        indices.move_alias(client, alias, old=fresh_index, new=copy_name)


@pytest.mark.case("I25")
def test_an_index_that_does_not_keep_its_documents_is_not_copied(
    client: OpenSearch, fresh_index: str, copy_name: str, tmp_path: Path
) -> None:
    client.indices.create(index=fresh_index, body={"mappings": {"_source": {"excludes": ["secret"]}}})
    with pytest.raises(IndexUnsuitable, match=r"does not keep its documents whole.*secret"):
        run_copy(
            fresh_index,
            Job(
                copy_name,
                profile=PROFILE,
                models=toy_models(),
                client=client,
                settings=IngestSettings(),
                state_folder=tmp_path,
            ),
        )
    assert not client.indices.exists(index=copy_name)


@pytest.mark.parametrize("stopped_at", [None, 2])
def test_a_copy_that_takes_long_is_asked_for_again_until_it_is_there_or_a_signal_comes(stopped_at: int | None) -> None:
    stopped = Event()
    with fake_cluster() as cluster:

        def answer(request: Recorded) -> Reply | None:
            if not request.path.startswith("/_cluster/health/copied?"):
                return None
            asked = sum("/_cluster/health" in each.path for each in cluster.requests)
            if asked == stopped_at:
                stopped.set()
            late = asked < 4
            return Reply(408 if late else 200, json.dumps({"timed_out": late}).encode())

        cluster.on_request = answer
        wait_for_copies(connect(ClusterSettings(url=cluster.url)), "copied", stopped)
        assert sum("/_cluster/health" in each.path for each in cluster.requests) == (stopped_at or 4)
