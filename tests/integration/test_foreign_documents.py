"""Documents and indices that applications make in their own ways are enriched whole, or left alone with a reason."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import urllib3
from opensearchpy import ConflictError, OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.connection import connect
from bridge.errors import IndexUnsuitable
from bridge.node.node import EmbeddedNode
from bridge.profile import IndexProfile
from bridge.settings import ClusterSettings, IngestSettings
from ingest.follow.fields import followed_profile
from ingest.follow.follower import Follower
from ingest.follow.state import FollowStatus
from ingest.job import Job
from ingest.runs.backfill import BackfillReport, run_backfill
from ingest.runs.beside import run_beside
from ingest.signals import StopRequest
from ingest.stages.models import Models, profile_for
from tests.ingest.application import TEXT_FIELDS, old_application, planned
from tests.ingest.runs.test_backfill import acting_models
from tests.ingest.toys import toy_models

PREFIX = "neural-bridge."
SETTINGS = IngestSettings(queries_per_passage=3)
CUT = b'{"title":"Rain cape \\ud83d","text":"keeps you dry"}'
CUT_QUERIES = ["what is Rain", "what is cape", "what is �."]


@pytest.fixture
def client(node: EmbeddedNode) -> OpenSearch:
    return connect(ClusterSettings(url=node.url))


def made_for(client: OpenSearch, index: str, **properties: Any) -> None:
    """An index as an application creates it."""
    settings = {"index.knn": True, "index.number_of_replicas": 0}
    client.indices.create(index=index, body={"settings": settings, "mappings": {"properties": properties}})


def put(node: EmbeddedNode, index: str, doc_id: str, raw: bytes) -> None:
    """As an application does that sends these bytes."""
    url = f"{node.url}/{index}/_doc/{doc_id}?refresh=true"
    answer = urllib3.request("PUT", url, body=raw, headers={"Content-Type": "application/json"})
    assert answer.status in (200, 201)


def neural(node: EmbeddedNode, index: str, doc_id: str) -> dict[str, Any]:
    answer = urllib3.request("GET", f"{node.url}/{index}/_doc/{doc_id}?_source=_neural")
    found: dict[str, Any] = json.loads(answer.data)["_source"].get("_neural", {})
    return found


def job(
    client: OpenSearch,
    index: str,
    folder: Path,
    *,
    fields: tuple[str, ...] = ("title", "text"),
    models: Models | None = None,
    settings: IngestSettings = SETTINGS,
) -> Job:
    models = models or toy_models()
    return Job(index, profile_for(models, fields), models, client, settings, folder)


def backfill(client: OpenSearch, index: str, folder: Path, **options: Any) -> BackfillReport:
    report = run_backfill(job(client, index, folder, **options))
    client.indices.refresh(index=index)
    return report


def caught_up(client: OpenSearch, index: str, folder: Path, settings: IngestSettings = SETTINGS) -> FollowStatus:
    models = toy_models()
    profile: IndexProfile = followed_profile(indices.look(client, index), None, models)
    with Follower(Job(index, profile, models, client, settings, folder), StopRequest()) as follower:
        return follower.follow(once=True)


@pytest.mark.case("I39")
def test_half_a_surrogate_pair_costs_no_document_its_enrichment(
    client: OpenSearch, node: EmbeddedNode, fresh_index: str, tmp_path: Path
) -> None:
    old_application(client, fresh_index, 30)
    put(node, fresh_index, "cut", CUT)
    put(node, fresh_index, "elsewhere", b'{"title":"a mug","text":"of clay","maker":"\\udead"}')
    found = planned(client, fresh_index, toy_models(), profile_for(toy_models(), TEXT_FIELDS), settings=SETTINGS)
    assert (found.sampled, found.stale) == (32, 32)
    done = backfill(client, fresh_index, tmp_path / "backfill").report
    assert (done.ledger.written, done.exit_code) == (32, 0)
    assert neural(node, fresh_index, "cut")["predicted_queries"] == CUT_QUERIES
    put(node, fresh_index, "later", CUT)
    assert caught_up(client, fresh_index, tmp_path / "follow").ledger.written == 1
    assert neural(node, fresh_index, "later")["predicted_queries"] == CUT_QUERIES
    assert backfill(client, fresh_index, tmp_path / "again").report.ledger.unchanged == 33


@pytest.mark.case("I53")
@pytest.mark.parametrize("held", [b"\xc0\xaf", b"\xf7\xbf\xbf\xbf"], ids=["overlong", "beyond"])
def test_what_is_no_utf_8_costs_no_document_its_enrichment(
    client: OpenSearch, node: EmbeddedNode, fresh_index: str, ours: str, tmp_path: Path, held: bytes
) -> None:
    made_for(
        client, fresh_index, title={"type": "text"}, text={"type": "text"}, maker={"type": "object", "enabled": False}
    )
    for number in range(30):
        put(node, fresh_index, f"d{number}", b'{"title":"a mug","text":"of clay"}')
    strange = b'{"title":"Rain %b cape","text":"keeps you dry","maker":{"name":"%b"}}' % (held, held)
    put(node, fresh_index, "strange", strange)
    found = planned(client, fresh_index, toy_models(), profile_for(toy_models(), TEXT_FIELDS), settings=SETTINGS)
    assert (found.sampled, found.stale) == (31, 31)
    beside = run_beside(job(client, fresh_index, tmp_path / "beside"), PREFIX)
    assert (beside.report.ledger.written, indices.count(client, ours), beside.report.complete) == (31, 31, True)
    assert strange in urllib3.request("GET", f"{node.url}/{fresh_index}/_doc/strange").data
    done = backfill(client, fresh_index, tmp_path / "backfill").report
    assert (done.ledger.written, done.exit_code) == (31, 0)
    put(node, fresh_index, "later", strange)
    assert caught_up(client, fresh_index, tmp_path / "follow").ledger.written == 1
    assert len(neural(node, fresh_index, "later")["predicted_queries"]) == 3


@pytest.mark.case("I39")
def test_a_companion_holds_every_document_too(
    client: OpenSearch, node: EmbeddedNode, fresh_index: str, ours: str, tmp_path: Path
) -> None:
    old_application(client, fresh_index, 10)
    put(node, fresh_index, "cut", CUT)
    done = run_beside(job(client, fresh_index, tmp_path / "state"), PREFIX)
    assert (done.report.ledger.written, indices.count(client, ours), done.report.complete) == (11, 11, True)
    assert neural(node, ours, "cut")["predicted_queries"] == CUT_QUERIES


@pytest.mark.case("I39")
def test_a_document_that_nests_too_deeply_is_a_dead_letter_alone(
    client: OpenSearch, node: EmbeddedNode, fresh_index: str, ours: str, tmp_path: Path
) -> None:
    made_for(client, fresh_index, title={"type": "text"}, deep={"type": "object", "enabled": False})
    for number in range(30):
        put(node, fresh_index, f"d{number}", b'{"title":"a mug"}')
    nested = b'{"deep":' + b'{"a":' * 995 + b"1" + b"}" * 996
    put(node, fresh_index, "deep", nested)
    done = run_beside(job(client, fresh_index, tmp_path / "state", fields=("title", "deep")), PREFIX)
    assert (done.report.ledger.dead_lettered, indices.count(client, ours)) == (1, 30)


@pytest.mark.case("I40")
def test_half_dotted_keys_are_the_fields_that_the_cluster_takes_them_for(
    client: OpenSearch, node: EmbeddedNode, fresh_index: str, tmp_path: Path
) -> None:
    info = {"properties": {"name": {"type": "text"}}}
    made_for(client, fresh_index, item={"properties": {"info": info}})
    put(node, fresh_index, "half", b'{"item.info":{"name":"rain jacket"}}')
    put(node, fresh_index, "other-half", b'{"item":[{"info.name":"rain jacket"}]}')
    put(node, fresh_index, "both", b'{"item.info.name":"rain","item":{"info":{"name":"jacket"}}}')
    done = backfill(client, fresh_index, tmp_path, fields=("item.info.name",)).report
    assert (done.ledger.written, done.without_text) == (3, 0)
    for doc_id in ("half", "other-half", "both"):
        made = neural(node, fresh_index, doc_id)
        assert sorted(made["predicted_queries"]) == ["what is jacket", "what is rain"]
        assert made["embedding"]
    assert backfill(client, fresh_index, tmp_path, fields=("item.info.name",)).report.ledger.unchanged == 3


@pytest.mark.case("I41")
def test_documents_with_external_versions_are_never_written_in_place(
    client: OpenSearch, node: EmbeddedNode, fresh_index: str, tmp_path: Path
) -> None:
    made_for(client, fresh_index, title={"type": "text"}, text={"type": "text"})

    def write(version: int) -> None:
        external = {"version": version, "version_type": "external", "refresh": "true"}
        client.index(index=fresh_index, id="row", body={"title": "a row", "text": f"at {version}"}, params=external)

    write(5_000)
    before = indices.look(client, fresh_index).mapping
    with pytest.raises(IndexUnsuitable, match="external versions"):
        backfill(client, fresh_index, tmp_path / "backfill")
    assert indices.look(client, fresh_index).mapping == before
    profile = profile_for(toy_models(), TEXT_FIELDS)
    with pytest.raises(IndexUnsuitable, match="external versions"):
        planned(client, fresh_index, toy_models(), profile, settings=SETTINGS, wanted="in_place")
    found = planned(client, fresh_index, toy_models(), profile, settings=SETTINGS)
    assert found.way == "beside"
    assert any("external versions" in reason for reason in found.reasons)
    write(5_001)  # Nothing of ours stands in the application's way.
    allowed = SETTINGS.model_copy(update={"external_versions": "no"})
    assert backfill(client, fresh_index, tmp_path / "backfill", settings=allowed).report.ledger.written == 1
    with pytest.raises(ConflictError):
        write(5_002)
    write(5_003)
    with pytest.raises(IndexUnsuitable, match="external versions"):
        caught_up(client, fresh_index, tmp_path / "follow")


@pytest.mark.case("I41")
def test_a_follower_stops_at_the_first_document_with_an_external_version(
    client: OpenSearch, node: EmbeddedNode, fresh_index: str, tmp_path: Path
) -> None:
    old_application(client, fresh_index, 5)
    backfill(client, fresh_index, tmp_path / "backfill")
    models = toy_models()
    profile = followed_profile(indices.look(client, fresh_index), None, models)
    with Follower(Job(fresh_index, profile, models, client, SETTINGS, tmp_path), StopRequest()) as follower:
        assert follower.follow(once=True).ledger.answered == 5
        external = {"version": 90_000, "version_type": "external", "refresh": "true"}
        client.index(index=fresh_index, id="row", body={"title": "a row"}, params=external)
        with pytest.raises(IndexUnsuitable, match="document row has version 90,000"):
            follower.follow(once=True)
    assert client.get(index=fresh_index, id="row")["_version"] == 90_000


def deleting(client: OpenSearch, index: str, at_call: int, then: Callable[[], None] = lambda: None) -> Models:
    """Models at whose n-th batch somebody deletes the index."""

    def act(call: int) -> None:
        if call == at_call:
            client.indices.delete(index=index)
            then()

    return acting_models(act)


@pytest.mark.case("I44")
def test_a_backfill_of_a_deleted_index_ends_at_once_and_creates_nothing(
    client: OpenSearch, fresh_index: str, tmp_path: Path
) -> None:
    old_application(client, fresh_index, 300)
    began = time.monotonic()
    with pytest.raises(IndexUnsuitable, match="gone"):
        run_backfill(job(client, fresh_index, tmp_path, models=deleting(client, fresh_index, 2)))
    assert time.monotonic() - began < 20
    assert not client.indices.exists(index=fresh_index)


@pytest.mark.case("I44")
def test_a_follower_of_a_deleted_index_ends_at_once_and_creates_nothing(
    client: OpenSearch, fresh_index: str, tmp_path: Path
) -> None:
    old_application(client, fresh_index, 300)
    backfill(client, fresh_index, tmp_path / "backfill")
    lines = [line for i in range(200) for line in ({"index": {"_id": f"d{i}"}}, {"title": "new", "text": f"words {i}"})]
    client.bulk(index=fresh_index, body="".join(json.dumps(line) + "\n" for line in lines), params={"refresh": "true"})
    models = deleting(client, fresh_index, 2)
    profile = followed_profile(indices.look(client, fresh_index), None, models)
    stop = StopRequest()
    with Follower(Job(fresh_index, profile, models, client, SETTINGS, tmp_path / "follow"), stop) as follower:
        ending = threading.Timer(60, stop.ask, (15,))
        ending.start()
        with pytest.raises(IndexUnsuitable, match=r"gone|does not exist"):
            follower.follow()
        ending.cancel()
    assert not client.indices.exists(index=fresh_index)
