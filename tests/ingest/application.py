"""An index as an application makes it that never heard of the bridge, and its documents."""

import json
from typing import Any

from opensearchpy import OpenSearch

TEXT_FIELDS = ["title", "text"]
MAPPING: dict[str, Any] = {"title": {"type": "text"}, "text": {"type": "text", "analyzer": "english"}}


def old_application(client: OpenSearch, index: str, n: int, **body: Any) -> None:
    """Creates an index as an application does that never heard of the bridge, and fills it."""
    settings = {"index.knn": True, "index.number_of_replicas": 0}
    client.indices.create(index=index, body={"settings": settings, "mappings": {"properties": MAPPING, **body}})
    lines = []
    for i in range(n):
        lines += [{"index": {"_id": f"d{i}"}}, {"title": f"title {i}", "text": f"text of {i}", "stock": 0}]
    client.bulk(index=index, body="".join(json.dumps(line) + "\n" for line in lines), params={"refresh": "true"})


def source(client: OpenSearch, index: str, doc_id: str, **params: Any) -> dict[str, Any]:
    found: dict[str, Any] = client.get(index=index, id=doc_id, params=params)["_source"]
    return found
