"""The embedded node as its users meet it: commands, ownership, both versions."""

from opensearchpy import OpenSearch

from bridge.cluster.node import EmbeddedNode


def test_a_node_searches_text_and_vectors(opensearch: OpenSearch, fresh_index: str) -> None:
    opensearch.indices.create(
        index=fresh_index,
        body={
            "settings": {"index.knn": True, "number_of_replicas": 0},
            "mappings": {
                "properties": {
                    "title": {"type": "text", "analyzer": "english"},
                    "embedding": {
                        "type": "knn_vector",
                        "dimension": 2,
                        "method": {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"},
                    },
                }
            },
        },
    )
    for doc_id, title, embedding in (("fox", "running foxes", [1, 0]), ("bear", "a bear", [0, 1])):
        opensearch.index(index=fresh_index, id=doc_id, body={"title": title, "embedding": embedding}, refresh=True)

    stemmed = opensearch.search(index=fresh_index, body={"query": {"match": {"title": "fox"}}})
    nearest = opensearch.search(
        index=fresh_index, body={"query": {"knn": {"embedding": {"vector": [0.1, 1], "k": 1}}}}
    )

    assert [hit["_id"] for hit in stemmed["hits"]["hits"]] == ["fox"]
    assert [hit["_id"] for hit in nearest["hits"]["hits"]] == ["bear"]
