"""A LangChain retriever on the proxy's /_bridge/retrieve: passages with scores, for chains and agents."""

import os

import requests
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever


class BridgeRetriever(BaseRetriever):
    """The best passages for a question. `headers` carry the caller's credentials."""

    url: str
    index: str
    size: int = 3
    headers: dict[str, str] = {}

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        body = {"index": self.index, "queries": [query], "size": self.size}
        answer = requests.post(f"{self.url}/_bridge/retrieve", json=body, headers=self.headers, timeout=60)
        answer.raise_for_status()
        return [
            Document(page_content=passage["text"], metadata={"id": passage["doc_id"], "score": passage["score"]})
            for passage in answer.json()["results"][0]["passages"]
        ]


retriever = BridgeRetriever(
    url=os.environ.get("BRIDGE_ADMIN_URL", "http://127.0.0.1:9281"), index=os.environ.get("INDEX", "products")
)
for document in retriever.invoke("What can I wear on my feet in the rain?"):
    print(f"{document.metadata['score']:.3f}  {document.metadata['id']}  {document.page_content}")
