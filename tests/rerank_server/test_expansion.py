"""Predicted queries over HTTP."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from bridge.models.query_generator import QueryGenerator
from tests.rerank_server.running import Client, running, toy_models
from tests.toys import make_toy_query_generator


@pytest.fixture
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    folder = tmp_path_factory.mktemp("toys")
    generator = QueryGenerator.load(make_toy_query_generator(folder / "generator"), threads=1)
    async with running(replace(toy_models(folder), generator=generator)) as client:
        yield client


async def test_each_text_gets_queries_of_its_own_words_and_the_same_ones_again(client: Client) -> None:
    texts = ["cat dog", "fish", ""] * 5
    request = {"inputs": texts, "n_queries": 4}
    answer = await client.post("/expand", request)
    assert answer.status == 200
    for text, queries in zip(texts, answer.body, strict=True):
        assert all(set(query.split()) <= set(text.split()) for query in queries)
        assert bool(queries) == bool(text)
        assert len(queries) <= 4
    assert (await client.post("/expand", request)).body == answer.body
    assert (await client.get("/info")).body["generator_model_id"].startswith("toy-query-generator@")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"inputs": []}, 400),
        ({"inputs": "a", "n_queries": 0}, 422),
        ({"inputs": "a", "n_queries": 101}, 422),
        ({}, 422),
    ],
)
async def test_wrong_requests_to_expand_are_refused(client: Client, body: object, status: int) -> None:
    assert (await client.post("/expand", body)).status == status


async def test_a_deadline_holds_for_predicting_too(client: Client) -> None:
    answer = await client.post("/expand", {"inputs": ["cat"] * 900}, headers={"x-request-timeout-ms": "1"})
    assert answer.status == 504
    assert await client.metric("bridge_rerank_queue_size") == 0


async def test_without_a_generator_nothing_is_predicted(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with running(toy_models(tmp_path_factory.mktemp("toys"))) as client:
        answer = await client.post("/expand", {"inputs": "cat"})
        assert (answer.status, answer.body["error_type"]) == (404, "not_served")
