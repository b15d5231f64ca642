"""Ingest that leaves its models to a sidecar, and the sidecar dies."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from opensearchpy import OpenSearch

from bridge.node.node import EmbeddedNode
from tests.feed import Feed, wait_until_written
from tests.rerank_server.process import listening
from tests.toys import make_toy_encoder

pytestmark = [pytest.mark.slow, pytest.mark.node, pytest.mark.timeout(600)]


def test_a_sidecar_that_dies_ends_the_run_and_the_next_run_loses_nothing(
    opensearch: OpenSearch, node: EmbeddedNode, fresh_index: str, tmp_path: Path
) -> None:
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    make_toy_encoder(encoder)
    bridge = [sys.executable, "-m", "bridge.cli"]
    create = ["index", "create", fresh_index, "--cluster", node.url, "--text-field", "text", "--encoder", str(encoder)]
    subprocess.run([*bridge, *create, "--generator", ""], check=True, timeout=120)
    common = ["--cluster", node.url, "--encoder", str(encoder), "--no-expansion", "--json"]
    source = tmp_path / "documents.jsonl"

    def ingest(sidecar: str, documents: str, stdin: int | None = None) -> "subprocess.Popen[bytes]":
        environment = {
            **os.environ,
            "BRIDGE_INGEST__SERVER_URL": sidecar,
            "BRIDGE_INGEST__MAX_ATTEMPTS": "2",
            "BRIDGE_INGEST__BULK_DOCUMENTS": "20",
        }
        arguments = ["ingest", fresh_index, documents, *common, "--state-folder", str(tmp_path / "state")]
        return subprocess.Popen(
            [*bridge, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            stdin=stdin,
        )

    read_end, write_end = os.pipe()
    with (
        listening(tmp_path / "first.log", encoder=encoder, threads=1) as first,
        ingest(first.url, "-", stdin=read_end) as run,
    ):
        os.close(read_end)
        feed = Feed(write_end)
        try:
            wait_until_written(opensearch, fresh_index)
            first.popen.kill()
            errors = run.communicate(timeout=120)[1].decode()
        finally:
            feed.end()
    assert run.returncode == 4, errors
    assert first.url in errors
    assert "gives no answer" in errors
    assert "Traceback" not in errors

    opensearch.indices.refresh(index=fresh_index)
    before = opensearch.count(index=fresh_index)["count"]
    source.write_text("".join(json.dumps({"_id": each, "text": f"wing {each}"}) + "\n" for each in feed.doc_ids))
    with (
        listening(tmp_path / "second.log", encoder=encoder, threads=1) as second,
        ingest(second.url, str(source)) as again,
    ):
        out, told = again.communicate(timeout=300)
    assert again.returncode == 0, told.decode()
    ledger = json.loads(out)["ledger"]
    assert ledger["read"] == ledger["written"] + ledger["unchanged"] == len(feed.doc_ids)
    assert ledger["unchanged"] >= before > 0
    assert opensearch.count(index=fresh_index)["count"] == len(feed.doc_ids)
