"""Applications' own clients, pointed at the proxy instead of the cluster and at nothing else.

Each does what it does all day; what it gets is compared with what the node itself says. `heat` stands in no
document, only in a predicted query: a search for it tells whether the bridge answered.
"""

import asyncio
import importlib
import os
from collections.abc import Iterator
from typing import Any

import pytest
from opensearchpy import AsyncOpenSearch, OpenSearch
from opensearchpy.helpers import bulk, scan

from bridge.node.node import EmbeddedNode
from bridge.settings import ClusterSettings
from tests.proxy_stack import ProxyStack, proxy_stack
from tests.servers import client, unused_index_name

# Warnings of other people's libraries are none of ours.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

DOCUMENTS = {
    "wing": ({"title": "wing pressure", "body": "supersonic flow over a wing"}, ["plate heat"]),
    "shoe": ({"title": "red shoe", "body": "cheap red shoe for the garden"}, []),
    "file": ({"title": "read file", "body": "open a file and read a line"}, []),
}
ONLY_PREDICTED = {"query": {"match": {"title": "heat"}}}
ROWS = [{"title": f"row {i}", "n": i} for i in range(25)]


@pytest.fixture(scope="module")
def stack(node: EmbeddedNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyStack]:
    folder = tmp_path_factory.mktemp("models")
    with proxy_stack(ClusterSettings(url=node.url), folder, budget_ms=60_000, es_compat=True) as running:
        yield running


@pytest.fixture(scope="module")
def enriched(node: EmbeddedNode, stack: ProxyStack) -> Iterator[str]:
    """An index that the bridge upgrades searches of."""
    name = unused_index_name()
    with client(node.url) as direct:
        stack.fill(direct, name, DOCUMENTS, settings={"number_of_replicas": 0})
        yield name
        direct.indices.delete(index=name)


def test_a_search_for_a_predicted_word_finds_nothing_without_the_bridge(node: EmbeddedNode, enriched: str) -> None:
    with client(node.url) as direct:
        assert direct.search(index=enriched, body=ONLY_PREDICTED)["hits"]["hits"] == []


@pytest.mark.parametrize("options", [{}, {"http_compress": True}], ids=["plain", "compressed"])
def test_opensearch_py_works_as_before_and_finds_more(
    opensearch: OpenSearch, stack: ProxyStack, enriched: str, fresh_index: str, options: dict[str, Any]
) -> None:
    with OpenSearch(stack.url, timeout=60, max_retries=0, **options) as through:
        through.indices.create(index=fresh_index, body={"settings": {"number_of_replicas": 0}})
        actions = [{"_index": fresh_index, "_id": str(i), **row} for i, row in enumerate(ROWS)]
        assert bulk(through, actions, refresh=True) == (len(ROWS), [])
        read = {hit["_id"]: hit["_source"] for hit in scan(through, index=fresh_index, size=10)}
        assert read == {str(i): row for i, row in enumerate(ROWS)}
        assert through.count(index=fresh_index)["count"] == len(ROWS)
        found = through.search(index=enriched, body=ONLY_PREDICTED)

    assert found["hits"]["hits"][0]["_id"] == "wing"
    assert opensearch.count(index=fresh_index)["count"] == len(ROWS)


@pytest.mark.case("P29")
def test_a_client_that_sniffs_stays_with_the_proxy(stack: ProxyStack, enriched: str) -> None:
    with OpenSearch(stack.url, sniff_on_start=True, timeout=60) as through:
        assert [connection.host for connection in through.transport.connection_pool.connections] == [stack.url]
        found = through.search(index=enriched, body=ONLY_PREDICTED)

    assert found["hits"]["hits"][0]["_id"] == "wing"


async def test_opensearch_py_works_asynchronously(stack: ProxyStack, enriched: str, fresh_index: str) -> None:
    async with AsyncOpenSearch(stack.url, timeout=60, max_retries=0) as through:
        await asyncio.gather(
            *(through.index(index=fresh_index, id=str(i), body=row) for i, row in enumerate(ROWS[:10]))
        )
        await through.indices.refresh(index=fresh_index)
        assert (await through.count(index=fresh_index))["count"] == 10
        found = await through.search(index=enriched, body=ONLY_PREDICTED)

    assert found["hits"]["hits"][0]["_id"] == "wing"


