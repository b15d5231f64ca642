"""The doctor on every engine: told what it is, that it has vectors, and which indices are enriched."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from opensearchpy import OpenSearch

from bridge.cli import cli
from tests.integration.compatibility.conftest import Engine
from tests.integration.compatibility.test_documents import application_index, backfill


@pytest.mark.feature("doctor")
def test_the_doctor_knows_the_cluster(client: OpenSearch, engine: Engine, index_name: str, tmp_path: Path) -> None:
    application_index(client, engine, index_name, 20)
    backfill(client, index_name, tmp_path)
    done = CliRunner().invoke(cli, ["doctor", engine.url, "--json"])
    told = json.loads(done.output)
    assert (done.exit_code, told["fit"], told["distribution"]) == (0, True, engine.found.distribution)
    # The embedded node has no libraries for faiss, and the doctor names what really loads.
    assert told["vector_engines"] == [name for name in engine.found.vector_engines if name != "faiss"] != []
    [enriched] = [index for index in told["indices"] if index["name"] == index_name]
    assert (enriched["documents"], enriched["enriched"]) == (20, 20)
    assert {finding["level"] for finding in told["findings"]} <= {"ok", "note"}
    assert not [finding for finding in told["findings"] if finding["told"].startswith("not known")]
