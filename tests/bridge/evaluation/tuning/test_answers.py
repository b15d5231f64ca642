"""One query's answers: each request is sent once, and a request that fails ends the tuning."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from bridge.cluster.connection import connect
from bridge.errors import AnswerNotUnderstood, CascadeMissing
from bridge.evaluation.tuning.answers import AverageTime, ClusterAndSidecar, EncodedQuery
from bridge.evaluation.tuning.setting import Setting
from bridge.model_servers.client import SidecarClient
from bridge.profile import ImageSettings, ModelReference, SparseSettings
from bridge.records import Hit, Passage
from bridge.settings import ClusterSettings
from tests.bridge.evaluation.tuning.by_hand import PROFILE, Written, search, trials
from tests.fake_bulk import FakeCluster, Reply, fake_cluster


def json_reply(value: Any) -> Reply:
    return Reply(body=json.dumps(value).encode())


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with fake_cluster() as running:
        yield running


@pytest.fixture
def sidecar() -> Iterator[FakeCluster]:
    """Without a small cross-encoder."""
    answers = {
        "/info": {"embedding_model_ids": [PROFILE.encoder.identity]},
        "/embed": [[1.0] * PROFILE.dimension],
        "/embed_sparse": [[{"index": 7, "value": 2.0, "token": "shoe"}]],
        "/rerank": [{"index": 1, "score": 2.0}, {"index": 0, "score": 1.0}],
    }
    with fake_cluster() as running:
        running.on_request = lambda request: json_reply(answers[request.path])
        yield running


@pytest.fixture
def source(cluster: FakeCluster, sidecar: FakeCluster) -> Iterator[ClusterAndSidecar]:
    with ExitStack() as running:
        client = running.enter_context(connect(ClusterSettings(url=cluster.url)))
        models = running.enter_context(SidecarClient(sidecar.url))
        yield ClusterAndSidecar(client, models, "products", PROFILE, {"routing": "r"})


LEGS = {"lexical": {"query": {"match": {"body": "shoe"}}}, "vector": {"query": {"match_all": {}}}}


def leg(*doc_ids: str) -> dict[str, Any]:
    hits = [{"_index": "products", "_id": doc_id, "_score": 1.0} for doc_id in doc_ids]
    return {"status": 200, "_shards": {"total": 1, "failed": 0}, "hits": {"hits": hits}}


def test_all_legs_go_in_one_request_with_the_scope_of_the_search(
    source: ClusterAndSidecar, cluster: FakeCluster
) -> None:
    cluster.on_request = lambda _: json_reply({"responses": [leg("a", "b"), leg("c")]})
    assert source.search(LEGS, PROFILE, EncodedQuery()) == {
        "lexical": [Hit("products", "a", 1.0), Hit("products", "b", 1.0)],
        "vector": [Hit("products", "c", 1.0)],
    }
    [request] = cluster.requests
    assert request.path == "/products/_msearch"
    header, first, _, second = map(json.loads, request.body.splitlines())
    assert (header["routing"], first, second) == ("r", LEGS["lexical"], LEGS["vector"])


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (
            json_reply({"responses": [leg("a"), {"status": 400, "error": {"type": "parsing_exception"}}]}),
            "index products: the vector leg failed: malformed: parsing_exception",
        ),
        (Reply(503, b"busy"), "index products: the cluster answered _msearch with status 503: b'busy'"),
    ],
)
def test_a_leg_or_a_request_that_fails_is_an_error(
    answer: Reply, told: str, source: ClusterAndSidecar, cluster: FakeCluster
) -> None:
    cluster.on_request = lambda _: answer
    with pytest.raises(AnswerNotUnderstood, match=told):
        source.search(LEGS, PROFILE, EncodedQuery())


def test_texts_are_read_by_document(source: ClusterAndSidecar, cluster: FakeCluster) -> None:
    hit = {"_index": "products", "_id": "a", "_source": {"body": "red shoe"}}
    cluster.on_request = lambda _: json_reply({"hits": {"hits": [hit]}})
    read = source.read([("products", "gone"), ("products", "a")], None, passages=1)
    assert read == {("products", "a"): [Passage("red shoe", 0, 8)]}


def test_an_index_without_vectors_asks_for_no_embedding(source: ClusterAndSidecar, sidecar: FakeCluster) -> None:
    assert source.embed("red shoe") == [1.0] * PROFILE.dimension
    asked = len(sidecar.requests)
    words_alone = replace(source, profile=msgspec.structs.replace(PROFILE, vector_type="none"))
    assert words_alone.embed("red shoe") is None
    assert len(sidecar.requests) == asked


def test_the_querys_terms_are_asked_for_if_documents_have_terms(
    source: ClusterAndSidecar, sidecar: FakeCluster
) -> None:
    assert source.weigh("red shoe") is None
    sparse = SparseSettings(ModelReference("sparse", "2" * 12))
    weighed = replace(source, profile=msgspec.structs.replace(PROFILE, sparse=sparse))
    assert weighed.weigh("red shoe") == {"shoe": 2.0}
    assert [request.path for request in sidecar.requests][-1] == "/embed_sparse"


def test_the_querys_embedding_for_pictures_is_asked_for_if_documents_have_some(
    source: ClusterAndSidecar, sidecar: FakeCluster
) -> None:
    assert source.embed_for_images("red shoe") is None
    image = ImageSettings("photo", ModelReference("image-encoder", "3" * 12), 8)
    pictured = replace(source, profile=msgspec.structs.replace(PROFILE, image=image))
    assert pictured.embed_for_images("red shoe") == [1.0] * PROFILE.dimension
    assert json.loads(sidecar.requests[-1].body)["model"] == image.encoder.identity


def test_the_large_model_scores_in_the_order_of_the_passages_and_a_small_one_has_to_be_there(
    source: ClusterAndSidecar, sidecar: FakeCluster
) -> None:
    assert source.score("shoe", ["red", "blue"], small=False) == [1.0, 2.0]
    asked = len(sidecar.requests)
    with pytest.raises(CascadeMissing):
        source.score("shoe", ["red", "blue"], small=True)
    assert len(sidecar.requests) == asked


def test_documents_are_read_once() -> None:
    remembered = search("q0", text_rank=3, vector_rank=4)
    tried = trials([remembered])
    setting = Setting.of(PROFILE, "rerank")
    for depth in (10, 20, 10):
        tried.of(replace(setting, depth=depth))
    assert isinstance(source := remembered.source, Written)
    assert len(source.scored) == len(set(source.scored)) == 20


def test_the_same_leg_with_another_size_is_answered_from_memory() -> None:
    remembered = search("q0", text_rank=3, vector_rank=None)
    body = {"query": {"match": {"body": "never measured"}}}

    def ids(size: int) -> Sequence[str]:
        hits_of = asyncio.run(remembered.search({"lexical": {**body, "size": size}}))
        return [hit.doc_id for hit in hits_of["lexical"]]

    assert ids(2) == ["t0", "t1"]
    remembered.source = Written((), (), {}, {})
    assert ids(4) == ["t0", "t1", "z", "t2"]


def test_an_average_is_of_things_and_not_of_requests() -> None:
    average = AverageTime()
    assert average.each_ms == 0.0
    average.add(30.0, 9)
    average.add(10.0, 1)
    assert average.each_ms == 4.0