@pytest.mark.case("P31")
@pytest.mark.parametrize("major", [7, 8, 9])
def test_elasticsearch_py_works_with_opensearch(stack: ProxyStack, enriched: str, fresh_index: str, major: int) -> None:
    module = f"elasticsearch{major}"
    elasticsearch = pytest.importorskip(module)
    helpers = importlib.import_module(f"{module}.helpers")
    options = {"timeout": 60} if major == 7 else {"request_timeout": 60}
    through = elasticsearch.Elasticsearch(stack.url, max_retries=0, **options)
    try:
        through.indices.create(index=fresh_index)
        actions = [{"_index": fresh_index, "_id": str(i), **row} for i, row in enumerate(ROWS)]
        assert helpers.bulk(through, actions, refresh=True) == (len(ROWS), [])
        assert len(list(helpers.scan(through, index=fresh_index, size=10))) == len(ROWS)
        assert through.get(index=fresh_index, id="3")["_source"] == ROWS[3]
        found = through.search(index=enriched, query=ONLY_PREDICTED["query"])
    finally:
        through.close()

    assert found["hits"]["hits"][0]["_id"] == "wing"


def test_haystacks_store_writes_reads_and_retrieves(
    node: EmbeddedNode, stack: ProxyStack, enriched: str, fresh_index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "HAYSTACK_TELEMETRY_ENABLED", "False")
    stores = pytest.importorskip("haystack_integrations.document_stores.opensearch")
    document = pytest.importorskip("haystack").Document

    def store(url: str, index: str) -> Any:
        # The embedded node has Lucene's vectors only; another engine would end it.
        method = {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"}
        return stores.OpenSearchDocumentStore(hosts=url, index=index, embedding_dim=4, method=method, timeout=60)

    through = store(stack.url, fresh_index)
    written = [
        document(id=name, content=text["body"], meta={"kind": name}, embedding=[float(i), 1.0, 0.0, 0.0])
        for i, (name, (text, _)) in enumerate(DOCUMENTS.items())
    ]
    assert through.write_documents(written) == len(written)
    assert through.count_documents() == len(written)
    of_a_kind = {"field": "meta.kind", "operator": "==", "value": "shoe"}
    assert [each.id for each in through.filter_documents(of_a_kind)] == ["shoe"]
    direct = store(node.url, fresh_index)
    for asked in (through, direct):
        assert [each.id for each in asked._bm25_retrieval("garden shoe", top_k=2)] == ["shoe"]
        assert [each.id for each in asked._embedding_retrieval([2.0, 1.0, 0.0, 0.0], top_k=1)] == ["file"]
    # The very request of Haystack's BM25 retriever, at an enriched index.
    found = store(stack.url, enriched)._bm25_retrieval("heat")
    assert found[0].meta["title"] == "wing pressure"


def test_langchains_store_writes_and_retrieves(stack: ProxyStack, node: EmbeddedNode, fresh_index: str) -> None:
    vectorstores = pytest.importorskip("langchain_community.vectorstores")
    embeddings = pytest.importorskip("langchain_core.embeddings").DeterministicFakeEmbedding(size=8)
    texts = [text["body"] for text, _ in DOCUMENTS.values()]
    through = vectorstores.OpenSearchVectorSearch.from_texts(
        texts, embeddings, opensearch_url=stack.url, index_name=fresh_index, engine="lucene", timeout=60
    )
    through.client.indices.refresh(index=fresh_index)
    direct = vectorstores.OpenSearchVectorSearch(node.url, fresh_index, embeddings, engine="lucene", timeout=60)

    for text in texts:
        answers = [store.similarity_search_with_score(text, k=3) for store in (through, direct)]
        assert answers[0] == answers[1]
        assert answers[0][0][0].page_content == text
