"""Float32 model files → int8 ones, on a graph small enough to follow: words → table → two products."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bridge.errors import ModelError
from bridge.models.artifact import TOKENIZER, Manifest, ModelFolder, names_only, write_manifest
from bridge.models.tokenization import TokenArrays, load_tokenizer
from bridge.training import quantization
from tests.toys import WORDS, make_toy_static_encoder, save_model, toy_tokenizer

N_WORDS, WIDTH, INNER = 2000, 32, 64
LOUD_CHANNEL = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """An encoder with a channel fifty times as loud as the others, which plain int8 cannot take."""
    path = tmp_path_factory.mktemp("float32")
    chosen = np.random.default_rng(5)
    table = chosen.normal(size=(N_WORDS, WIDTH)).astype(np.float32)
    loudness = np.ones(WIDTH, dtype=np.float32)
    loudness[LOUD_CHANNEL] = 50
    first = chosen.normal(size=(WIDTH, INNER)).astype(np.float32)
    first[LOUD_CHANNEL] /= 50
    second = chosen.normal(size=(INNER, WIDTH)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"]),
        helper.make_node("Mul", ["words", "loudness"], ["loud_words"]),
        helper.make_node("MatMul", ["loud_words", "first"], ["inner"], name="first_product"),
        helper.make_node("Tanh", ["inner"], ["bent"]),
        helper.make_node("MatMul", ["bent", "second"], ["last_hidden_state"], name="second_product"),
    ]
    shape = ["batch", "tokens"]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, shape)],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*shape, WIDTH])],
        [
            numpy_helper.from_array(value, name)
            for name, value in (("table", table), ("loudness", loudness), ("first", first), ("second", second))
        ],
    )
    save_model(path / "model.onnx", graph)
    toy_tokenizer().save(str(path / TOKENIZER))
    manifest = Manifest(
        kind="encoder",
        name="small",
        licence="Apache-2.0",
        max_tokens=32,
        dimension=WIDTH,
        files=names_only(["model.onnx", TOKENIZER]),
    )
    return write_manifest(path, manifest)


@pytest.fixture(scope="module")
def sequences(folder: ModelFolder) -> list[TokenArrays]:
    return load_tokenizer(folder).sequences([" ".join(WORDS[start : start + 7]) for start in range(0, 40, 5)])


def _run(model: onnx.ModelProto, arrays: TokenArrays) -> NDArray[np.float32]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"input_ids": arrays["input_ids"]})[0], dtype=np.float32)


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


def test_maxima_are_those_of_each_channel(folder: ModelFolder, sequences: list[TokenArrays]) -> None:
    model = onnx.load(str(folder.model_file))
    table = numpy_helper.to_array(model.graph.initializer[0])
    ids = np.concatenate([arrays["input_ids"][0] for arrays in sequences])
    maxima = quantization.activation_maxima(model, sequences)
    expected = np.abs(table[ids]).max(axis=0)
    expected[LOUD_CHANNEL] *= 50
    assert set(maxima) == {"loud_words", "bent"}
    assert maxima["loud_words"] == pytest.approx(expected)


def test_smoothing_changes_no_result(folder: ModelFolder, sequences: list[TokenArrays]) -> None:
    model = onnx.load(str(folder.model_file))
    before = _run(model, sequences[0])
    quantization.smooth(model, quantization.activation_maxima(model, sequences))
    onnx.checker.check_model(model)
    assert sum(node.op_type == "Mul" for node in model.graph.node) == 3
    assert _run(model, sequences[0]) == pytest.approx(before, rel=1e-4, abs=1e-4)


def test_smoothing_makes_channels_alike(folder: ModelFolder, sequences: list[TokenArrays]) -> None:
    model = onnx.load(str(folder.model_file))
    loudest = quantization.activation_maxima(model, sequences)["loud_words"]
    quantization.smooth(model, {"loud_words": loudest})
    smoothed = quantization.activation_maxima(model, sequences)["smoothed_0"]
    assert loudest[LOUD_CHANNEL] / np.median(loudest) > 20
    assert smoothed[LOUD_CHANNEL] / np.median(smoothed) < 4


def test_the_word_table_becomes_bytes_with_a_scale_per_word(folder: ModelFolder, sequences: list[TokenArrays]) -> None:
    model = onnx.load(str(folder.model_file))
    before = _run(model, sequences[0])
    quantization.quantize_word_table(model)
    onnx.checker.check_model(model)
    tables = {tensor.name: tensor for tensor in model.graph.initializer}
    assert tables["table_rows"].data_type == TensorProto.INT8
    assert list(tables["table_scales"].dims) == [N_WORDS, 1]
    assert "table" not in tables
    assert _cosine(_run(model, sequences[0]), before) > 0.99


def test_a_quantised_folder_is_small_close_and_says_how_close(folder: ModelFolder, tmp_path: Path) -> None:
    pairs = [(WORDS[number], " ".join(WORDS[number : number + 9])) for number in range(40)]
    made = quantization.quantize_folder(folder, tmp_path / "int8", pairs)
    assert made.model_file.stat().st_size < 0.4 * folder.model_file.stat().st_size
    assert made.identity != folder.identity
    assert made.manifest.figures["cosine_to_reference"] > 0.99
    assert made.manifest.figures["nearest_shared"] > 0.8


def test_a_halved_folder_is_half_as_large_and_closer(folder: ModelFolder, tmp_path: Path) -> None:
    pairs = [(WORDS[number], " ".join(WORDS[number : number + 9])) for number in range(40)]
    made = quantization.quantize_folder(folder, tmp_path / "fp16", pairs, precision="fp16")
    weights = onnx.load(str(made.model_file)).graph.initializer
    assert {tensor.data_type for tensor in weights if tensor.name in ("table", "second")} == {TensorProto.FLOAT16}
    assert made.model_file.stat().st_size < 0.6 * folder.model_file.stat().st_size
    assert made.manifest.figures["cosine_to_reference"] > 0.9999
    assert made.manifest.figures["nearest_shared"] == 1.0


def test_the_mask_is_taken_out_with_all_that_only_it_needs() -> None:
    shape = ["batch", "tokens"]
    ids, mask = (helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "mask"))
    states = np.random.default_rng(1).normal(size=(N_WORDS, WIDTH)).astype(np.float32)
    product = np.random.default_rng(2).normal(size=(WIDTH, 3 * WIDTH)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"]),
        helper.make_node("Cast", ["mask"], ["mask_as_int32"], to=TensorProto.INT32),
        helper.make_node("ReduceSum", ["mask_as_int32", "axes"], ["n_tokens"], keepdims=0),
        helper.make_node(
            "Attention", ["words", "qkv", "bias", "n_tokens"], ["out"], domain="com.microsoft", num_heads=2
        ),
    ]
    constants = {"table": states, "qkv": product, "bias": np.zeros(3 * WIDTH, np.float32), "axes": np.array([1])}
    graph = helper.make_graph(
        nodes,
        "g",
        [ids, mask],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [*shape, WIDTH])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=8)
    given = {"input_ids": np.array([[3, 1, 4]]), "mask": np.ones((1, 3), dtype=np.int64)}
    masked = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, given)[0]
    quantization.drop_mask(model)
    assert [node.op_type for node in model.graph.node] == ["Gather", "Attention"]
    assert [given.name for given in model.graph.input] == ["input_ids"]
    assert _run(model, given) == pytest.approx(masked, abs=1e-6)


def test_without_texts_nothing_is_quantised(folder: ModelFolder, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be quantised without texts"):
        quantization.quantize(folder.model_file, tmp_path / "int8.onnx", [])
    with pytest.raises(ModelError, match="1 texts are too few"):
        quantization.quantize_folder(folder, tmp_path, [("cat", "dog")])


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_only_cross_encoders_can_leave_out_tokens(
    folder: ModelFolder, tmp_path: Path, precision: quantization.Precision
) -> None:
    pairs = [("cat", "dog")] * 16
    with pytest.raises(ModelError, match=r"keep_tokens is 0\.4, and only cross-encoders in int8"):
        quantization.quantize_folder(folder, tmp_path, pairs, precision=precision, keep_tokens=0.4)


def test_a_static_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is of kind static_encoder, whose weights are int8 already"):
        quantization.quantize_folder(make_toy_static_encoder(tmp_path / "static"), tmp_path / "out", [])
