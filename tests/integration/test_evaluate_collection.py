"""`neural-bridge evaluate --collection` unattended, on a collection with everything that collections come with."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bridge.cluster.connection import connect
from bridge.cluster.index import look
from bridge.errors import NodeError
from bridge.evaluation.stack import NODE
from bridge.node.launch import plan_node
from bridge.node.node import EmbeddedNode, find_process
from bridge.settings import ClusterSettings, load_settings
from tests.toys import make_toy_cross_encoder, make_toy_encoder, make_toy_query_generator

pytestmark = [pytest.mark.slow, pytest.mark.node, pytest.mark.timeout(2400)]

CORPUS = [
    {"_id": 1, "title": "wing pressure", "text": "pressure on a wing in supersonic flow", "metadata": {"year": 1958}},
    {"_id": "d 2", "text": "heat of a plate", "metadata": "none"},
    {"_id": "d3", "title": None, "text": ""},
    {"_id": "d4", "title": "red dress", "text": "cheap red dress " * 3000},
    {"_id": "d5", "title": "Straße", "text": "猫は白い cat"},
    {"_id": "cat bird", "title": "", "text": "cat bird"},
    {"no": "id"},
]
QUERIES = [
    {"_id": 1, "text": "wing pressure"},
    {"_id": "q2", "text": "heat plate"},
    {"_id": "q3", "text": "猫"},
    {"_id": "cat bird", "text": "cat bird"},
    {"_id": "unjudged", "text": "horse"},
]
QRELS = [("1", "1", 1), ("q2", "d 2", 2), ("q3", "d5", 1), ("cat bird", "d5", 1), ("gone", "d5", 1)]


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    folder = tmp_path / "Odd Collection!"
    (folder / "qrels").mkdir(parents=True)
    for name, entries in (("corpus", CORPUS), ("queries", QUERIES)):
        lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    lines = "".join(f"{query}\t{document}\t{grade}\n" for query, document, grade in QRELS)
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{lines}", encoding="utf-8")
    return folder


@pytest.fixture
def settings_file(tmp_path: Path) -> Path:
    for package in ("ir_measures", "ctranslate2"):
        pytest.importorskip(package)
    settings = load_settings().node
    try:
        plan_node(settings, None)
    except NodeError as error:
        pytest.skip(str(error))
    if find_process(NODE, settings) is not None:
        pytest.skip("an evaluation runs on this machine: one at a time")
    encoder = str(make_toy_encoder(tmp_path / "encoder").path)
    sidecar = {"rerank_model": str(make_toy_cross_encoder(tmp_path / "reranker").path), "encoder": encoder}
    given = {
        "sidecar": {**sidecar, "cascade_model": None, "threads": 1},
        "ingest": {"encoder": encoder, "generator": str(make_toy_query_generator(tmp_path / "generator").path)},
    }
    file = tmp_path / "settings.yaml"
    file.write_text(json.dumps(given))
    return file


ALL_STAGES = "bm25,expansion,vector,hybrid,smoothing,rerank,cascade"


def evaluate(
    settings_file: Path, collection: Path, *options: str, stages: str = ALL_STAGES
) -> tuple[dict[str, Any], str]:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bridge.cli", "--config", str(settings_file), "evaluate", "--json"),
            *("--collection", str(collection), "--stages", stages, *options),
        ],
        capture_output=True,
        text=True,
        timeout=1100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    told: dict[str, Any] = json.loads(done.stdout)
    return told, done.stderr


def test_an_odd_collection_is_measured_and_kept_for_the_next_time(settings_file: Path, collection: Path) -> None:
    told, said = evaluate(settings_file, collection)
    assert (told["collection"], told["documents"], told["queries"]) == ("Odd Collection!", 6, 4)
    assert list(told["stages"]) == ["bm25", "expansion", "vector", "hybrid", "smoothing", "rerank"], said
    figures = ["ndcg@10", "mrr@10", "recall@100", "p50_ms", "p95_ms"]
    assert all(list(stage) == figures for stage in told["stages"].values())
    # The query that is a document finds the other one that holds its words.
    assert told["stages"]["bm25"]["mrr@10"] == 1.0
    assert told["stages"]["rerank"]["recall@100"] == 1.0
    for remark in ("stage cascade is left out", "1 judged queries have no text", "1 documents could not be written"):
        assert remark in " ".join(said.split())

    again, said = evaluate(settings_file, collection)
    assert "6 documents, 0 of them written now" in said
    measured = [{name: stage[name] for name in figures[:3]} for stage in told["stages"].values()]
    assert [{name: stage[name] for name in figures[:3]} for stage in again["stages"].values()] == measured

    label_free, said = evaluate(settings_file, collection, "--label-free", "5", stages="bm25,hybrid")
    assert label_free["queries"] <= 5
    assert set(label_free["agreement"]["gains"]) == {"hybrid"}
    judged = again["stages"]["hybrid"]["ndcg@10"] - again["stages"]["bm25"]["ndcg@10"]
    assert label_free["agreement"]["gains"]["hybrid"]["judged"] == pytest.approx(judged, abs=1e-3)
    assert "trust the order of stages" in " ".join(said.split())

    with EmbeddedNode.kept(NODE, load_settings().node) as node, connect(ClusterSettings(url=node.url)) as client:
        [name] = client.indices.get(index="evaluation-odd-collection-*")
        profile = look(client, name).profile
    assert profile is not None
    assert profile.expanded_fields == ["title", "text"]
