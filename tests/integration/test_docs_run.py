"""Tutorial and how-to as a stranger follows them: each page's commands, in order, on real nodes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from opensearchpy import OpenSearch

from bridge.cluster.shard_progress import index_progress
from bridge.node.node import EmbeddedNode
from tests.docs.blocks import DOCS, PAGES, blocks, output, prepared, readme_script, run, script
from tests.docs.prepared import DOCUMENTS, ENRICHED, INDEX, QUERIES, Addresses, write_as_an_application, write_files
from tests.elasticsearch_node import start_elasticsearch
from tests.integration.test_least_privileges import roles
from tests.secured_node import SecuredNode, role

pytestmark = [pytest.mark.slow, pytest.mark.node, pytest.mark.timeout(1200)]

MADE_BY_PAGES = "products,neural-bridge.products,catalogue,customers,places,posters,schuhe,ubi_queries,ubi_events"
APPLICATION = "shop"
RUN = [page for page in PAGES if script(page)]


@pytest.fixture
def cleared(opensearch: OpenSearch) -> Iterator[OpenSearch]:
    """A client of the node, on which no index of the pages stands."""
    # The doctor looks at every index, so none of another test may be left.
    opensearch.indices.delete(index=f"{MADE_BY_PAGES},test-*", params={"ignore_unavailable": "true"})
    yield opensearch
    opensearch.indices.delete(index=MADE_BY_PAGES, params={"ignore_unavailable": "true"})


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_the_commands_of_a_page_do_what_it_says(
    page: Path, node: EmbeddedNode, cleared: OpenSearch, tmp_path: Path
) -> None:
    addresses = Addresses(None if "neural-bridge node start" in script(page) else node.url)
    environment = addresses.environment()
    write_files(tmp_path)
    if prepared(page) != "nothing":
        write_as_an_application(cleared, {"index.knn": True, "index.number_of_replicas": 0})
    if page.stem == "change-models":  # its first block, which a running server cannot be told
        environment["BRIDGE_SIDECAR__MORE_ENCODERS"] = '["models/new-encoder"]'
    commands = (ENRICHED if prepared(page) == "enriched" else "") + script(page)

    printed = run(addresses.put_into(commands), tmp_path, environment)

    rest = printed
    for line in output(page):
        _, found, rest = rest.partition(line)
        assert found, f"not printed: {line}\n{printed}"


def test_the_readme_leads_to_a_search_of_an_ordinary_index_which_stays_as_it_was(
    node: EmbeddedNode, cleared: OpenSearch, tmp_path: Path
) -> None:
    addresses = Addresses(node.url)
    write_as_an_application(cleared, {"index.number_of_replicas": 0})
    before = cleared.indices.get(index=INDEX), index_progress(cleared, INDEX).shards
    printed = run(addresses.put_into(readme_script()), tmp_path, addresses.environment())
    assert (cleared.indices.get(index=INDEX), index_progress(cleared, INDEX).shards) == before
    assert "Rubber boots" in printed
    assert '"_bridge"' in printed


def special(page: str, reason: str) -> str:
    """The last block of a page that is not run for this reason: it needs another cluster."""
    return [block.text for block in blocks(DOCS / page) if block.not_run == reason][-1]


def assert_upgraded(client: OpenSearch, printed: str, enriched: str = INDEX) -> None:
    assert client.get(index=INDEX, id="boot")["_source"]["title"] == "Rubber boots"
    assert client.get(index=enriched, id="boot")["_source"]["_neural"]["predicted_queries"]
    # Elasticsearch shows no vectors within a document, and keeps them all the same.
    with_vectors = {"query": {"exists": {"field": "_neural.embedding"}}}
    assert client.count(index=enriched, body=with_vectors)["count"] == len(DOCUMENTS)
    meta = client.indices.get_mapping(index=enriched)[enriched]["mappings"]["_meta"]["neural_bridge"]
    assert meta["gate"]["measurement"]["queries"] == sum(map(len, QUERIES.values()))
    assert "searches will stop at" in printed


@pytest.fixture
def secured(secured_node: SecuredNode) -> Iterator[SecuredNode]:
    """The node with a user of each role of the page, and one that could search the index before."""
    reading = {"index_patterns": [INDEX], "allowed_actions": ["read"]}
    users = roles() | {APPLICATION: role(reading, cluster=("cluster_composite_ops_ro",))}
    secured_node.add_users(users)
    yield secured_node
    secured_node.remove_user(*users)
    with secured_node.client() as admin:
        admin.indices.delete(index=f"{INDEX},neural-bridge.{INDEX}", params={"ignore_unavailable": "true"})


def test_the_pages_roles_lead_to_an_upgraded_search_of_an_ordinary_index_on_a_secured_opensearch(
    secured: SecuredNode, tmp_path: Path
) -> None:
    addresses = Addresses(secured.url)
    write_files(tmp_path)
    with secured.client() as admin:
        write_as_an_application(admin, {"index.number_of_replicas": 0})
        before = admin.indices.get(index=INDEX), index_progress(admin, INDEX).shards
        users = {
            "BRIDGE_CLUSTER__USERNAME": "bridge_operator",
            "BRIDGE_CLUSTER__PASSWORD": secured.password,
            "READER_PASSWORD": secured.password,
            "BRIDGE_SEARCH_PASSWORD": secured.password,
        }
        commands = addresses.put_into(special("how-to/secure.md", "secured"))
        printed = run(commands, tmp_path, {**addresses.environment(), **users})
        assert_upgraded(admin, printed, f"neural-bridge.{INDEX}")
        assert "Rubber boots" in printed
        assert (admin.indices.get(index=INDEX), index_progress(admin, INDEX).shards) == before


def test_the_same_way_leads_to_an_upgraded_search_on_elasticsearch(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if not request.config.getoption("--elasticsearch"):
        pytest.skip("Elasticsearch is fetched if --elasticsearch asks for it")
    write_files(tmp_path)
    with start_elasticsearch("9.4.3") as node, OpenSearch(node.url, timeout=120) as client:
        addresses = Addresses(node.url)
        write_as_an_application(client, {"index.number_of_replicas": 0})
        commands = addresses.put_into(special("how-to/elasticsearch.md", "elasticsearch"))
        assert_upgraded(client, run(commands, tmp_path, addresses.environment()))
