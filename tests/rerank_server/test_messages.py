"""Requests as clients really send them; `test_app` has the answers of each dialect."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from rerank_server.errors import InvalidRequest
from rerank_server.messages import EmbeddingsRequest, ExpandRequest, RerankRequest, parse
from rerank_server.models import Models
from tests.rerank_server.running import Client, running, toy_models


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return toy_models(tmp_path_factory.mktemp("toys"))


@pytest.fixture
async def client(models: Models) -> AsyncIterator[Client]:
    async with running(models) as client:
        yield client


def rerank(**fields: Any) -> RerankRequest:
    return parse(json.dumps({"query": "coffee", **fields}).encode(), RerankRequest)


@pytest.mark.case("R25")
@pytest.mark.parametrize(
    ("path", "request_body"),
    [
        ("/v1/embeddings", {"model": "embed-base", "input": "coffee", "encoding_format": None}),
        ("/v1/embeddings", {"input": "coffee", "dimensions": None, "role": None, "model": None, "user": None}),
        ("/embed", {"inputs": ["coffee"], "role": None, "model": None, "truncate": None}),
        ("/rerank", {"query": "coffee", "documents": ["a", "b"], "return_documents": None, "top_n": None}),
        ("/rerank", {"query": "c", "texts": ["a", "b"], "raw_scores": None, "return_text": None, "truncate": None}),
        ("/v2/rerank", {"query": "c", "documents": ["a"], "texts": None, "rank_fields": None, "top_k": None}),
        ("/v1/rerank", {"query": "c", "documents": ["a"], "prior_weight": None, "max_tokens_per_doc": None}),
    ],
)
async def test_null_means_that_a_field_is_not_set(client: Client, path: str, request_body: dict[str, Any]) -> None:
    answer = await client.post(path, request_body)
    unset = await client.post(path, {name: value for name, value in request_body.items() if value is not None})
    assert (answer.status, answer.body) == (200, unset.body)


@pytest.mark.case("R25")
def test_null_in_place_of_what_is_needed_is_named() -> None:
    with pytest.raises(InvalidRequest, match="query: Field required"):
        rerank(query=None, texts=["a"])
    assert parse(b'{"inputs": "a", "n_queries": null}', ExpandRequest).n_queries == 3


@pytest.mark.case("R26")
@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings", "/infinity/embeddings"])
@pytest.mark.parametrize(
    ("request_body", "param", "message"),
    [
        ({"input": [[2748, 1029]]}, "input", "token ids"),
        ({"input": [2748, 1029]}, "input", "token ids"),
        ({"input": [["a", 1]]}, "input", "valid string"),
        ({"input": 5}, "input", "valid string"),
        ({"input": "coffee", "dimensions": 128}, "dimensions", "cannot be shortened"),
        ({"input": "coffee", "dimensions": 0}, "dimensions", "dimensions: "),
        ({"input": "coffee", "encoding_format": "hex"}, "encoding_format", "encoding_format: "),
        ({"input": []}, "input", "at least one text"),
        ({}, "input", "Field required"),
    ],
)
async def test_openais_clients_get_errors_in_their_shape(
    client: Client, path: str, request_body: dict[str, Any], param: str, message: str
) -> None:
    answer = await client.post(path, request_body)
    assert answer.status == 400
    error = answer.body["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert message in error["message"]


@pytest.mark.case("R26")
async def test_the_encoders_own_dimension_may_be_named(client: Client) -> None:
    plain = (await client.post("/v1/embeddings", {"input": "cat"})).body["data"][0]["embedding"]
    named = {"input": "cat", "dimensions": len(plain), "encoding_format": "base64"}
    packed = (await client.post("/v1/embeddings", named)).body["data"][0]["embedding"]
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(packed), "<f4"), plain, rtol=1e-6)


@pytest.mark.case("R27")
async def test_the_root_answers_as_text_embeddings_inference_does(client: Client) -> None:
    assert (await client.post("/", {"inputs": "coffee"})).body == (
        await client.post("/embed", {"inputs": "coffee"})
    ).body
    request_body = {"query": "cat", "texts": ['the "inputs" of a cat', "dog"]}
    assert (await client.post("/", request_body)).body == (await client.post("/rerank", request_body)).body
    assert (await client.post("/", {})).status == 422


@pytest.mark.case("R25")
@pytest.mark.parametrize(
    "more", [{"query": None}, {"inputs": ["query"]}, {"inputs": ['{"query": 1}']}, {"model": "query"}], ids=str
)
async def test_the_one_address_embeds_whatever_the_texts_say(client: Client, more: dict[str, object]) -> None:
    body = {"inputs": ["coffee"], **more}
    answer = await client.post("/", body)
    assert (answer.status, answer.body) == (200, (await client.post("/embed", body)).body)


async def test_the_one_address_ranks_texts_that_speak_of_inputs(client: Client) -> None:
    body = {"query": "inputs", "texts": ['"inputs"'], "inputs": None}
    assert (await client.post("/", body)).body == (await client.post("/rerank", body)).body


@pytest.mark.parametrize("inputs", [[None], [["a", "b"]], [1], {"a": 1}], ids=str)
async def test_texts_that_are_none_are_named_by_their_field(client: Client, inputs: object) -> None:
    answer = await client.post("/embed", {"inputs": inputs})
    assert (answer.status, answer.body["field"]) == (422, "inputs")


@pytest.mark.case("R27")
async def test_infinitys_path_embeds_as_litellm_asks_for_it(client: Client) -> None:
    answer = await client.post("/infinity/embeddings", {"model": "any", "input": ["cat", "dog"]})
    assert [row["index"] for row in answer.body["data"]] == [0, 1]
    assert answer.body["object"] == "list"


@pytest.mark.case("R28")
def test_objects_are_read_by_their_rank_fields() -> None:
    documents = [{"title": "mug", "note": "blue"}, "plain", {"title": "cup", "note": None}]
    assert rerank(documents=documents, rank_fields=["title", "note"]).passages == ["mug\nblue", "plain", "cup"]
    assert rerank(documents=[{"text": "mug", "title": "other"}]).passages == ["mug"]


@pytest.mark.case("R28")
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"documents": [{"title": "mug"}]}, r"documents\.0: a text is needed in text, it has title: .*rank_fields"),
        ({"documents": ["a", {"title": "mug"}], "rank_fields": ["note", "text"]}, r"documents\.1: .* note or text"),
        ({"documents": [{"title": 7}], "rank_fields": ["title"]}, r"documents\.0: a text is needed in title"),
        ({"documents": ["a"], "rank_fields": []}, "rank_fields: "),
    ],
)
def test_an_object_without_a_text_to_read_is_named_with_the_remedy(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        rerank(**fields)


@pytest.mark.case("R28")
async def test_top_k_is_top_n(client: Client) -> None:
    request_body = {"query": "cat", "documents": ["a", "b", "c"], "top_k": 2}
    assert len((await client.post("/v1/rerank", request_body)).body["results"]) == 2
    assert len((await client.post("/v1/rerank", request_body | {"top_n": 1})).body["results"]) == 1
    assert (await client.post("/v1/rerank", request_body | {"top_k": 0})).status == 422


def test_the_schema_lets_fields_that_may_be_left_out_be_null() -> None:
    fields = EmbeddingsRequest.model_json_schema()["properties"]
    assert {"type": "null"} in fields["encoding_format"]["anyOf"]
    assert "anyOf" in fields["input"]
    assert {"type": "null"} not in fields["input"]["anyOf"]


@pytest.mark.case("P54")
def test_half_a_surrogate_pair_becomes_a_replacement_character() -> None:
    asked = parse(rb'{"query":"coffee \ud83d","texts":["rain cape \ud83d","\\ud83d"]}', RerankRequest)

    assert asked.query == "coffee \ufffd"
    assert list(asked.passages) == ["rain cape \ufffd", r"\ud83d"]
