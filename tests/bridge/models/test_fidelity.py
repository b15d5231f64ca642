"""How true a model is to another form of itself."""

import json
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

from bridge.commands.models import command
from bridge.errors import ModelError
from bridge.models.artifact import ModelFolder, write_manifest
from bridge.models.fidelity import check, fidelity, kendall_tau
from tests.toys import (
    WORDS,
    make_toy_cross_encoder,
    make_toy_encoder,
    make_toy_sparse_encoder,
    make_toy_static_encoder,
)

PAIRS = [(" ".join(WORDS[start : start + 3]), " ".join(WORDS[start + 1 : start + 6])) for start in range(0, 40, 2)]


def other_words(folder: ModelFolder) -> ModelFolder:
    """The toy encoder with its words' embeddings in another order: it agrees with nothing."""
    model = onnx.load(str(folder.model_file))
    table = numpy_helper.to_array(model.graph.initializer[0])
    turned = np.ascontiguousarray(table[::-1])
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(turned, "table"))
    onnx.save_model(model, str(folder.model_file))
    return write_manifest(folder.path, folder.manifest)


def test_a_model_is_true_to_itself(tmp_path: Path) -> None:
    encoder = make_toy_encoder(tmp_path / "encoder")
    figures = fidelity(encoder, encoder, PAIRS)
    assert figures["cosine_to_reference"] == pytest.approx(1.0)
    assert figures["nearest_shared"] == 1.0
    assert figures["speed_ratio"] > 0
    check(figures, encoder)
    static = make_toy_static_encoder(tmp_path / "static")
    assert fidelity(static, static, PAIRS)["nearest_shared"] == 1.0
    cross_encoder = make_toy_cross_encoder(tmp_path / "cross-encoder")
    assert fidelity(cross_encoder, cross_encoder, PAIRS)["logit_difference"] == 0.0


def test_a_sparse_encoder_is_true_to_itself_and_one_that_knows_half_the_words_is_not(tmp_path: Path) -> None:
    encoder = make_toy_sparse_encoder(tmp_path / "sparse")
    figures = fidelity(encoder, encoder, PAIRS)
    assert figures["cosine_to_reference"] == pytest.approx(1.0)
    assert figures["terms_shared"] == 1.0
    other = fidelity(encoder, make_toy_sparse_encoder(tmp_path / "half", WORDS[::2]), PAIRS)
    assert other["terms_shared"] < 0.7
    assert other["cosine_to_reference"] < 0.9


def test_kinds_are_not_mixed(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be compared"):
        fidelity(make_toy_encoder(tmp_path / "a"), make_toy_cross_encoder(tmp_path / "b"), PAIRS)


@pytest.mark.parametrize(
    ("other", "expected"), [([1, 2, 3, 4], 1.0), ([4, 3, 2, 1], -1.0), ([2, 1, 3, 4], 2 / 3), ([1, 1, 1, 1], 0.0)]
)
def test_kendalls_tau_counts_pairs(other: list[float], expected: float) -> None:
    first = np.array([1, 2, 3, 4], dtype=np.float32)
    assert kendall_tau(first, np.array(other, dtype=np.float32)) == pytest.approx(expected)


def test_a_model_that_leaves_out_tokens_may_differ_more(tmp_path: Path) -> None:
    whole = make_toy_cross_encoder(tmp_path)
    with pytest.raises(ModelError, match=r"kendall_tau is 0\.750, at least 0\.8 is rounding"):
        check({"kendall_tau": 0.75}, whole)
    pruned = write_manifest(tmp_path, msgspec.structs.replace(whole.manifest, keep_tokens=0.4))
    check({"kendall_tau": 0.75}, pruned)
    with pytest.raises(ModelError, match=r"kendall_tau is 0\.650, at least 0\.7"):
        check({"kendall_tau": 0.65}, pruned)


def test_the_command_measures_and_refuses_another_model(tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"query": query, "passage": passage}) + "\n" for query, passage in PAIRS))
    reference = make_toy_encoder(tmp_path / "reference")
    options = ["--against", str(reference.path), "--texts", str(texts)]
    true = CliRunner().invoke(command, ["verify", str(make_toy_encoder(tmp_path / "same").path), *options])
    assert true.exit_code == 0
    assert "cosine_to_reference 1.0000" in true.stdout
    strange = other_words(make_toy_encoder(tmp_path / "other"))
    refused = CliRunner().invoke(command, ["verify", str(strange.path), *options])
    assert isinstance(refused.exception, ModelError)
    assert "is not the reference in another form: cosine_to_reference" in str(refused.exception)
