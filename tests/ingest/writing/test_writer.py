"""Whatever the cluster does, each document is written once, answered for, or the run stops and says why."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from bridge.cluster.connection import connect
from bridge.errors import (
    AccessDenied,
    AnswerNotUnderstood,
    BridgeError,
    ClusterBlocked,
    ClusterUnreachable,
    IndexUnsuitable,
)
from bridge.settings import ClusterSettings
from ingest.writing.bulk import BulkAction
from ingest.writing.pace import RetryLimits, RunStopped
from ingest.writing.writer import BulkLimits, BulkWriter
from tests.fake_bulk import Action, FakeCluster, Reply, error_body, fake_cluster, refusal

RETRY = RetryLimits(max_stall_s=1.0, backoff_base_s=0.02, backoff_cap_s=0.2)
LIMITS = BulkLimits(bulk_documents=100, concurrency=1, retry=RETRY)


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with fake_cluster() as cluster:
        yield cluster


def writer(cluster: FakeCluster, limits: BulkLimits = LIMITS, stopped: threading.Event | None = None) -> BulkWriter:
    client = connect(ClusterSettings(url=cluster.url))
    return BulkWriter(client, "things", limits, stopped=stopped or threading.Event())


def patient(**change: Any) -> BulkLimits:
    return replace(LIMITS, retry=replace(RETRY, **change))


def actions(n: int) -> list[BulkAction]:
    ids = [f"d{i}" for i in range(n)]
    return [BulkAction("index", i, b'{"index":{"_id":"%s"}}\n{"n":1.10}\n' % i.encode()) for i in ids]


def first_time(ids: Callable[[str], bool], answer: dict[str, Any]) -> Callable[[Action, int], dict[str, Any] | None]:
    return lambda action, n: answer if n == 1 and ids(action.doc_id) else None


@pytest.mark.case("I1")
def test_only_rejected_items_are_sent_again(cluster: FakeCluster) -> None:
    odd = {f"d{i}" for i in range(1, 1000, 2)}
    cluster.on_item = first_time(lambda i: i in odd, refusal(429, "rejected_execution_exception"))
    outcomes = writer(cluster).write(actions(1000))
    assert {outcome.kind for outcome in outcomes} == {"written"}
    assert len(cluster.documents) == 1000
    sent = [i for ids in cluster.sent_ids() for i in ids]
    assert sorted(i for i in sent if sent.count(i) > 1) == sorted([*odd, *odd])


@pytest.mark.case("I2")
def test_retry_after_is_waited_for_and_less_is_asked_next(cluster: FakeCluster) -> None:
    asked = Reply(429, error_body(429, "rejected_execution_exception"), {"Retry-After": "0.5"})
    cluster.on_bulk = lambda n, _: asked if n == 1 else None
    bulk = writer(cluster, replace(LIMITS, concurrency=4))
    bulk.write(actions(100))
    first, second = cluster.bulk_requests()
    assert second.at - first.at >= 0.5
    assert bulk.throttle.requests < 4
    assert bulk.throttle.documents < 100


@pytest.mark.case("I3")
@pytest.mark.parametrize("status", [429, 403])
def test_a_block_is_waited_for_then_ends_the_run_and_is_no_dead_letter(cluster: FakeCluster, status: int) -> None:
    block = refusal(status, "cluster_block_exception", "index [things] blocked by: [TOO_MANY_REQUESTS/12/disk usage]")
    cluster.on_item = lambda _action, _n: block
    began = time.monotonic()
    with pytest.raises(ClusterBlocked, match=r"disk usage.*read_only_allow_delete"):
        writer(cluster).write(actions(3))
    assert 0.9 < time.monotonic() - began < 5
    cluster.on_item = lambda _action, _n: None
    assert [outcome.kind for outcome in writer(cluster).write(actions(3))] == ["written"] * 3


@pytest.mark.case("I4")
def test_unavailable_shards_are_waited_for(cluster: FakeCluster) -> None:
    until = time.monotonic() + 0.5
    unavailable = refusal(503, "unavailable_shards_exception")
    cluster.on_item = lambda _action, _n: unavailable if time.monotonic() < until else None
    outcomes = writer(cluster, patient(max_attempts=50)).write(actions(5))
    assert {outcome.kind for outcome in outcomes} == {"written"}


@pytest.mark.case("I5")
def test_a_poison_document_is_a_dead_letter_with_its_reason(cluster: FakeCluster) -> None:
    poison = {"d7", "d8", "d500"}
    refused = refusal(400, "mapper_parsing_exception", "failed to parse field [n]")
    cluster.on_item = lambda action, _: refused if action.doc_id in poison else None
    outcomes = writer(cluster).write(actions(1000))
    dead = {i: outcome.failure for i, outcome in enumerate(outcomes) if outcome.kind == "dead_lettered"}
    assert sorted(dead) == [7, 8, 500]
    assert all(f and (f.kind, f.status) == ("mapper_parsing_exception", 400) for f in dead.values())
    assert len(cluster.documents) == 997


def short(actions: list[Action]) -> Reply:
    items = [{"index": {"_id": action.doc_id, "status": 201, "result": "created"}} for action in actions[:-5]]
    return Reply(200, json.dumps({"errors": False, "items": items}).encode())


@pytest.mark.case("I6")
def test_an_answer_with_too_few_items_is_asked_again_and_never_a_success(cluster: FakeCluster) -> None:
    cluster.on_bulk = lambda n, actions: short(actions) if n == 1 else None
    assert {outcome.kind for outcome in writer(cluster).write(actions(10))} == {"written"}
    assert [len(ids) for ids in cluster.sent_ids()] == [10, 10]
    cluster.on_bulk = lambda _, actions: short(actions)
    with pytest.raises(AnswerNotUnderstood, match="10 actions were sent, the answer speaks of 5"):
        writer(cluster, patient(max_attempts=3)).write(actions(10))


@pytest.mark.case("I7")
@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(200, b"<html>log in</html>", {"content-type": "text/html"}), id="login-page"),
        pytest.param(Reply(200, b'{"took": 3, "items": [{"index"'), id="truncated"),
        pytest.param(Reply(200, b"{}"), id="another-object"),
    ],
)
def test_what_is_no_bulk_answer_is_not_counted(cluster: FakeCluster, reply: Reply) -> None:
    cluster.on_bulk = lambda _n, _actions: reply
    with pytest.raises(AnswerNotUnderstood, match="not a bulk answer"):
        writer(cluster, patient(max_attempts=2)).write(actions(10))


@pytest.mark.case("I8")
@pytest.mark.parametrize(
    "lost",
    [
        pytest.param(Reply(drop=True, write_first=True), id="reset-after-writing"),
        pytest.param(
            Reply(502, b"bad gateway", {"content-type": "text/html"}, write_first=True), id="502-after-writing"
        ),
    ],
)
def test_a_lost_answer_makes_no_second_document(cluster: FakeCluster, lost: Reply) -> None:
    cluster.on_bulk = lambda n, _: lost if n == 1 else None
    assert {outcome.kind for outcome in writer(cluster).write(actions(20))} == {"written"}
    assert sorted(cluster.documents) == sorted(f"d{i}" for i in range(20))


def test_a_cluster_that_is_gone_ends_the_run_once_it_could_have_restarted() -> None:
    with fake_cluster() as cluster:
        bulk = writer(cluster, patient(max_attempts=2))
    with pytest.raises(ClusterUnreachable, match=r"after \d+ attempts in \d s"):
        bulk.write(actions(1))


def test_a_request_that_is_too_large_is_halved_down_to_the_document(cluster: FakeCluster) -> None:
    def too_large(_: int, sent: list[Action]) -> Reply | None:
        return Reply(413) if len(sent) > 2 or any(action.doc_id == "d5" for action in sent) else None

    cluster.on_bulk = too_large
    outcomes = writer(cluster).write(actions(8))
    assert [outcome.kind for outcome in outcomes] == ["written"] * 5 + ["dead_lettered"] + ["written"] * 2


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        pytest.param(401, "security_exception", AccessDenied, id="401"),
        pytest.param(403, "security_exception", AccessDenied, id="403"),
        pytest.param(404, "index_not_found_exception", IndexUnsuitable, id="no-index"),
    ],
)
def test_what_no_document_can_help_stops_at_once(
    cluster: FakeCluster, status: int, kind: str, expected: type[BridgeError]
) -> None:
    cluster.on_bulk = lambda _n, _actions: Reply(status, error_body(status, kind))
    with pytest.raises(expected):
        writer(cluster).write(actions(3))
    cluster.on_bulk = lambda _n, _actions: None
    cluster.on_item = lambda _action, _n: refusal(status, kind)
    with pytest.raises(expected):
        writer(cluster).write(actions(3))
    assert len(cluster.bulk_requests()) == 2


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        pytest.param({"status": 200, "result": "noop"}, "dropped_by_pipeline", id="pipeline-dropped"),
        pytest.param(refusal(409, "version_conflict_engine_exception"), "superseded", id="newer-version"),
    ],
)
def test_other_ends_have_their_own_account(cluster: FakeCluster, answer: dict[str, Any], kind: str) -> None:
    cluster.on_item = lambda _action, _n: answer
    assert [outcome.kind for outcome in writer(cluster).write(actions(2))] == [kind] * 2


def test_requests_stay_within_bytes_and_documents(cluster: FakeCluster) -> None:
    size = len(actions(1)[0].lines)
    writer(cluster, replace(LIMITS, bulk_bytes=size * 3)).write(actions(9))
    assert [len(ids) for ids in cluster.sent_ids()] == [3, 3, 3]


def test_stopping_ends_a_wait(cluster: FakeCluster) -> None:
    stopped = threading.Event()
    stopped.set()
    cluster.on_item = lambda _action, _n: refusal(429, "rejected_execution_exception")
    with pytest.raises(RunStopped):
        writer(cluster, patient(backoff_base_s=60), stopped).write(actions(1))
