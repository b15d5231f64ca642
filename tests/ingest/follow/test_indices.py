"""Indices come, move and go under a name or a pattern: each is followed where its profile is."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from opensearchpy import OpenSearch, TransportError

from bridge.cluster import companion
from bridge.cluster import index as indices
from bridge.cluster.connection import connect
from bridge.errors import IndexUnsuitable
from bridge.node.node import EmbeddedNode
from bridge.profile import RerankSettings, companion_of
from bridge.settings import ClusterSettings
from ingest.follow.indices import FollowedIndices, FollowRequest
from ingest.follow.pair import FollowerPair
from ingest.job import Job
from ingest.runs.beside import run_beside
from ingest.signals import StopRequest
from ingest.stages.models import profile_for
from tests.ingest.application import TEXT_FIELDS, old_application
from tests.ingest.follow.test_follower import FAST, backfill, eventually
from tests.ingest.toys import toy_models

PREFIX = "neural-bridge."


@pytest.fixture
def client(node: EmbeddedNode) -> OpenSearch:
    return connect(ClusterSettings(url=node.url))


@pytest.fixture
def series(client: OpenSearch, fresh_index: str) -> Iterator[Callable[[int], str]]:
    """The names of indices that a pattern stands for: the numbered ones of a series."""
    yield lambda number: f"{fresh_index}-{number}"
    for number in range(1, 6):
        for name in (f"{fresh_index}-{number}", companion_of(f"{fresh_index}-{number}", PREFIX)):
            client.indices.delete(index=name, params={"ignore_unavailable": "true"})


def beside(client: OpenSearch, index: str, folder: Path) -> None:
    old_application(client, index, 5, knn=False)
    run_beside(Job(index, profile_for(toy_models(), TEXT_FIELDS), toy_models(), client, FAST, folder), PREFIX)


def followed(client: OpenSearch, expression: str, folder: Path, **options: Any) -> FollowRequest:
    return FollowRequest(expression, client, FAST, PREFIX, lambda name, number: folder / name / str(number), **options)


@contextmanager
def following(followed: FollowRequest) -> Iterator[FollowedIndices]:
    """Followers at work until the block ends."""
    stop = StopRequest()
    with FollowedIndices(followed, toy_models(), stop) as followers:
        thread = threading.Thread(target=followers.follow)
        thread.start()
        try:
            yield followers
            assert thread.is_alive()
        finally:
            stop.ask(15)
            thread.join(300)


def entries(client: OpenSearch, index: str) -> set[str]:
    """The ids of the documents whose fields are all in the companion of an index."""
    ours = companion_of(index, PREFIX)
    made = ("embedding", "predicted_queries")
    whole = {"bool": {"filter": [{"exists": {"field": f"_neural.{name}"}} for name in made]}}
    try:
        client.indices.refresh(index=ours)
        hits = client.search(index=ours, body={"size": 100, "query": whole})["hits"]["hits"]
    except TransportError as error:
        if error.status_code not in (404, 503):
            raise
        return set()  # There is none, or its shards have not started.
    return {hit["_id"] for hit in hits}


def test_indices_of_a_pattern_come_and_go_and_each_has_a_companion_like_the_others(
    client: OpenSearch, series: Callable[[int], str], tmp_path: Path
) -> None:
    first, second = series(1), series(2)
    beside(client, first, tmp_path / "backfill")
    chosen = RerankSettings(depth=7)
    ours = companion_of(first, PREFIX)
    indices.put_profile(client, ours, lambda profile: type(profile)(**{**_fields(profile), "rerank": chosen}))
    with following(followed(client, first[:-1] + "*", tmp_path / "state")) as followers:
        old_application(client, second, 3, knn=False)
        eventually(lambda: entries(client, second) == {"d0", "d1", "d2"})
        made = companion.enriched(client, second, PREFIX).profile
        assert made is not None
        assert (made.beside, made.rerank) == (second, chosen)
        assert indices.look(client, second).profile is None
        client.index(index=first, id="new", body={"title": "new", "text": "in the older index"})
        eventually(lambda: "new" in entries(client, first))
        client.indices.delete(index=first)
        eventually(lambda: not client.indices.exists(index=ours))
        client.index(index=second, id="new", body={"title": "new", "text": "in the other"})
        eventually(lambda: "new" in entries(client, second))
        assert {status.index for status in followers.status()} == {second}


def _fields(profile: Any) -> dict[str, Any]:
    return {name: getattr(profile, name) for name in profile.__struct_fields__}


def test_an_index_that_is_made_anew_gets_a_new_companion_and_one_that_is_gone_ends_it(
    client: OpenSearch, series: Callable[[int], str], tmp_path: Path
) -> None:
    index = series(1)
    beside(client, index, tmp_path / "backfill")
    stop = StopRequest()
    with FollowedIndices(followed(client, index, tmp_path / "state"), toy_models(), stop) as followers:
        client.indices.delete(index=index)
        old_application(client, index, 2, knn=False)
        thread = threading.Thread(target=followers.follow)
        thread.start()
        try:
            eventually(lambda: entries(client, index) == {"d0", "d1"})
        finally:
            stop.ask(15)
            thread.join(300)
    with FollowedIndices(followed(client, index, tmp_path / "state"), toy_models(), StopRequest()) as followers:
        client.indices.delete(index=index)
        with pytest.raises(IndexUnsuitable, match=f"{index} is gone"):
            followers.follow()
    assert not client.indices.exists(index=index)
    assert not client.indices.exists(index=companion_of(index, PREFIX))


def test_an_alias_that_moves_on_is_gone_on_with_beside(
    client: OpenSearch, series: Callable[[int], str], tmp_path: Path
) -> None:
    first, second = series(1), series(2)
    beside(client, first, tmp_path / "backfill")
    alias = f"{first}-alias"
    client.indices.put_alias(index=first, name=alias)
    with following(followed(client, alias, tmp_path / "state")):
        old_application(client, second, 3, knn=False)
        moved = [{"remove": {"index": first, "alias": alias}}, {"add": {"index": second, "alias": alias}}]
        client.indices.update_aliases(body={"actions": moved})
        eventually(lambda: entries(client, second) == {"d0", "d1", "d2"})
    assert entries(client, first) == {f"d{n}" for n in range(5)}, "it is there still, and so is its companion"


def test_what_was_undone_is_left_alone_and_the_others_are_gone_on_with(
    client: OpenSearch, series: Callable[[int], str], tmp_path: Path
) -> None:
    first, second = series(1), series(2)
    for name in (first, second):
        beside(client, name, tmp_path / name)
    with following(followed(client, f"{first},{second}", tmp_path / "state")) as followers:
        companion.remove(client, first, PREFIX)
        client.index(index=first, id="new", body={"title": "new", "text": "after the undo"})
        eventually(lambda: {status.index for status in followers.status()} == {second})
        client.index(index=second, id="new", body={"title": "new", "text": "in the other"})
        eventually(lambda: "new" in entries(client, second))
    assert not client.indices.exists(index=companion_of(first, PREFIX))


def test_in_place_and_beside_are_followed_side_by_side_and_a_way_that_is_wanted_must_be_the_one_that_was_begun(
    client: OpenSearch, series: Callable[[int], str], tmp_path: Path
) -> None:
    first, second = series(1), series(2)
    old_application(client, first, 5)
    backfill(client, first, tmp_path / first)
    beside(client, second, tmp_path / second)
    both = f"{first},{second}"
    for name in (first, second):
        client.index(index=name, id="new", body={"title": "new", "text": "came later"})
    with FollowedIndices(followed(client, both, tmp_path / "state"), toy_models(), StopRequest()) as followers:
        pairs: list[FollowerPair] = followers.follow(once=True)
    assert {status.index for pair in pairs for status in pair.status()} == {first, second}
    assert "new" in entries(client, second)
    assert "embedding" in client.get(index=first, id="new")["_source"]["_neural"]
    for name, wanted in ((first, "beside"), (second, "in_place")):
        with pytest.raises(IndexUnsuitable, match="already: leave out --"):
            followed(client, name, tmp_path / "state", wanted=wanted).profiles()
    old_application(client, series(3), 1)
    with pytest.raises(IndexUnsuitable, match="begin with `neural-bridge backfill"):
        followed(client, series(3), tmp_path / "state").profiles()
