"""ONNX Runtime behind one door."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from bridge.errors import ModelError, SettingsError
from bridge.models import session
from bridge.models.session import CPU, Session, check_providers, compute_threads
from tests.toys import save_model

X = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])
Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["any", "shape"])
IDS = {"input_ids": np.array([[1, 2]], dtype=np.int64), "unused": np.array([[0]], dtype=np.int64)}


def _saved(path: Path, *nodes: object, inputs: object = None, constants: dict[str, object] | None = None) -> Path:
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    save_model(path, helper.make_graph(list(nodes), "g", [inputs or X], [Y], initializers))
    return path


def test_inputs_that_the_model_does_not_take_are_left_out(tmp_path: Path) -> None:
    cast = helper.make_node("Cast", ["input_ids"], ["y"], to=TensorProto.FLOAT)
    opened = Session(_saved(tmp_path / "m.onnx", cast), inputs=frozenset(IDS))
    assert opened.run(IDS).tolist() == [[1.0, 2.0]]


@pytest.mark.case("R13")
def test_a_model_that_wants_other_inputs_is_refused(tmp_path: Path) -> None:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3])
    identity = helper.make_node("Identity", ["image"], ["y"])
    with pytest.raises(ModelError, match=r"wants inputs \['image'\], known are \['input_ids'"):
        Session(_saved(tmp_path / "m.onnx", identity, inputs=image), inputs=frozenset(IDS))


@pytest.mark.case("R13")
def test_a_model_of_an_opset_from_the_future_is_refused(tmp_path: Path) -> None:
    cast = helper.make_node("Cast", ["input_ids"], ["y"], to=TensorProto.FLOAT)
    graph = helper.make_graph([cast], "g", [X], [Y])
    file = tmp_path / "m.onnx"
    file.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9999)]).SerializeToString())
    with pytest.raises(ModelError, match="ONNX Runtime cannot load it"):
        Session(file, inputs=frozenset(IDS))


@pytest.mark.case("R16")
@pytest.mark.parametrize("shape_from", ["constant", "input"])
def test_a_model_that_asks_for_all_memory_is_refused(tmp_path: Path, shape_from: str) -> None:
    """40 thousand million floats, whether asked for at loading or at running."""
    shape = "size" if shape_from == "constant" else "size_of_input"
    nodes = [
        helper.make_node("ReduceMax", ["input_ids"], ["largest"], keepdims=0),
        helper.make_node("Div", ["largest", "largest"], ["one"]),
        helper.make_node("Mul", ["one", "size"], ["size_of_input"]),
        helper.make_node("ConstantOfShape", [shape], ["huge"]),
        helper.make_node("Unsqueeze", ["huge", "zero"], ["y"]),
    ]
    file = _saved(tmp_path / "m.onnx", *nodes, constants={"size": np.array([40_000_000_000]), "zero": np.array([0])})
    with pytest.raises(ModelError, match=r"m\.onnx"):
        Session(file, inputs=frozenset(IDS)).run(IDS)


@pytest.mark.parametrize(
    ("providers", "message"),
    [
        (["cuda"], "there is no cuda here, but .*CPUExecutionProvider"),
        ([CPU, "CUDAExecutionProvider2"], "there is no CUDAExecutionProvider2 here"),
        ([], "at least one is needed, such as CPUExecutionProvider"),
    ],
)
def test_a_provider_that_is_not_here_is_refused(providers: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        check_providers(providers, setting="sidecar.providers")


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_does_not_start_is_not_left_out_silently(tmp_path: Path) -> None:
    """ONNX Runtime goes on without it, on the CPU."""
    cast = helper.make_node("Cast", ["input_ids"], ["y"], to=TensorProto.FLOAT)
    with pytest.raises(SettingsError, match="NowhereExecutionProvider does not start on this machine"):
        Session(_saved(tmp_path / "m.onnx", cast), providers=["NowhereExecutionProvider", CPU])


@pytest.mark.parametrize(
    ("limit", "at_most"), [("max 100000", None), ("100000 100000", 1), ("50000 100000", 1), ("rubbish", None)]
)
def test_threads_follow_the_quota_of_the_cgroup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, at_most: int | None
) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(limit)
    monkeypatch.setattr(session, "CGROUP_CPU_LIMIT", file)
    assert compute_threads(3) == 3
    assert compute_threads(0) == at_most if at_most else compute_threads(0) >= 1
