"""The wide output layer of a sparse encoder: the largest terms of a text, and the same in int8."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bridge.models.session import Session
from bridge.training.output_layer import append_output_layer
from bridge.training.quantization import quantize_products

N_PIECES, WIDTH, N_TERMS = 2500, 32, 20


@pytest.fixture(scope="module")
def table() -> NDArray[np.float32]:
    return np.random.default_rng(5).normal(size=(N_PIECES, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def bias() -> NDArray[np.float32]:
    bias = np.random.default_rng(6).normal(size=N_PIECES).astype(np.float32)
    bias[:1000] = -1e9
    return bias


@pytest.fixture(scope="module")
def model_file(table: NDArray[np.float32], bias: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph whose token states are the rows of the table plus their places in the text: a piece that occurs again
    has another state."""
    shape = ["batch", "tokens"]
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
            helper.make_node("CumSum", ["rows", "axis"], ["states"]),
        ],
        "g",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, shape)],
        [helper.make_tensor_value_info("states", TensorProto.FLOAT, [*shape, WIDTH])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.int64(1), "axis")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    append_output_layer(model, "states", "table", bias, N_TERMS)
    onnx.checker.check_model(model, full_check=True)
    path = tmp_path_factory.mktemp("float32") / "model.onnx"
    onnx.save_model(model, str(path))
    return path


@pytest.fixture(scope="module")
def int8_file(model_file: Path) -> Path:
    path = model_file.with_name("int8.onnx")
    quantize_products(model_file, path)
    return path


def ids_of(*numbers: int) -> dict[str, NDArray[np.int64]]:
    return {"input_ids": np.array([numbers], dtype=np.int64)}


def expected(table: NDArray[np.float32], bias: NDArray[np.float32], numbers: list[int]) -> NDArray[np.float32]:
    """Weights of all pieces, float32 (n_pieces,)."""
    states = np.cumsum(table[numbers], axis=0)
    first = [numbers.index(number) for number in dict.fromkeys(numbers)]
    weights: NDArray[np.float32] = np.log1p(np.maximum((states[first] @ table.T + bias).max(axis=0), 0))
    return weights


TEXTS = [[1200], [1200, 1300], [7, 1500, 7, 2000, 1500, 8], list(range(1000, 1101))]


@pytest.mark.parametrize("numbers", TEXTS, ids=len)
def test_weights_are_the_maxima_over_distinct_tokens(
    model_file: Path, table: NDArray[np.float32], bias: NDArray[np.float32], numbers: list[int]
) -> None:
    weights = expected(table, bias, numbers)
    found = Session(model_file).run_all(ids_of(*numbers))
    assert found["weights"].shape == found["ids"].shape == (1, N_TERMS)
    assert found["weights"][0] == pytest.approx(np.sort(weights)[::-1][:N_TERMS], abs=1e-4)
    assert found["weights"][0] == pytest.approx(weights[found["ids"][0].astype(int)], abs=1e-4)
    assert (found["ids"] >= 1000).all()


@pytest.mark.parametrize("numbers", TEXTS, ids=len)
def test_int8_finds_nearly_the_same_terms(model_file: Path, int8_file: Path, numbers: list[int]) -> None:
    """Also for texts whose tokens fill no part, or not all parts, of the products."""
    whole, small = (Session(file).run_all(ids_of(*numbers)) for file in (model_file, int8_file))
    assert len(set(whole["ids"][0]) & set(small["ids"][0])) >= N_TERMS - 3
    assert small["weights"][0] == pytest.approx(whole["weights"][0], rel=0.03)


def test_int8_holds_the_word_table_once(model_file: Path, int8_file: Path) -> None:
    assert int8_file.stat().st_size < 0.4 * model_file.stat().st_size
    stored = [tensor for tensor in onnx.load(str(int8_file)).graph.initializer if N_PIECES in tensor.dims]
    assert sum(tensor.data_type == TensorProto.INT8 for tensor in stored) == 1
    assert all(tensor.data_type == TensorProto.INT8 or WIDTH not in tensor.dims for tensor in stored)
