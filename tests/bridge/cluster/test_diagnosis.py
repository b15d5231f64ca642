"""What the doctor finds, one trouble at a time, on a cluster that answers by script."""

import json
from typing import Any

import msgspec
import pytest

from bridge.cluster.connection import connect
from bridge.cluster.diagnosis import Beside, Diagnosis, Finding, examine
from bridge.errors import AccessDenied, AnswerNotUnderstood
from bridge.profile import BESIDE_KEY, META_KEY, IndexProfile, ModelReference
from bridge.settings import ClusterSettings, IngestSettings, Settings
from tests.fake_bulk import FakeCluster, Recorded, Reply, error_body, fake_cluster

PROFILE = IndexProfile(["title"], ModelReference("toy", "0" * 12), 4)
HEALTHY: dict[str, Any] = {
    "/": {"version": {"distribution": "opensearch", "number": "2.19.1"}},
    "/_cat/plugins": [{"component": "opensearch-knn", "version": "2.19.1.0"}],
    "/_plugins/_knn/stats": {"circuit_breaker_triggered": False},
    "/_cluster/health": {"status": "green", "unassigned_shards": 0},
    "/_cluster/state/blocks": {"blocks": {}},
    "/_nodes/http": {"nodes": {"a": {"http": {"max_content_length_in_bytes": 104857600}}}},
    "/_plugins/_security/authinfo": {"user_name": "ingest", "roles": ["writer"]},
    "/_mapping": {"shop": {"mappings": {"_meta": {"neural_bridge": PROFILE.to_meta()}}}},
    "/shop/_count": {"count": 12},
}


def answering(cluster: FakeCluster, changed: dict[str, Any]) -> None:
    """Lets the cluster answer as a healthy one, but for the paths in `changed`."""
    answers = HEALTHY | changed

    def answer(request: Recorded) -> Reply:
        found = answers.get(request.path.partition("?")[0])
        if isinstance(found, Reply):
            return found
        return Reply(404, b"{}") if found is None else Reply(200, json.dumps(found).encode())

    cluster.on_request = answer


def examined(changed: dict[str, Any], **settings: Any) -> Diagnosis:
    with fake_cluster() as cluster:
        answering(cluster, changed)
        chosen = Settings(cluster=ClusterSettings(url=cluster.url), **settings)
        with connect(chosen.cluster) as client:
            return examine(client, chosen)


def of(found: Diagnosis, subject: str) -> Finding:
    [finding] = [finding for finding in found.findings if finding.subject == subject]
    return finding


def test_a_healthy_cluster_is_fit_and_everything_is_told() -> None:
    found = examined({})
    assert found.is_fit
    assert {finding.level for finding in found.findings} == {"ok"}
    assert (found.distribution, found.version, found.vector_engines) == ("opensearch", "2.19.1", ["lucene", "faiss"])
    assert [(index.name, index.documents, index.enriched) for index in found.indices] == [("shop", 12, 12)]
    assert "ingest, with the roles writer" in of(found, "security").message


@pytest.mark.parametrize(
    ("changed", "subject", "level", "told"),
    [
        pytest.param({"/_cat/plugins": []}, "vectors", "note", "without vectors", id="no-knn"),
        pytest.param({"/_cat/plugins": Reply(403, b"{}")}, "vectors", "ok", "assumed", id="plugins-hidden"),
        pytest.param(
            {"/_plugins/_knn/stats": {"circuit_breaker_triggered": True}},
            "vector memory",
            "problem",
            "open",
            id="breaker",
        ),
        pytest.param(
            {"/_cluster/health": {"status": "red", "unassigned_shards": 3}}, "health", "problem", "3 shards", id="red"
        ),
        pytest.param({"/_cluster/health": Reply(403, b"{}")}, "health", "note", "may not read", id="health-hidden"),
        pytest.param(
            {"/_cluster/state/blocks": {"blocks": {"global": {"6": {"description": "read-only"}}}}},
            "write blocks",
            "problem",
            "read-only",
            id="read-only-cluster",
        ),
        pytest.param(
            {"/_cluster/state/blocks": {"blocks": {"indices": {"shop": {"12": {"description": "disk usage"}}}}}},
            "write blocks",
            "note",
            "index shop: disk usage",
            id="flood-stage",
        ),
        pytest.param(
            {"/_nodes/http": {"nodes": {"a": {"http": {"max_content_length_in_bytes": 1048576}}}}},
            "request size",
            "problem",
            "1,048,576",
            id="small-requests",
        ),
        pytest.param({"/_plugins/_security/authinfo": Reply(400, b"{}")}, "security", "note", "off", id="no-security"),
        pytest.param(
            {"/_mapping": {"shop": {"mappings": {"_meta": {"neural_bridge": {"version": 99}}}}}},
            "index shop",
            "problem",
            "version 99",
            id="profile-of-the-future",
        ),
        pytest.param(
            {"/shop/_count": Reply(400, error_body(400, "index_closed_exception", "closed"))},
            "index shop",
            "note",
            "cannot be counted",
            id="closed-index",
        ),
        pytest.param(
            {"/": {"version": {"distribution": "opensearch", "number": "1.0.0"}}},
            "version",
            "problem",
            "older",
            id="old",
        ),
    ],
)
def test_a_trouble_is_told_with_its_remedy(changed: dict[str, Any], subject: str, level: str, told: str) -> None:
    found = examined(changed)
    finding = of(found, subject)
    assert finding.level == level
    assert told in finding.message
    assert found.is_fit == (level != "problem")


def test_bulk_requests_must_fit_the_nodes() -> None:
    limits = {"/_nodes/http": {"nodes": {"a": {"http": {"max_content_length_in_bytes": 10_000_000}}}}}
    assert examined(limits).is_fit
    assert of(examined(limits, ingest=IngestSettings(bulk_bytes=20_000_000)), "request size").level == "problem"


def test_what_cannot_be_examined_is_an_error() -> None:
    with pytest.raises(AnswerNotUnderstood):
        examined({"/": {"hello": "world"}})
    with pytest.raises(AccessDenied):
        examined({"/": Reply(401, b"{}")})


def test_a_change_of_models_is_told_of_an_index() -> None:
    other = msgspec.structs.replace(PROFILE, encoder=ModelReference("new", "1" * 12), generation=2)
    meta = {META_KEY: PROFILE.to_meta(), BESIDE_KEY: other.to_meta()}
    found = examined({"/_mapping": {"shop": {"mappings": {"_meta": meta}}}})
    [index] = found.indices
    assert (index.generation, index.beside) == (1, Beside(2, 12, other.encoder.identity))
    assert "generation 2 by new@111111111111 stands beside, in 12 documents" in of(found, "index shop").message


def test_a_cluster_without_vectors_is_fit_and_says_what_works() -> None:
    found = examined({"/_cat/plugins": []})
    assert (found.is_fit, found.vector_engines) == (True, [])
    finding = of(found, "vectors")
    assert "predicted queries and reranking work, without vectors" in finding.message
    assert "opensearch-knn" in (finding.remedy or "")


@pytest.mark.case("S4")
def test_a_role_that_hides_a_text_and_shows_what_was_made_of_it_is_a_problem() -> None:
    roles = {"reader": {"index_permissions": [{"index_patterns": ["shop"], "fls": ["~title"]}]}}

    found = of(examined({"/_plugins/_security/api/roles": roles}), "field rules of shop")

    assert (found.level, found.remedy) == ("problem", "hide _neural and _neural.* from the role as well")
    assert "role reader protects title" in found.message
