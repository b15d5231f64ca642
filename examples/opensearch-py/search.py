"""opensearch-py through the proxy: the same calls, another address."""

import os

from opensearchpy import OpenSearch

client = OpenSearch(os.environ.get("BRIDGE_URL", "http://127.0.0.1:9280"))
index = os.environ.get("INDEX", "products")
query = {"multi_match": {"query": "waterproof footwear", "fields": ["title", "body"]}}

# An ordinary search; the bridge ranks it.
answer = client.search(index=index, body={"query": query, "size": 3})
for hit in answer["hits"]["hits"]:
    print(f"{hit['_score']:.3f}  {hit['_source']['title']}")

# How far to go is a header of the single request.
plain = client.search(index=index, body={"query": query}, headers={"x-bridge": "off"})
print("past the bridge:", plain["hits"]["total"]["value"], "hits")

# Everything that is no search by words passes, here a search by id.
one = client.search(index=index, body={"query": {"ids": {"values": [answer["hits"]["hits"][0]["_id"]]}}})
print("by id:", one["hits"]["hits"][0]["_source"]["title"])

client.close()
