"""The one command that makes each built-in model again, in its smoke size."""

import json
import runpy
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="training needs the train extra")
pytest.importorskip("transformers", reason="training needs the train extra")
pytest.importorskip("bm25s", reason="training needs the train extra")

from bridge.models.artifact import builtin_names, read_folder, resolve, verify
from tests.toys import WORDS, make_toy_encoder

ROOT = Path(__file__).parents[3]
CARDS = ROOT / "docs" / "explanation" / "models.md"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / "make_model.py"))


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    folder = tmp_path / "pairs"
    folder.mkdir()
    rows = [
        {"query": topic, "passage": f"{topic} {WORDS[20 + number]} {WORDS[10 + number % 5]}", "label": 1}
        for number, topic in enumerate(WORDS[:20])
    ]
    for name, some in (("one", rows[::2]), ("two", rows[1::2])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    return folder


@pytest.fixture(autouse=True)
def fetched_teachers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("BAAI--bge-small-en-v1.5", "intfloat--e5-small-v2"):
        make_toy_encoder(tmp_path / "cache" / "neural-bridge" / "models" / name)


@pytest.mark.parametrize("name", builtin_names())
def test_the_command_of_its_card_makes_a_model_of_its_kind(
    script: dict[str, Any], name: str, pairs: Path, toy_base: Path, toy_masked_model: Path, tmp_path: Path
) -> None:
    bases = {"embed-static": make_toy_encoder(tmp_path / "encoder").path, "sparse-tiny": toy_masked_model}
    base, out = bases.get(name, toy_base), tmp_path / "out"
    make: click.Command = script["make"]
    arguments = [name, "--pairs", str(pairs), "--base", str(base), "--size", "smoke", "--out", str(out)]
    done = CliRunner().invoke(make, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    made, shipped = read_folder(out / name), resolve(name)
    verify(made, kind=shipped.manifest.kind)
    assert (made.manifest.name, set(made.manifest.files)) == (name, set(shipped.manifest.files))
    assert made.manifest.keep_tokens == shipped.manifest.keep_tokens


@pytest.mark.parametrize("name", builtin_names())
def test_a_card_names_data_licences_and_its_command(name: str) -> None:
    card = CARDS.read_text(encoding="utf-8").split(f"\n## {name}\n")[1].split("\n## ")[0]
    assert f"scripts/make-model {name} " in card
    assert "**Data.**" in card or "data and mined negatives of rerank-base" in " ".join(card.split())
    assert any(licence in card for licence in ("Apache-2.0", "with its licences"))
