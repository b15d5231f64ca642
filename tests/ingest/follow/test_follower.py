"""What an application writes is enriched while it writes, whatever it does, and across restarts."""

import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opensearchpy import NotFoundError, OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.connection import connect
from bridge.cluster.generations import next_generation
from bridge.node.node import EmbeddedNode
from bridge.settings import ClusterSettings, IngestSettings
from ingest.follow.fields import followed_profile
from ingest.follow.follower import Follower
from ingest.follow.state import FollowStatus
from ingest.job import Job
from ingest.runs.backfill import run_backfill
from ingest.runs.ingest import tuned_for_load
from ingest.signals import StopRequest
from ingest.stages.models import Models, profile_for
from tests.ingest.application import TEXT_FIELDS, old_application, source
from tests.ingest.toys import toy_models

FAST = IngestSettings(follow_interval_s=0.2, queries_per_passage=3)
PATIENCE_S = 120.0


@pytest.fixture
def client(node: EmbeddedNode) -> OpenSearch:
    return connect(ClusterSettings(url=node.url))


def backfill(client: OpenSearch, index: str, folder: Path, models: Models | None = None) -> None:
    models = models or toy_models()
    state, wanted = indices.look(client, index), profile_for(models, TEXT_FIELDS)
    run_backfill(
        Job(
            index,
            profile=next_generation(state, wanted) if state.profile else wanted,
            models=models,
            client=client,
            settings=FAST,
            state_folder=folder,
        ),
    )
    client.indices.refresh(index=index)


def follower(client: OpenSearch, index: str, folder: Path, **options: Any) -> Follower:
    models, settings = options.pop("models", toy_models()), options.pop("settings", FAST)
    profile = followed_profile(indices.look(client, index), options.pop("generation", None), models)
    return Follower(Job(index, profile, models, client, settings, folder), options.pop("stop", StopRequest()))


def caught_up(client: OpenSearch, index: str, folder: Path, **options: Any) -> FollowStatus:
    """What one round that ends did."""
    with follower(client, index, folder, **options) as following:
        return following.follow(once=True)


def is_enriched(document: dict[str, Any]) -> bool:
    """Whether our object fits what the document says now: the toy predicts its first words."""
    words = f"{document.get('title', '')}. {document.get('text', '')}".split()[: FAST.queries_per_passage]
    return bool(document.get("_neural", {}).get("predicted_queries") == [f"what is {word}" for word in words])


def eventually(what: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.2)


class Following:
    """A follower at work on a thread of its own, until the block ends."""

    def __init__(self, following: Follower, stop: StopRequest) -> None:
        self.follower = following
        self.statuses: list[FollowStatus] = []
        self._stop = stop
        self._thread = threading.Thread(target=self._follow)

    def _follow(self) -> None:
        with self.follower:
            self.last = self.follower.follow(on_status=self.statuses.append)

    def __enter__(self) -> "Following":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.ask(15)
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


@pytest.fixture
def enriched_index(client: OpenSearch, fresh_index: str, tmp_path: Path) -> str:
    """An index which an application wrote and a backfill enriched."""
    old_application(client, fresh_index, 60)
    backfill(client, fresh_index, tmp_path / "backfill")
    return fresh_index


