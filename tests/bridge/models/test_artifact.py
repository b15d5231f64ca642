"""Model folders: what is found, what is refused, and how the refusal reads."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.errors import ModelError
from bridge.models.artifact import ModelFolder, builtin_names, read_folder, resolve, verify
from bridge.models.cross_encoder import CrossEncoder
from tests.toys import make_toy_cross_encoder, make_toy_encoder


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return make_toy_cross_encoder(tmp_path / "toy")


def test_a_path_resolves_to_its_folder(folder: ModelFolder) -> None:
    assert resolve(str(folder.path)).identity == folder.identity


def test_identity_is_name_and_first_digits_of_the_main_file(folder: ModelFolder) -> None:
    name, digest = folder.identity.split("@")
    assert name == "toy-cross-encoder"
    assert folder.manifest.files["model.onnx"].startswith(digest)
    assert len(digest) == 12


def test_every_builtin_resolves_and_is_whole() -> None:
    for name in builtin_names():
        built_in = resolve(name)
        assert built_in.manifest.name == name
        verify(built_in, kind=built_in.manifest.kind)


@pytest.mark.parametrize("name", ["no-such-model", "./no/such/folder"])
def test_an_unknown_name_tells_what_was_looked_for(name: str) -> None:
    with pytest.raises(ModelError, match=r"neither a folder with a manifest\.json nor built in"):
        resolve(name)


def test_a_folder_without_manifest_tells_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neural-bridge models export"):
        resolve(str(tmp_path))


def test_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is of kind encoder, a cross_encoder is needed"):
        CrossEncoder.load(make_toy_encoder(tmp_path))


def _remove(file: Path) -> None:
    file.unlink()


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _html(file: Path) -> None:
    file.write_text("\n<!DOCTYPE html><html><title>404</title></html>")


def _lfs_pointer(file: Path) -> None:
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4665\nsize 23592656\n")


def _truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


def _no_onnx(file: Path) -> None:
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))


def _changed(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(bytes(content))


def _folder_instead(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.case("R13")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_remove, "is missing"),
        (_empty, "is empty"),
        (_html, "is an HTML page"),
        (_lfs_pointer, "is a git-lfs pointer"),
        (_truncated, "is truncated or no ONNX model"),
        (_no_onnx, "no ONNX model"),
        (_changed, "has SHA-256"),
        (_folder_instead, "is no regular file"),
    ],
)
def test_a_damaged_model_is_refused_by_name_and_reason(
    folder: ModelFolder, damage: Callable[[Path], None], message: str
) -> None:
    damage(folder.model_file)
    with pytest.raises(ModelError, match=message) as refusal:
        CrossEncoder.load(resolve(str(folder.path)))
    assert str(folder.model_file) in str(refusal.value)


@pytest.mark.case("R15")
@pytest.mark.skipif(not hasattr(os, "symlink"), reason="symbolic links are not known here")
def test_a_symbolic_link_out_of_the_folder_is_refused(folder: ModelFolder, tmp_path: Path) -> None:
    outside = tmp_path / "outside.onnx"
    folder.model_file.rename(outside)
    folder.model_file.symlink_to(outside)
    with pytest.raises(ModelError, match="is a link out of its folder"):
        verify(folder, kind="cross_encoder")


@pytest.mark.case("R14")
def test_files_that_the_manifest_does_not_list_are_never_opened(folder: ModelFolder) -> None:
    for name in ("pytorch_model.bin", "weights.pt", "weights.pkl", "config.json", "modeling.py"):
        os.mkfifo(folder.path / name)  # opening one would hang the test
    assert CrossEncoder.load(resolve(str(folder.path))).score("cat", ["cat"]).tolist() == [1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "oracle"}, "Invalid enum value 'oracle'"),
        ({"files": {}}, "`files` has no digest of model.onnx"),
        ({"files": {"model.onnx": "", "tokenizer.json": "", "../../etc/passwd": ""}}, "must be a plain name"),
        ({"unknown_key": 1}, "unknown field `unknown_key`"),
        ({"kind": "encoder"}, "an encoder needs `dimension`"),
    ],
)
def test_a_wrong_manifest_is_refused(folder: ModelFolder, change: dict[str, object], message: str) -> None:
    file = folder.path / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ModelError, match=message):
        read_folder(folder.path)


@pytest.mark.case("R17")
def test_a_tokenizer_beyond_the_limit_is_refused_before_it_is_read(folder: ModelFolder) -> None:
    with folder.tokenizer_file.open("r+b") as file:
        file.truncate(65_000_000)
    with pytest.raises(ModelError, match="has 65,000,000 bytes, at most 64,000,000 are read"):
        verify(folder, kind="cross_encoder")


@pytest.mark.case("R30")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", -5),
        ("max_tokens", 2),
        ("dimension", 0),
        ("keep_tokens", 0),
        ("keep_tokens", 2),
    ],
)
def test_a_number_out_of_its_range_is_named_with_what_was_expected(
    folder: ModelFolder, field: str, value: float
) -> None:
    file = folder.path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), field: value}))
    with pytest.raises(ModelError, match=rf"manifest\.json cannot be read \(Expected .*{field}.*export the model anew"):
        resolve(str(folder.path))
