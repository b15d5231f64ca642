"""Clients of the Model Context Protocol and of OpenAI, unchanged, at indices that are enriched in place and beside."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest
from mcp.client.client import Client

from bridge.node.node import EmbeddedNode
from bridge.search.context import n_tokens
from bridge.text import enriched_text
from tests.proxy_stack import NESTED, PREFIX, ProxyStack
from tests.servers import client, unused_index_name

# Warnings of other people's libraries are none of ours.
pytestmark = [pytest.mark.slow, pytest.mark.node, pytest.mark.filterwarnings("ignore")]

FLOW = "Supersonic flow over a wing. The pressure on a plate rises with heat."
DOCUMENTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "wing": ({"title": "wing pressure", "body": FLOW, "lang": "en", "n": 1}, ["shock layer"]),
    "copy": ({"title": "Wing pressure", "body": FLOW, "lang": "en", "n": 2}, ["shock layer"]),
    "shoe": ({"title": "red shoe", "body": "A cheap red shoe. It is for the garden.", "lang": "en", "n": 3}, []),
    "dress": ({"title": "blue dress", "body": "Blue as the sea. Made for summer.", "lang": "de", "n": 4}, []),
    "file": ({"title": "read file", "body": "Open a file and read a line. Then close it.", "lang": "de", "n": 5}, []),
}
PROPERTIES = {"lang": {"type": "keyword"}, "n": {"type": "integer"}}


@pytest.fixture(scope="module", params=["in place", "beside"])
def index(node: EmbeddedNode, stack: ProxyStack, request: pytest.FixtureRequest) -> Iterator[str]:
    """An enriched index whose documents have several passages each."""
    name = unused_index_name()
    fill = stack.fill if request.param == "in place" else stack.fill_beside
    with client(node.url) as direct:
        fill(direct, name, DOCUMENTS, properties=PROPERTIES, settings={"number_of_replicas": 0}, passages=NESTED)
        yield name
        direct.indices.delete(index=f"{name},{PREFIX}{name}", params={"ignore_unavailable": "true"})


def text_of(doc_id: str) -> str:
    """What passages of the document are cut from."""
    document = DOCUMENTS[doc_id][0]
    return enriched_text({"title": document["title"], "body": document["body"]})


def openai_client(stack: ProxyStack) -> openai.OpenAI:
    return openai.OpenAI(api_key="any", base_url=f"{stack.admin_url}/_bridge/openai/v1", timeout=60, max_retries=0)


async def call(session: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await session.call_tool(tool, arguments)
    assert not result.is_error, result.content
    content: dict[str, Any] = result.structured_content
    return content


@pytest.mark.parametrize("mode", ["legacy", "auto", "2026-07-28"])
async def test_a_client_of_the_model_context_protocol_finds_tools_and_passages(
    stack: ProxyStack, index: str, mode: str
) -> None:
    async with Client(f"{stack.admin_url}/_bridge/mcp", mode=mode) as session:
        assert [tool.name for tool in (await session.list_tools()).tools] == ["search", "passages", "describe_index"]

        found = await call(session, "passages", index=index, question="pressure on a wing", max_tokens=60)

        assert found["degraded"] == []
        assert found["near_duplicates"] == 1
        assert {"wing", "copy"} & {passage["doc_id"] for passage in found["passages"]}
        assert sum(n_tokens(passage["text"]) for passage in found["passages"]) == found["tokens"] <= 60
        for passage in found["passages"]:
            assert passage["index"] == index
            assert passage["text"] == text_of(passage["doc_id"])[passage["start"] : passage["end"]]


async def test_documents_come_whole_within_the_budget_and_meet_the_filter(stack: ProxyStack, index: str) -> None:
    async with Client(f"{stack.admin_url}/_bridge/mcp") as session:
        wanted = {"index": index, "question": "read a file", "filter": {"term": {"lang": "de"}}}
        found = await call(session, "search", **wanted)
        titles = await call(session, "search", **wanted, fields=["title"])
        told = await call(session, "describe_index", index=index)

    assert [document["doc_id"] for document in found["documents"]] == ["file", "dress"]
    assert found["documents"][0]["source"] == DOCUMENTS["file"][0]
    assert titles["documents"][0]["source"] == {"title": "read file"}
    assert (told["documents"], told["text_fields"]) == (len(DOCUMENTS), ["title", "body"])
    assert told["enriched_with"] == ["predicted_queries", "vectors"]


def test_openais_client_searches_an_index_as_a_vector_store(stack: ProxyStack, index: str) -> None:
    of_n = [{"type": "gte", "key": "n", "value": 4}, {"type": "eq", "key": "n", "value": 3}]
    wanted: Any = {
        "type": "and",
        "filters": [
            {"type": "in", "key": "lang", "value": ["en", "de"]},
            {"type": "or", "filters": of_n},
            {"type": "ne", "key": "lang", "value": "en"},
        ],
    }
    with openai_client(stack) as through:
        found = through.vector_stores.search(index, query=["read a file", "red shoe"], max_num_results=5)
        filtered = through.vector_stores.search(index, query="red shoe", filters=wanted)

    assert {found.data[0].file_id, found.data[1].file_id} == {"file", "shoe"}
    assert {each.file_id for each in filtered.data} == {"dress", "file"}
    for each in found.data:
        assert each.attributes is not None
        cut = slice(int(each.attributes["start"]), int(each.attributes["end"]))
        assert each.content[0].text == text_of(each.file_id)[cut]


def test_openais_client_gets_the_encoders_embeddings(stack: ProxyStack) -> None:
    texts = ["wing pressure", "red shoe"]
    expected = stack.encoder.encode(texts, role="query")
    with openai_client(stack) as through:
        packed = through.embeddings.create(model=stack.encoder.identity, input=texts)
        plain = through.embeddings.create(model=stack.encoder.identity, input=texts[0], encoding_format="float")
        with pytest.raises(openai.BadRequestError, match="dimensions"):
            through.embeddings.create(model=stack.encoder.identity, input=texts, dimensions=1)

    np.testing.assert_allclose([each.embedding for each in packed.data], expected, atol=1e-6)
    np.testing.assert_allclose(plain.data[0].embedding, expected[0], atol=1e-6)


def test_openais_client_raises_its_own_errors(stack: ProxyStack) -> None:
    with openai_client(stack) as through:
        with pytest.raises(openai.BadRequestError, match="no such index, or no permission"):
            through.vector_stores.search(unused_index_name(), query="red shoe")
        with pytest.raises(openai.NotFoundError, match="chat/completions"):
            through.chat.completions.create(model="any", messages=[{"role": "user", "content": "red shoe"}])