def test_every_way_to_write_is_noticed_and_nothing_else_is_touched(
    client: OpenSearch, enriched_index: str, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    first = caught_up(client, enriched_index, state)
    assert (first.ledger.written, first.ledger.unchanged) == (0, 60)

    client.index(index=enriched_index, id="new", body={"title": "new", "text": "came later"})
    client.index(index=enriched_index, id="d1", body={"title": "whole", "text": "replaced, our object with it"})
    client.update(index=enriched_index, id="d2", body={"doc": {"text": "another text and an old stamp"}})
    client.update(index=enriched_index, id="d3", body={"doc": {"stock": 9}})
    kept = source(client, enriched_index, "d4")
    client.index(index=enriched_index, id="d4", body={**kept, "text": "read, changed and written back whole"})
    client.delete(index=enriched_index, id="d5")
    lines = [{"index": {"_id": "bulk"}}, {"title": "bulk", "text": "by bulk"}, {"update": {"_id": "d6"}}]
    lines.append({"doc": {"title": "also by bulk"}})
    client.bulk(index=enriched_index, body="".join(json.dumps(line) + "\n" for line in lines))

    second = caught_up(client, enriched_index, state)
    assert (second.ledger.written, second.ledger.unchanged) == (6, 1)
    for doc_id in ("new", "d1", "d2", "d4", "bulk", "d6"):
        assert is_enriched(source(client, enriched_index, doc_id)), doc_id
    assert source(client, enriched_index, "d3")["stock"] == 9
    with pytest.raises(NotFoundError):
        client.get(index=enriched_index, id="d5")

    third = caught_up(client, enriched_index, state)
    assert (third.ledger.written, third.ledger.unchanged) == (0, 6), "its own writes are read once more"
    assert caught_up(client, enriched_index, state).ledger.read == 0


@pytest.mark.case("I23")
def test_an_application_that_writes_all_the_time_is_kept_up_with_and_loses_nothing(
    client: OpenSearch, enriched_index: str, tmp_path: Path
) -> None:
    stop = StopRequest()
    with Following(follower(client, enriched_index, tmp_path / "state", stop=stop), stop) as following:
        for turn in range(1, 6):
            for number in range(0, 60, 4):
                body = {"doc": {"stock": turn, "text": f"version {turn} of {number}"}}
                # As docs/how-to/enrich.md says: a merge that meets the follower's write has to be made again.
                merge = {"retry_on_conflict": 5}
                client.update(index=enriched_index, id=f"d{number}", body=body, params=merge)
            client.index(index=enriched_index, id=f"new{turn}", body={"title": "new", "text": f"in turn {turn}"})
            client.delete(index=enriched_index, id=f"d{4 * turn + 1}")
        written = [*(f"d{number}" for number in range(0, 60, 4)), *(f"new{turn}" for turn in range(1, 6))]
        eventually(lambda: all(is_enriched(source(client, enriched_index, doc_id)) for doc_id in written))
        eventually(lambda: following.follower.status().lag_s < 5)
    assert following.last.ledger.dead_lettered == 0
    assert following.last.ledger.read == following.last.ledger.answered
    for number in range(0, 60, 4):
        stored = source(client, enriched_index, f"d{number}")
        assert (stored["stock"], stored["text"]) == (5, f"version 5 of {number}")
    client.indices.refresh(index=enriched_index)
    assert indices.count(client, enriched_index) == 60


def test_a_restart_goes_on_where_it_was_and_without_its_state_looks_at_everything_once(
    client: OpenSearch, enriched_index: str, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    caught_up(client, enriched_index, state)
    client.update(index=enriched_index, id="d7", body={"doc": {"text": "written while nobody followed"}})
    assert caught_up(client, enriched_index, state).ledger.written == 1
    (state / "followed").write_bytes(b"damaged")
    rescanned = caught_up(client, enriched_index, state)
    assert (rescanned.ledger.written, rescanned.ledger.unchanged) == (0, 60)


@pytest.mark.parametrize("interval", [None, "30s"])
def test_what_is_written_shows_after_a_run_that_was_killed_while_it_had_turned_refreshing_off(
    client: OpenSearch, enriched_index: str, tmp_path: Path, interval: str | None
) -> None:
    client.indices.put_settings(index=enriched_index, body={"index.refresh_interval": interval})
    before = indices.look(client, enriched_index)
    killed = tuned_for_load(client, enriched_index, is_empty=True)
    killed.__enter__()
    assert indices.look(client, enriched_index).settings["refresh_interval"] == "-1"

    caught_up(client, enriched_index, tmp_path / "follow")

    after = indices.look(client, enriched_index)
    assert (after.settings.get("refresh_interval"), after.mapping["_meta"]) == (interval, before.mapping["_meta"])
    killed.__exit__(None, None, None)


def test_a_shard_that_was_not_read_to_its_end_is_gone_on_with(
    client: OpenSearch, enriched_index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.follow.follower.ROUND_DOCUMENTS", 7)
    client.index(index=enriched_index, id="new", body={"title": "new", "text": "came last"})
    statuses: list[FollowStatus] = []
    with follower(client, enriched_index, tmp_path / "state") as following:
        last = following.follow(once=True, on_status=statuses.append)
    assert last.ledger.read == 61
    assert len(statuses) == 9
    assert is_enriched(source(client, enriched_index, "new"))


def test_it_gives_way_while_searches_are_slow(client: OpenSearch, enriched_index: str, tmp_path: Path) -> None:
    stop = StopRequest()
    nothing_is_fast_enough = FAST.model_copy(update={"max_search_ms": 1e-9})
    loop = "double d = 0; for (int i = 0; i < 100000; i++) { d += i } return d"
    slow = {"script_score": {"query": {"match_all": {}}, "script": {"source": loop}}}
    caught_up(client, enriched_index, tmp_path / "state")
    waiting = follower(client, enriched_index, tmp_path / "state", settings=nothing_is_fast_enough, stop=stop)
    with Following(waiting, stop) as following:

        def has_waited() -> bool:
            # Again and again: only a round with both a new change and searches since the one before gives way.
            client.update(index=enriched_index, id="d7", body={"doc": {"text": f"at {time.monotonic()}"}})
            client.search(index=enriched_index, body={"query": slow}, params={"request_cache": "false"})
            return any(status.waiting and "searches" in status.waiting for status in following.statuses)

        eventually(has_waited)
        eventually(lambda: is_enriched(source(client, enriched_index, "d7")))


def test_it_waits_while_the_cluster_is_away_and_then_goes_on(
    client: OpenSearch, enriched_index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = StopRequest()
    following = follower(client, enriched_index, tmp_path / "state", stop=stop)
    port = closed_port()
    away = connect(ClusterSettings(url=f"http://127.0.0.1:{port}"))
    # The follower's own client, pointed elsewhere: what it meets is a connection that is refused.
    connection = client.transport.get_connection()
    with Following(following, stop) as watched:
        eventually(lambda: bool(watched.statuses))
        monkeypatch.setattr(client.transport, "get_connection", away.transport.get_connection)
        eventually(lambda: (watched.follower.status().waiting or "").startswith("the cluster"))
        monkeypatch.setattr(client.transport, "get_connection", lambda: connection)
        client.update(index=enriched_index, id="d7", body={"doc": {"text": "written after the outage"}})
        eventually(lambda: is_enriched(source(client, enriched_index, "d7")))
    assert watched.follower.status().waiting is None


def closed_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
