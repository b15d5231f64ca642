"""The whole way of `neural-bridge adapt`, on an index of toy documents and with toy models."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("torch", reason="training needs the train extra")
pytest.importorskip("transformers", reason="training needs the train extra")
pytest.importorskip("bm25s", reason="training needs the train extra")

from threading import Event

from bridge.adaptation.adaptation import install_encoder
from bridge.cli import cli
from bridge.cluster import index as indices
from bridge.cluster.generations import Generations
from bridge.errors import CheckpointUnusable, IndexUnsuitable
from bridge.node.node import EmbeddedNode
from bridge.settings import CompanionSettings, IngestSettings
from tests import servers
from tests.toys import WORDS, make_toy_encoder, make_toy_query_generator

N = 40
FIELDS = ["--text-field", "title", "--text-field", "body"]


@pytest.fixture
def environment(node: EmbeddedNode, tmp_path: Path) -> dict[str, str]:
    return {
        "BRIDGE_CLUSTER__URL": node.url,
        "BRIDGE_INGEST__ENCODER": str(make_toy_encoder(tmp_path / "encoder").path),
        "BRIDGE_INGEST__GENERATOR": str(make_toy_query_generator(tmp_path / "generator").path),
        "BRIDGE_INGEST__FILTER_THRESHOLD": "-1000",  # the toys' queries are no language, nobody believes them
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }


@pytest.fixture
def index(request: pytest.FixtureRequest, node: EmbeddedNode, environment: dict[str, str]) -> str:
    """An application's index, enriched in place or as `request.param` says."""
    way = getattr(request, "param", "--in-place")
    name = servers.unused_index_name()
    with servers.client(node.url) as client:
        properties = {"title": {"type": "text"}, "body": {"type": "text"}}
        client.indices.create(
            index=name, body={"settings": {"index.knn": True}, "mappings": {"properties": properties}}
        )
        lines: list[object] = []
        for n in range(N):
            words = [WORDS[(n * step + step) % len(WORDS)] for step in range(1, 8)]
            lines += [{"index": {"_id": f"d{n}"}}, {"title": " ".join(words[:3]), "body": " ".join(words)}]
        client.bulk(index=name, body="".join(json.dumps(line) + "\n" for line in lines), params={"refresh": "true"})
    done = CliRunner().invoke(cli, ["backfill", name, *FIELDS, way, "--quiet"], env=environment, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return name


def judgements(folder: Path) -> str:
    file = folder / "judgements.csv"
    rows = "".join(f"{WORDS[(n + 1) % len(WORDS)]},d{n},1\n" for n in range(N))
    file.write_text(f"query,docid,rating\n{rows}")
    return str(file)


def adapt(index: str, base: Path, environment: dict[str, str], *options: str) -> Result:
    arguments = ["adapt", index, "--base", str(base), "--size", "smoke", "--quiet", *options]
    return CliRunner().invoke(cli, arguments, env=environment)


def test_what_does_not_help_is_said_and_not_installed(
    index: str, toy_base: Path, environment: dict[str, str], tmp_path: Path, node: EmbeddedNode
) -> None:
    asked = ("--judgements", judgements(tmp_path), "--min-gain", "1")
    done = adapt(index, toy_base, environment, *asked, "--json")
    told = json.loads(done.stdout)
    assert (done.exit_code, told["helps"], told["generation"]) == (1, False, None)
    assert [model["kind"] for model in told["models"]] == ["encoder", "cross_encoder"]
    assert [one["stage"] for model in told["models"] for one in model["differences"]] == ["vector", "hybrid", "rerank"]
    folder = tmp_path / "state" / "neural-bridge" / "adapt" / index
    assert (folder / "pairs" / f"index-{index}.jsonl").stat().st_size > 0
    with servers.client(node.url) as client:
        assert indices.look(client, index).beside is None
    trained = {file: file.stat().st_mtime_ns for file in folder.rglob("*.onnx")}
    again = adapt(index, toy_base, environment, *asked)
    assert again.exit_code == 1
    assert "they go on as they are" in again.stdout
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*.onnx")} == trained
    other = adapt(index, toy_base, environment, *asked, "--queries", "1")
    assert isinstance(other.exception, CheckpointUnusable)


def test_an_index_that_is_not_enriched_has_nothing_to_adapt(
    node: EmbeddedNode, toy_base: Path, environment: dict[str, str]
) -> None:
    name = servers.unused_index_name()
    with servers.client(node.url) as client:
        client.indices.create(index=name)
    assert isinstance(adapt(name, toy_base, environment).exception, IndexUnsuitable)


@pytest.mark.parametrize("index", ["--in-place", "--beside"], indirect=True)
def test_an_adapted_encoder_stands_next_to_the_serving_one(
    index: str, node: EmbeddedNode, tmp_path: Path, environment: dict[str, str]
) -> None:
    adapted = make_toy_encoder(tmp_path / "adapted", ["first", *WORDS])
    prefix = CompanionSettings().prefix
    with servers.client(node.url) as client:
        standing = Generations.of(client, index, prefix)
        profile = standing.state.profile
        assert profile is not None
        settings = IngestSettings(generator=environment["BRIDGE_INGEST__GENERATOR"])
        number, report = install_encoder(
            client,
            standing,
            profile,
            adapted.path,
            settings,
            prefix=prefix,
            state_folder=tmp_path / "books",
            on_progress=lambda _: None,
            stopped=Event(),
        )
        after = Generations.of(client, index, prefix)
        assert after.state.profile == profile
        other = after.state.beside
        assert other is not None
        assert (number, other.generation, other.encoder.identity) == (2, 2, adapted.identity)
        assert (indices.look(client, index).beside == other) == (profile.beside is None)
        client.indices.refresh(index=after.holder(other))
        assert indices.count_enriched(client, after.holder(other), other) == N == report.ledger.written
