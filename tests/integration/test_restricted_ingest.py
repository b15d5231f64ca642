"""A user from whom the cluster hides documents or fields is refused before anything is written."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.secured_node import SecuredNode, role
from tests.toys import make_toy_encoder

pytestmark = [pytest.mark.slow, pytest.mark.node, pytest.mark.timeout(900)]

INDEX = "restricted"
RULES: dict[str, dict[str, Any]] = {
    "document_level": {"dls": json.dumps({"term": {"public": True}})},
    "field_level": {"fls": ["~internal"]},
    "masking": {"masked_fields": ["title"]},
}
ACTIONS = ["indices:admin/*", "indices:monitor/*", "indices:data/read/*", "indices:data/write/*"]
CLUSTER = ("cluster:monitor/main", "cluster:monitor/nodes/info", "indices:data/write/bulk", "indices:data/read/scroll*")
ENRICHING = ("--text-field", "title", "--no-expansion")


@pytest.fixture(scope="module")
def node(secured_node: SecuredNode) -> Iterator[SecuredNode]:
    """The node with a user for each rule, and `whole`, who is shown everything."""
    may = {"index_patterns": [f"{INDEX}*"], "allowed_actions": ACTIONS}
    users = {user: role(may | rule, cluster=CLUSTER) for user, rule in {"whole": {}, **RULES}.items()}
    reading = {"index_patterns": [INDEX], "allowed_actions": ["indices:admin/get", "indices:data/read/*"]}
    writing = {"index_patterns": [f"neural-bridge.{INDEX}"], "allowed_actions": ACTIONS}
    users["reader"] = role(reading | RULES["document_level"], writing, cluster=CLUSTER)
    secured_node.add_users(users)
    yield secured_node
    secured_node.remove_user(*users)


@pytest.fixture
def index(node: SecuredNode) -> Iterator[str]:
    """An application's index that can be enriched in place."""
    mapping = {"properties": {"title": {"type": "text"}, "public": {"type": "boolean"}}}
    with node.client() as admin:
        settings = {"index.knn": True, "number_of_replicas": 0}
        admin.indices.create(index=INDEX, body={"settings": settings, "mappings": mapping})
        for number in range(6):
            document = {"title": f"wing {number}", "internal": "note", "public": number % 2 == 0}
            admin.index(index=INDEX, id=str(number), body=document, refresh=True)
    yield INDEX
    with node.client() as admin:
        admin.indices.delete(index=f"{INDEX}*")


def run(node: SecuredNode, user: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    given = {
        "BRIDGE_CLUSTER__URL": node.url,
        "BRIDGE_CLUSTER__USERNAME": user,
        "BRIDGE_CLUSTER__PASSWORD": node.password,
        "BRIDGE_INGEST__ENCODER": str(folder / "encoder"),
        "XDG_STATE_HOME": str(folder / "state"),
    }
    return subprocess.run(
        [sys.executable, "-m", "bridge.cli", *words],
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def stored(node: SecuredNode) -> tuple[Any, Any]:
    """All that the cluster holds of the index: its state, and its documents with their versions."""
    with node.client() as admin:
        found = admin.search(index=INDEX, body={"version": True, "size": 100, "sort": ["_doc"]})
        return admin.indices.get(index=f"{INDEX}*"), found["hits"]["hits"]


@pytest.mark.case("S10")
@pytest.mark.parametrize("user", RULES)
def test_who_is_shown_a_part_may_not_enrich(node: SecuredNode, index: str, tmp_path: Path, user: str) -> None:
    make_toy_encoder(tmp_path / "encoder")
    (tmp_path / "documents.jsonl").write_text('{"_id": "6", "title": "wing 6"}\n', encoding="utf-8")
    before = stored(node)

    for command in (
        ("backfill", index, *ENRICHING),
        ("plan", index, *ENRICHING),
        ("backfill", index, "--beside", *ENRICHING),
        ("ingest", index, str(tmp_path / "documents.jsonl"), *ENRICHING),
        ("ingest", index, str(tmp_path / "documents.jsonl"), *ENRICHING, "--dry-run"),
    ):
        ended = run(node, user, tmp_path, *command)
        assert ended.returncode == 4, f"{command}\n{ended.stdout}\n{ended.stderr}"
        assert "document-level or field-level security" in ended.stderr
        assert "Traceback" not in ended.stderr

    assert stored(node) == before


@pytest.mark.case("S10")
def test_who_may_only_read_a_part_may_not_enrich_it_beside(node: SecuredNode, index: str, tmp_path: Path) -> None:
    make_toy_encoder(tmp_path / "encoder")

    ended = run(node, "reader", tmp_path, "backfill", index, *ENRICHING)

    assert (ended.returncode, "document-level" in ended.stderr) == (4, True), ended.stderr
    with node.client() as admin:
        assert not admin.indices.exists(index=f"neural-bridge.{INDEX}")


@pytest.mark.case("S10")
def test_who_is_shown_everything_may(node: SecuredNode, index: str, tmp_path: Path) -> None:
    make_toy_encoder(tmp_path / "encoder")

    ended = run(node, "whole", tmp_path, "backfill", index, *ENRICHING, "--json")

    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["ledger"]["written"] == 6
