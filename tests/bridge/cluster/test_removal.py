"""Our fields go out of documents round by round; `tests/integration` does it on real nodes."""

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from bridge.cluster.connection import connect
from bridge.cluster.dialects import OpenSearchDialect
from bridge.cluster.removal import drop, undo
from bridge.cluster.schema import new_index
from bridge.errors import ClusterBlocked, IndexUnsuitable
from bridge.profile import IndexProfile, ModelReference, PassageSettings, SparseSettings
from bridge.settings import ClusterSettings
from tests.fake_bulk import FakeCluster, Recorded, Reply, fake_cluster

PROFILE = IndexProfile(["title"], ModelReference("toy", "0" * 12), 4, passages=PassageSettings("nested"))
FIELDS = ["_neural.predicted_queries", "_neural.stamp", "_neural.passages.embedding"]


class Shop:
    """An index whose documents lose our fields: `left` before the first round and after each."""

    def __init__(self, cluster: FakeCluster, left: list[int]) -> None:
        self.mapping: dict[str, Any] = new_index(PROFILE, OpenSearchDialect((3, 6, 0)))["mappings"]
        self.left: Iterator[int] = iter([*left, *[left[-1]] * 20])
        self.updates: list[dict[str, Any]] = []
        self.url = cluster.url
        cluster.on_request = self._answer

    def _answer(self, request: Recorded) -> Reply:
        path = request.path.partition("?")[0]
        if path == "/shop" and request.method == "GET":
            return Reply(200, json.dumps({"shop": {"mappings": self.mapping, "settings": {"index": {}}}}).encode())
        if path == "/shop/_count":
            return Reply(200, json.dumps({"count": next(self.left)}).encode())
        if path == "/shop/_update_by_query":
            self.updates.append(json.loads(request.body))
        if path == "/shop/_mapping":
            self.mapping.update(json.loads(request.body))
        return Reply(200, b"{}")


def test_undo_repeats_until_no_document_holds_our_fields_and_forgets_the_profile() -> None:
    seen: list[tuple[int, int]] = []
    with fake_cluster() as cluster:
        shop = Shop(cluster, [7000, 2000, 0])
        with connect(ClusterSettings(url=shop.url)) as client:
            removed = undo(client, "shop", on_progress=lambda done, total: seen.append((done, total)))
    assert removed.documents == 7000
    assert set(FIELDS) <= set(removed.mapped_fields)
    assert seen == [(5000, 7000), (7000, 7000)]
    assert len(shop.updates) == 2
    assert shop.mapping["_meta"] == {}
    assert {"nested", "exists"} == {kind for query in shop.updates[0]["query"]["bool"]["should"] for kind in query}


def test_documents_with_terms_are_known_by_their_stamps() -> None:
    """Clusters refuse `exists` queries on `rank_features`."""
    with fake_cluster() as cluster:
        shop = Shop(cluster, [3, 0])
        sparse = SparseSettings(ModelReference("sparse", "4" * 12))
        with_terms = msgspec.structs.replace(PROFILE, sparse=sparse)
        shop.mapping = new_index(with_terms, OpenSearchDialect((3, 6, 0)))["mappings"]
        with connect(ClusterSettings(url=shop.url)) as client:
            removed = undo(client, "shop")
    assert "_neural.terms" in removed.mapped_fields
    queried = json.dumps(shop.updates[0]["query"])
    assert ("_neural.stamp" in queried, "_neural.terms" in queried) == (True, False)
    assert "terms" in shop.updates[0]["script"]["params"]["names"]


def test_documents_that_come_back_end_the_run_with_a_remedy() -> None:
    with fake_cluster() as cluster:
        shop = Shop(cluster, [3])
        with connect(ClusterSettings(url=shop.url)) as client, pytest.raises(ClusterBlocked, match="stop the run"):
            undo(client, "shop")
    assert "neural_bridge" in shop.mapping["_meta"]


def test_an_index_without_our_fields_has_nothing_to_undo_or_drop() -> None:
    with fake_cluster() as cluster:
        shop = Shop(cluster, [0])
        with connect(ClusterSettings(url=shop.url)) as client:
            with pytest.raises(IndexUnsuitable, match="nothing to drop"):
                drop(client, "shop", 2)
            shop.mapping["_meta"] = {}
            with pytest.raises(IndexUnsuitable, match="nothing to undo"):
                undo(client, "shop")
