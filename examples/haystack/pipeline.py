"""A Haystack pipeline: its own BM25 retriever through the proxy, then a ranker that the sidecar answers."""

import os

from haystack import Document, Pipeline, component
from haystack.utils import Secret
from haystack_integrations.components.rankers.cohere import CohereRanker
from opensearchpy import OpenSearch


@component
class BridgeRetriever:
    """The hits of an ordinary search, as Haystack's documents."""

    def __init__(self, url: str, index: str) -> None:
        self._client, self._index = OpenSearch(url), index

    @component.output_types(documents=list[Document])
    def run(self, query: str, top_k: int = 5) -> dict[str, list[Document]]:
        words = {"multi_match": {"query": query, "fields": ["title", "body"]}}
        hits = self._client.search(index=self._index, body={"query": words, "size": top_k})["hits"]["hits"]
        return {
            "documents": [
                Document(id=hit["_id"], content=hit["_source"]["body"], meta=hit["_source"], score=hit["_score"])
                for hit in hits
            ]
        }


pipeline = Pipeline()
pipeline.add_component(
    "retriever",
    BridgeRetriever(os.environ.get("BRIDGE_URL", "http://127.0.0.1:9280"), os.environ.get("INDEX", "products")),
)
pipeline.add_component(
    "ranker",
    CohereRanker(
        model="rerank-base",
        api_key=Secret.from_token("any"),  # or the value of sidecar.api_key
        api_base_url=os.environ.get("SIDECAR_URL", "http://127.0.0.1:9290"),
        top_k=3,
    ),
)
pipeline.connect("retriever", "ranker")

question = "waterproof footwear"
for document in pipeline.run({"retriever": {"query": question}, "ranker": {"query": question}})["ranker"]["documents"]:
    print(f"{document.score:.3f}  {document.meta['title']}")
