"""The demo's index is reset if it holds the same, and made anew if not; tests/integration fills it."""

import json
from pathlib import Path

import msgspec
import pytest

from bridge.cluster.connection import connect
from bridge.demo.collection import INDEX_SETTINGS, PROPERTIES, SEARCHED_FIELDS, application_query, make_index
from bridge.profile import META_KEY
from bridge.settings import ClusterSettings, IngestSettings
from ingest.stages.models import load_models, profile_for
from tests.fake_bulk import FakeCluster, Recorded, Reply, fake_cluster, search_answer
from tests.toys import make_toy_encoder


def test_the_application_searches_fields_that_the_index_has() -> None:
    assert set(SEARCHED_FIELDS) <= PROPERTIES.keys()
    assert application_query("throw dice", size=3)["size"] == 3


def _creating(cluster: FakeCluster) -> None:
    """Lets the cluster create and delete its index, and find documents a and b there."""

    def on_request(request: Recorded) -> Reply | None:
        if request.method == "DELETE":
            return Reply(200, b'{"acknowledged":true}')
        if request.method == "PUT" and request.path == "/docs":
            body = msgspec.json.decode(request.body)
            cluster.mapping, cluster.settings = body["mappings"], {"index": {**INDEX_SETTINGS, "knn": "true"}}
            return Reply(200, b'{"acknowledged":true}')
        if request.path == "/docs/_search":
            wanted = msgspec.json.decode(request.body)["query"]["ids"]["values"]
            return Reply(
                200, json.dumps(search_answer([{"_id": each} for each in wanted if each in "ab"], pit="")).encode()
            )
        return None

    cluster.on_request = on_request


@pytest.mark.parametrize(
    ("documents", "vectors", "methods"),
    [
        ("ab", {}, set()),
        ("abc", {}, set()),
        ("bc", {}, {"DELETE", "PUT"}),
        ("ab", {"data_type": "float"}, {"DELETE", "PUT"}),
    ],
    ids=["the same", "not all yet", "of another Python", "of another encoding"],
)
def test_an_index_of_the_same_documents_stays_and_loses_its_tuning(
    tmp_path: Path, documents: str, vectors: dict[str, str], methods: set[str]
) -> None:
    make_toy_encoder(tmp_path)
    models = load_models(IngestSettings(encoder=str(tmp_path), generator=None))
    profile = profile_for(models, ["name", "text"])
    with fake_cluster() as cluster, connect(ClusterSettings(url=cluster.url)) as client:
        _creating(cluster)
        make_index(client, "docs", profile, models, doc_ids=["a", "b"])
        for doc_id in ("a", "b"):
            cluster.put(doc_id, b"{}")
        cluster.mapping["_meta"][META_KEY]["stages"] = ["lexical"]
        cluster.mapping["properties"]["_neural"]["properties"]["embedding"] |= vectors
        cluster.requests.clear()
        make_index(client, "docs", profile, models, doc_ids=list(documents))
        assert {each.method for each in cluster.requests if each.path == "/docs"} - {"GET", "HEAD"} == methods
        profile_now = cluster.mapping["_meta"][META_KEY]
        assert len(profile_now["stages"]) > 1
        assert profile_now["vector_encoding"] == "byte"
