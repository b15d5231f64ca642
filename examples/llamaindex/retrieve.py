"""A LlamaIndex retriever on the proxy's /_bridge/retrieve: passages with scores, for query engines."""

import os

import requests
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode


class BridgeRetriever(BaseRetriever):
    """The best passages for a question. `headers` carry the caller's credentials."""

    def __init__(self, url: str, index: str, size: int = 3, headers: dict[str, str] | None = None) -> None:
        self._url, self._index, self._size, self._headers = url, index, size, headers or {}
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        body = {"index": self._index, "queries": [query_bundle.query_str], "size": self._size}
        answer = requests.post(f"{self._url}/_bridge/retrieve", json=body, headers=self._headers, timeout=60)
        answer.raise_for_status()
        return [
            NodeWithScore(node=TextNode(id_=passage["doc_id"], text=passage["text"]), score=passage["score"])
            for passage in answer.json()["results"][0]["passages"]
        ]


retriever = BridgeRetriever(
    os.environ.get("BRIDGE_ADMIN_URL", "http://127.0.0.1:9281"), os.environ.get("INDEX", "products")
)
for found in retriever.retrieve("What can I wear on my feet in the rain?"):
    print(f"{found.score:.3f}  {found.node.node_id}  {found.text}")
