"""The whole way of each recipe, as the command goes it, on a toy collection."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="training needs the train extra")
pytest.importorskip("transformers", reason="training needs the train extra")
pytest.importorskip("bm25s", reason="training needs the train extra")

from bridge.commands.train import command
from bridge.models.encoder import Encoder
from bridge.models.sparse_encoder import SparseEncoder
from bridge.training.export import export_encoder
from bridge.training.sparse_export import export_sparse_encoder
from bridge.training.transformers_folder import Card
from tests.toys import WORDS, make_toy_cross_encoder, make_toy_encoder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    pairs = [
        {"query": topic, "passage": f"{topic} {WORDS[20 + number]} {WORDS[10 + number % 5]}", "label": 1}
        for number, topic in enumerate(WORDS[:10])
    ]
    (folder / "own.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return folder


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    folder = tmp_path / "collection"
    (folder / "qrels").mkdir(parents=True)
    documents = [
        {"_id": f"d{n}", "title": "", "text": f"{topic} {WORDS[20 + n]}"} for n, topic in enumerate(WORDS[:12])
    ]
    queries = [{"_id": f"q{n}", "text": topic} for n, topic in enumerate(WORDS[:12])]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))
    (folder / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))
    judged = "".join(f"q{n}\td{n}\t1\n" for n in range(12))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    return folder


def run(recipe: str, data: Path, base: Path, out: Path, *options: str) -> str:
    arguments = [recipe, "--data", str(data), "--base", str(base), "--size", "smoke", "--out", str(out), *options]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def figures(out: Path) -> set[str]:
    return {line.split(",")[2] for line in (out / "log.csv").read_text().splitlines()[1:]}


def test_cross_encoder_from_pairs_to_a_folder(toy_base: Path, data: Path, collection: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    output = run("cross-encoder", data, toy_base, out, "--watch", str(collection))
    assert str(out / "model") in output
    assert {path.name for path in (out / "model").iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert figures(out) >= {"loss", "collection/first", "collection/rerank", "collection/blend"}


def test_encoder_from_pairs_to_a_folder_that_goes_on_being_an_encoder(
    toy_base: Path, data: Path, collection: Path, tmp_path: Path
) -> None:
    teacher = make_toy_cross_encoder(tmp_path / "teacher")
    out = tmp_path / "run"
    run("encoder", data, toy_base, out, "--watch", str(collection), "--teacher", str(teacher.path))
    assert figures(out) >= {"loss", "collection/first", "collection/rerank", "collection/blend"}
    card = Card(name="trained", licence="Apache-2.0", max_tokens=48)
    encoder = Encoder.load(export_encoder(out / "model", tmp_path / "exported", card), threads=1)
    assert encoder.encode(["a", "b"]).shape == (2, 48)


def test_an_encoder_that_encoders_teach(toy_base: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    teacher = str(make_toy_encoder(tmp_path / "teacher").path)
    run("encoder", data, toy_base, out, "--teacher", teacher, "--base-share", "0.5")
    assert (out / "teachers.npz").exists()
    assert figures(out) >= {"loss"}
    run("encoder", data, toy_base, out, "--teacher", teacher, "--resume")


def test_a_tiny_cross_encoder_learns_from_a_teacher(toy_base: Path, data: Path, tmp_path: Path) -> None:
    teacher = make_toy_cross_encoder(tmp_path / "teacher")
    out = tmp_path / "run"
    run("cross-encoder", data, toy_base, out, "--shape", "tiny", "--teacher", str(teacher.path))
    assert json.loads((out / "model" / "config.json").read_bytes())["num_hidden_layers"] == 2
    assert (out / "log.png").read_bytes().startswith(b"\x89PNG")
    again = tmp_path / "again"
    run("cross-encoder", data, toy_base, again)
    options = ("--miner", str(make_toy_encoder(tmp_path / "miner").path), "--whole", "--teacher-share", "0.8")
    run("cross-encoder", data, toy_base, tmp_path / "further", "--start", str(again / "model"), *options)
    assert (tmp_path / "further" / "model" / "model.safetensors").exists()


def test_sparse_encoder_from_pairs_to_a_folder_that_encodes(
    toy_masked_model: Path, data: Path, collection: Path, tmp_path: Path
) -> None:
    out, miner = tmp_path / "run", str(make_toy_encoder(tmp_path / "miner").path)
    run("sparse-encoder", data, toy_masked_model, out, "--watch", str(collection), "--miner", miner)
    assert figures(out) >= {"loss", "collection/first", "collection/rerank", "collection/blend"}
    made = export_sparse_encoder(out / "model", tmp_path / "exported", Card("trained", "Apache-2.0", max_tokens=48))
    assert SparseEncoder.load(made, threads=1).encode([WORDS[0]])[0]
    teacher = str(make_toy_cross_encoder(tmp_path / "teacher").path)
    options = ("--miner", miner, "--teacher", teacher, "--queries", "model")
    run("sparse-encoder", data, toy_masked_model, tmp_path / "again", *options)


def test_query_generator_from_pairs_to_a_folder(toy_base: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run("query-generator", data, toy_base, out)
    assert {path.name for path in (out / "model").iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert figures(out) == {"loss", "held_out/loss"}


def test_a_finished_run_is_resumed_without_another_step(toy_base: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run("query-generator", data, toy_base, out)
    weights = (out / "model" / "model.safetensors").read_bytes()
    run("query-generator", data, toy_base, out, "--resume")
    assert (out / "model" / "model.safetensors").read_bytes() == weights


def test_a_folder_with_a_run_is_not_overwritten(toy_base: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "log.csv").write_text("step\n")
    arguments = ["cross-encoder", "--data", str(data), "--base", str(toy_base), "--size", "smoke", "--out", str(out)]
    result = CliRunner().invoke(command, arguments)
    assert "--resume" in str(result.exception)
    assert (out / "log.csv").read_text() == "step\n"
