"""The roles that docs/how-to/secure.md gives are enough for what it says, and for no more."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from opensearchpy import AuthorizationException
from pydantic import SecretStr

from bridge.settings import ClusterSettings
from tests.proxy_stack import proxy_stack
from tests.secured_node import SecuredNode, role
from tests.toys import make_toy_encoder

pytestmark = [pytest.mark.slow, pytest.mark.node, pytest.mark.timeout(900)]

INDEX = "products-least"
SECURE = Path(__file__).parents[2] / "docs" / "how-to" / "secure.md"
SEARCHER = "products-searcher"


def roles() -> dict[str, dict[str, Any]]:
    [block] = re.findall(r"```json\n(\{.*?\n\})\n```", SECURE.read_text(encoding="utf-8"), re.DOTALL)
    found: dict[str, dict[str, Any]] = json.loads(block)
    return found


@pytest.fixture(scope="module")
def users(secured_node: SecuredNode) -> Iterator[SecuredNode]:
    """The node with a user of each role, and one that may only search."""
    reading = {"index_patterns": [f"{INDEX}*"], "allowed_actions": ["read"]}
    users = roles() | {SEARCHER: role(reading, cluster=("cluster_composite_ops_ro",))}
    secured_node.add_users(users)
    yield secured_node
    secured_node.remove_user(*users)


@pytest.fixture(scope="module")
def enriched(users: SecuredNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SecuredNode, Path]]:
    """An index that the ingest user made and filled."""
    folder = tmp_path_factory.mktemp("least")
    make_toy_encoder(folder / "encoder")
    documents = [{"_id": f"d{n}", "title": f"red shoe {n}"} for n in range(5)]
    (folder / "documents.jsonl").write_text("\n".join(map(json.dumps, documents)) + "\n", encoding="utf-8")
    run(users, folder, "ingest", INDEX, str(folder / "documents.jsonl"), "--text-field", "title", "--no-expansion")
    yield users, folder
    with users.client() as admin:
        admin.indices.delete(index=INDEX, params={"ignore_unavailable": "true"})


def run(node: SecuredNode, folder: Path, *words: str, user: str = "bridge_ingest") -> str:
    """Runs a command as a user."""
    given = {
        "BRIDGE_CLUSTER__URL": node.url,
        "BRIDGE_CLUSTER__USERNAME": user,
        "BRIDGE_CLUSTER__PASSWORD": node.password,
        "BRIDGE_INGEST__ENCODER": str(folder / "encoder"),
        "XDG_STATE_HOME": str(folder / "state"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "bridge.cli", *words],
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_ingest_user_may_ingest_look_backfill_and_undo(enriched: tuple[SecuredNode, Path]) -> None:
    node, folder = enriched
    with node.client() as admin:
        admin.index(index=INDEX, id="late", body={"title": "blue dress"}, refresh=True)

    run(node, folder, "plan", INDEX)
    run(node, folder, "backfill", INDEX, "--no-expansion", "--quiet")
    run(node, folder, "index", "show", INDEX)
    run(node, folder, "follow", INDEX, "--once", "--quiet")
    with node.client() as admin:
        admin.indices.refresh(index=INDEX)
        assert admin.count(index=INDEX, body={"query": {"exists": {"field": "_neural.stamp"}}})["count"] == 6

    run(node, folder, "undo", INDEX, "--yes")
    with node.client() as admin:
        assert admin.count(index=INDEX, body={"query": {"exists": {"field": "_neural.stamp"}}})["count"] == 0


def test_a_user_who_may_not_write_to_an_index_enriches_it_beside(users: SecuredNode, tmp_path: Path) -> None:
    make_toy_encoder(tmp_path / "encoder")
    index, user = f"{INDEX}-plain", "bridge_beside"
    with users.client() as admin, users.client(user) as itself:
        for n in range(5):
            admin.index(index=index, id=f"d{n}", body={"title": f"red shoe {n}"}, params={"refresh": "true"})
        before = admin.indices.get(index=index)
        try:
            with pytest.raises(AuthorizationException):
                itself.index(index=index, id="new", body={"title": "by the bridge"})
            run(users, tmp_path, "plan", index, "--text-field", "title", "--no-expansion", user=user)
            run(users, tmp_path, "backfill", index, "--text-field", "title", "--no-expansion", user=user)
            admin.delete(index=index, id="d3", params={"refresh": "true"})
            run(users, tmp_path, "backfill", index, "--no-expansion", user=user)
            with pytest.raises(AuthorizationException):
                itself.indices.refresh(index=index)
            admin.indices.put_settings(index=index, body={"index.refresh_interval": "-1"})
            admin.index(index=index, id="d3", body={"title": "made again"})
            admin.delete(index=index, id="d0")
            run(users, tmp_path, "follow", f"{index}*", "--once", "--quiet", user=user)
            with users.client() as reader:
                reader.indices.refresh(index=f"neural-bridge.{index}")
                hits = reader.search(index=f"neural-bridge.{index}")["hits"]["hits"]
            assert {hit["_id"] for hit in hits} == {"d1", "d2", "d3", "d4"}
            admin.indices.put_settings(index=index, body={"index.refresh_interval": None})
            admin.indices.refresh(index=index)
            shown = json.loads(run(users, tmp_path, "index", "show", index, "--json", user=user))
            assert (shown["documents"], shown["enriched"]) == (4, 4)
            run(users, tmp_path, "undo", index, "--yes", user=user)
            assert not admin.indices.exists(index=f"neural-bridge.{index}")
            assert admin.indices.get(index=index) == before
        finally:
            admin.indices.delete(index=index)


def test_the_ingest_user_reaches_no_other_index(users: SecuredNode) -> None:
    with users.client() as admin:
        admin.index(index="payroll", id="1", body={"title": "secret"}, refresh=True)
    try:
        with users.client("bridge_ingest") as ingest, pytest.raises(AuthorizationException):
            ingest.search(index="payroll")
        with users.client("bridge_ingest") as ingest, pytest.raises(AuthorizationException):
            ingest.indices.delete(index=INDEX)
    finally:
        with users.client() as admin:
            admin.indices.delete(index="payroll")


def test_the_mapping_reader_lets_the_proxy_upgrade_and_reads_no_document(users: SecuredNode, tmp_path: Path) -> None:
    reader = ClusterSettings(url=users.url, username="bridge_mapping_reader", password=SecretStr(users.password))
    index = f"{INDEX}-read"
    query = {"query": {"match": {"title": "red shoe"}}}
    with proxy_stack(reader, tmp_path, budget_ms=60_000) as stack, users.client() as admin:
        stack.fill(admin, index, {"a": ({"title": "red shoe", "body": "cheap"}, [])})
        try:
            with users.client(SEARCHER) as searcher, pytest.raises(AuthorizationException):
                searcher.indices.get_mapping(index=index)
            caller = (SEARCHER, users.password)
            answer = requests.post(f"{stack.url}/{index}/_search", json=query, auth=caller, timeout=120)
            assert answer.headers["X-Bridge"].startswith("hybrid+rerank;"), answer.headers
            with users.client("bridge_mapping_reader") as itself, pytest.raises(AuthorizationException):
                itself.search(index=index)
        finally:
            admin.indices.delete(index=index)
