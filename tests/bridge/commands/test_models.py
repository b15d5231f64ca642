"""`neural-bridge models`, as it is typed."""

import gzip
import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from bridge.commands.models import COUNTED_TEXTS, command, read_pairs, read_texts
from bridge.errors import ModelError, UsageError
from bridge.models.artifact import builtin_names
from tests.toys import (
    WORDS,
    make_toy_cross_encoder,
    make_toy_encoder,
    make_toy_query_generator,
    make_toy_static_encoder,
)


def _output(*arguments: str) -> str:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_list_names_every_builtin() -> None:
    listed = json.loads(_output("list", "--json"))
    assert [entry["name"] for entry in listed] == builtin_names()
    assert [line.split("@")[0] for line in _output("list").splitlines()] == builtin_names()


def test_show_prints_the_manifest(tmp_path: Path) -> None:
    folder = make_toy_encoder(tmp_path)
    shown = json.loads(_output("show", str(tmp_path)))
    assert shown["identity"] == folder.identity
    assert shown["dimension"] == folder.manifest.dimension


@pytest.mark.parametrize(
    "make", [make_toy_encoder, make_toy_static_encoder, make_toy_cross_encoder, make_toy_query_generator]
)
def test_verify_loads_the_model_whatever_its_kind(tmp_path: Path, make: object) -> None:
    assert callable(make)
    folder = make(tmp_path)
    assert _output("verify", str(tmp_path)) == f"{folder.identity}: whole, and it runs\n"


def test_verify_refuses_what_was_changed(tmp_path: Path) -> None:
    folder = make_toy_encoder(tmp_path)
    folder.tokenizer_file.write_text(folder.tokenizer_file.read_text() + " ")
    with pytest.raises(ModelError, match="has SHA-256"):
        _output("verify", str(tmp_path))


def test_texts_for_quantisation_name_the_line_that_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('{"passage": "a", "query": "b"}\n{"passage": "c"}\n{"text": "d"}\n')
    with pytest.raises(UsageError, match=r"texts\.jsonl:3: expected a JSON object with `passage`"):
        read_pairs(file)
    file.write_text('{"passage": "a", "query": "b"}\n{"passage": "c"}\n')
    assert read_pairs(file) == [("b", "a"), ("", "c")]


@pytest.mark.parametrize(
    ("words", "purpose"),
    [
        (["export", ".", "out", "--kind", "encoder", "--name", "a", "--licence", "MIT"], "exporting a model"),
        (["quantize", "embed-base", "out", "--texts", "texts.jsonl"], "quantising a model"),
        (["verify", "embed-base", "--against", ".", "--texts", "texts.jsonl"], r"\. is no model folder: exporting it"),
    ],
)
def test_a_command_that_needs_the_training_extra_names_it(
    words: list[str], purpose: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("texts.jsonl").write_text('{"query": "a", "passage": "b"}\n')
    for module in ("export", "quantization", "transformers_folder"):
        monkeypatch.delitem(sys.modules, f"bridge.training.{module}", raising=False)
        monkeypatch.delattr(f"bridge.training.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UsageError, match=rf"{purpose} needs the package onnx: pip install '.*\[train\]'"):
        CliRunner().invoke(command, words, catch_exceptions=False)


def test_a_static_encoder_is_made_and_described(tmp_path: Path) -> None:
    encoder = make_toy_encoder(tmp_path / "encoder")
    (tmp_path / "a.jsonl").write_text(json.dumps({"title": "", "text": " ".join(WORDS)}) + "\n")
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write('{"passage": "cat dog", "query": ""}\n' * 2)
    texts = ["--texts", str(tmp_path / "a.jsonl"), "--texts", str(tmp_path / "b.jsonl.gz")]
    out = str(tmp_path / "static")
    made = json.loads(
        _output("static", str(encoder.path), out, *texts, "--name", "quick", "--dimension", "8", "--json")
    )
    assert (made["kind"], made["dimension"], made["file"]) == ("static_encoder", 8, "vectors.npy")
    assert made["sources"][1] == "its pieces counted in 2 texts of a.jsonl, b.jsonl.gz"
    assert json.loads(_output("show", out)) == made
    assert _output("verify", out).splitlines()[0] == f"{made['identity']}: whole, and it runs"


def test_texts_to_count_in_are_the_first_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(f'{{"text": "{number}"}}\n' for number in range(COUNTED_TEXTS + 5)))
    assert read_texts(file) == [str(number) for number in range(COUNTED_TEXTS)]


@pytest.mark.parametrize("line", ['{"title": "a"}', '["text"]', "not JSON", '"text"', '{"text": 7}'])
def test_a_line_without_text_to_count_in_is_refused(tmp_path: Path, line: str) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text(f'{{"text": "a"}}\n{line}\n')
    with pytest.raises(UsageError, match=r"texts\.jsonl:2: expected a JSON object with `text` or `passage`"):
        read_texts(file)


def test_a_file_that_is_not_gzipped_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl.gz"
    file.write_text('{"text": "a"}\n')
    with pytest.raises(UsageError, match="Not a gzipped file"):
        read_texts(file)
