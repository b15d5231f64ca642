"""The secured node keeps users apart, so that tests of the bridge may rely on it."""

import pytest
from opensearchpy import AuthorizationException, OpenSearch

from tests.secured_node import SecuredNode
from tests.servers import unused_index_name

pytestmark = [pytest.mark.slow, pytest.mark.node]

DOCUMENTS = {
    "open": {"public": True, "title": "harbour lights", "body": "ships at night", "embedding": [1.0, 0.0]},
    "secret": {"public": False, "title": "harbour plans", "body": "ships in fog", "embedding": [0.9, 0.1]},
}


@pytest.fixture
def index(secured_node: SecuredNode) -> str:
    """An index with an open and a secret document."""
    name = unused_index_name()
    vector = {"type": "knn_vector", "dimension": 2, "method": {"name": "hnsw", "engine": "lucene"}}
    with secured_node.client() as admin:
        admin.indices.create(
            index=name,
            body={"settings": {"index.knn": True}, "mappings": {"properties": {"embedding": vector}}},
        )
        for doc_id, document in DOCUMENTS.items():
            admin.index(index=name, id=doc_id, body=document)
        admin.indices.refresh(index=name)
    return name


def found(client: OpenSearch, index: str, query: dict[str, object]) -> list[str]:
    return [hit["_id"] for hit in client.search(index=index, body={"query": query})["hits"]["hits"]]


def test_a_stranger_is_turned_away(secured_node: SecuredNode, index: str) -> None:
    with secured_node.client("stranger") as client, pytest.raises(Exception, match="401"):
        client.search(index=index)


def test_a_user_sees_the_documents_of_the_role_only(secured_node: SecuredNode, index: str) -> None:
    reader = {"index_patterns": [index], "allowed_actions": ["read"], "dls": '{"term": {"public": true}}'}
    secured_node.add_user("reader", reader)

    with secured_node.client("reader") as client:
        assert found(client, index, {"match": {"title": "harbour"}}) == ["open"]
        assert found(client, index, {"knn": {"embedding": {"vector": [0.9, 0.1], "k": 2}}}) == ["open"]
        with pytest.raises(AuthorizationException):
            client.indices.get_mapping(index=index)


def test_a_hidden_field_is_neither_shown_nor_searched(secured_node: SecuredNode, index: str) -> None:
    secured_node.add_user("skimmer", {"index_patterns": [index], "allowed_actions": ["read"], "fls": ["~body"]})

    with secured_node.client("skimmer") as client:
        hits = client.search(index=index)["hits"]["hits"]
        assert all("body" not in hit["_source"] and "title" in hit["_source"] for hit in hits)
        assert found(client, index, {"match": {"body": "ships"}}) == []


def test_a_role_that_is_taken_away_is_gone_at_once(secured_node: SecuredNode, index: str) -> None:
    secured_node.add_user("guest", {"index_patterns": [index], "allowed_actions": ["read"]})
    with secured_node.client("guest") as client:
        assert len(found(client, index, {"match_all": {}})) == 2
        secured_node.remove_user("guest")
        with pytest.raises(Exception, match="401"):
            client.search(index=index)
