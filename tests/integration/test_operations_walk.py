"""The commands of docs/how-to/operate.md, run in order on an index that an application made."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opensearchpy import OpenSearch

from tests.elasticsearch_node import start_elasticsearch
from tests.integration.test_least_privileges import OPERATIONS, roles
from tests.secured_node import SecuredNode
from tests.servers import free_port

pytestmark = [pytest.mark.slow, pytest.mark.node, pytest.mark.timeout(1200)]

INDEX = "products"
OPERATOR = "bridge_operator"
TITLES = {
    "boot": ("Rubber boots", "Keep your feet dry in wet weather. Made of natural rubber."),
    "sandal": ("Leather sandals", "Light summer shoes for the beach."),
    "coat": ("Waxed coat", "A long coat that no storm gets through."),
    "lamp": ("Desk lamp", "Bright light for late hours at work."),
    "kettle": ("Steel kettle", "Boils a litre of water in three minutes."),
    "tent": ("Tent for two", "Weighs two kilograms and stands in five minutes."),
}
JUDGEMENTS = "query,docid,rating\n" + "".join(
    f"{query},{doc_id},1\n"
    for query, doc_id in (("wet feet", "boot"), ("beach shoes", "sandal"), ("boil water", "kettle"), ("storm", "coat"))
)


def walked() -> str:
    """The lines of the page that are walked."""
    [block] = re.findall(r"<!-- walked -->\n```sh\n(.*?)```", OPERATIONS.read_text(encoding="utf-8"), re.DOTALL)
    return str(block)


def write_as_an_application(client: OpenSearch, settings: dict[str, Any]) -> None:
    text = {"type": "text"}
    client.indices.create(
        index=INDEX, body={"settings": settings, "mappings": {"properties": {"title": text, "body": text}}}
    )
    lines: list[dict[str, Any]] = []
    for doc_id, (title, body) in TITLES.items():
        lines += [{"index": {"_id": doc_id}}, {"title": title, "body": body}]
    client.bulk(index=INDEX, body=lines, params={"refresh": "true"})


def walk(folder: Path, cluster: dict[str, str]) -> str:
    """What the page's commands print; each must succeed."""
    (folder / "judgements.csv").write_text(JUDGEMENTS, encoding="utf-8")
    given = {
        **cluster,
        "BRIDGE_PROXY__PORT": str(free_port()),
        "BRIDGE_PROXY__ADMIN_PORT": str(free_port()),
        "BRIDGE_PROXY__BUDGET_MS": "60000",
        "BRIDGE_SIDECAR__PORT": (sidecar := str(free_port())),
        "BRIDGE_PROXY__SIDECAR_URL": f"http://127.0.0.1:{sidecar}",
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    script = f"set -euo pipefail\ntrap 'kill $(jobs -p) && wait || true' EXIT\n{walked()}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def assert_upgraded(client: OpenSearch, printed: str) -> None:
    stored = client.get(index=INDEX, id="boot")["_source"]
    assert stored["title"] == "Rubber boots"
    assert stored["_neural"]["predicted_queries"]
    # Elasticsearch shows no vectors within a document, and keeps them all the same.
    with_vectors = {"query": {"exists": {"field": "_neural.embedding"}}}
    assert client.count(index=INDEX, body=with_vectors)["count"] == len(TITLES)
    meta = client.indices.get_mapping(index=INDEX)[INDEX]["mappings"]["_meta"]["neural_bridge"]
    assert meta["gate"]["measurement"]["queries"] == 4
    assert "searches will stop at" in printed


@pytest.fixture
def operator(secured_node: SecuredNode) -> Iterator[SecuredNode]:
    role = roles()[OPERATOR]
    secured_node.add_user(OPERATOR, *role["index_permissions"], cluster=tuple(role["cluster_permissions"]))
    yield secured_node
    secured_node.remove_user(OPERATOR)
    with secured_node.client() as admin:
        admin.indices.delete(index=INDEX, params={"ignore_unavailable": "true"})


def test_the_page_leads_to_an_upgraded_search_on_a_secured_opensearch(operator: SecuredNode, tmp_path: Path) -> None:
    with operator.client() as admin:
        write_as_an_application(admin, {"index.knn": True, "index.number_of_replicas": 0})
        cluster = {
            "BRIDGE_CLUSTER__URL": operator.url,
            "BRIDGE_CLUSTER__USERNAME": OPERATOR,
            "BRIDGE_CLUSTER__PASSWORD": operator.password,
            "BRIDGE_SEARCH_PASSWORD": operator.password,
        }
        assert_upgraded(admin, walk(tmp_path, cluster))


def test_the_page_leads_to_an_upgraded_search_on_elasticsearch(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if not request.config.getoption("--elasticsearch"):
        pytest.skip("Elasticsearch is fetched where --elasticsearch asks for it")
    with start_elasticsearch("9.4.3") as node, OpenSearch(node.url, timeout=120) as client:
        write_as_an_application(client, {"index.number_of_replicas": 0})
        assert_upgraded(client, walk(tmp_path, {"BRIDGE_CLUSTER__URL": node.url}))
