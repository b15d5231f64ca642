"""What is read of an ONNX file before ONNX Runtime opens it."""

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bridge.errors import ModelError
from bridge.models import onnx_file
from tests.toys import make_toy_cross_encoder


def _external(location: str) -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(4, dtype=np.float32), "weights")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return tensor


def _graph(nodes: list[onnx.NodeProto], initializers: list[TensorProto]) -> onnx.GraphProto:
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    return helper.make_graph(nodes, "g", [], [output], initializers)


def _save(path: Path, graph: onnx.GraphProto) -> Path:
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return path


@pytest.mark.case("R15")
@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "linked.bin", "weights.bin"])
def test_weights_in_another_file_are_refused_wherever_it_lies(tmp_path: Path, location: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(16))
    os.link(secret, tmp_path / "linked.bin")
    identity = helper.make_node("Identity", ["weights"], ["y"])
    file = _save(tmp_path / "model.onnx", _graph([identity], [_external(location)]))
    with pytest.raises(ModelError, match=f"keeps weights in another file .*{location}"):
        onnx_file.check(file)


@pytest.mark.case("R15")
def test_external_weights_are_found_in_nested_graphs(tmp_path: Path) -> None:
    constant = helper.make_node("Constant", [], ["y"], value=_external("../secret"))
    branch = _graph([constant], [])
    condition = helper.make_node("If", ["condition"], ["y"], then_branch=branch, else_branch=branch)
    given_condition = numpy_helper.from_array(np.array(True), "condition")
    with pytest.raises(ModelError, match="keeps weights in another file"):
        onnx_file.check(_save(tmp_path / "model.onnx", _graph([condition], [given_condition])))


def test_a_whole_model_passes(tmp_path: Path) -> None:
    onnx_file.check(make_toy_cross_encoder(tmp_path).model_file)


def test_a_model_without_graph_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(onnx.ModelProto(producer_name="nobody").SerializeToString())
    with pytest.raises(ModelError, match="holds no graph"):
        onnx_file.check(file)


@given(st.binary(min_size=1, max_size=200))
def test_any_bytes_pass_or_are_refused_and_nothing_else_happens(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.mktemp("any") / "model.onnx"
    file.write_bytes(content)
    with suppress(ModelError):
        onnx_file.check(file)
