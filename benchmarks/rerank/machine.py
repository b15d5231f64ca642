"""What the machine could do at best: int8 matrix products a second, and how many of them a model needs."""

import os
import platform
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from bridge.models.tokenization import TokenArrays

_SIZES = ((384, 384, 1536), (256, 1024, 1024), (1024, 1024, 1024))
_SECONDS = 0.3
_PRODUCTS = ("MatMulInteger", "QAttention")
"""Nodes that multiply by int8 weights, their second input."""

_FIRST_STATE = "first_token"
"""The tensor of the first token's states in an exported cross-encoder: see `bridge.training.export`."""

_KEPT_STATES = "kept_states"
"""That of the states that go on where tokens are left out: see `bridge.training.token_pruning`."""


def name() -> str:
    """The processor and its CPUs, for people."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} CPUs"


def resident_mb(pid: int) -> float:
    """Resident memory of a process, MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def int8_peak(threads: int) -> float:
    """Operations a second of ONNX Runtime's int8 matrix product, the best of several sizes, all threads together; a
    multiplication and an addition count as two."""
    with ThreadPoolExecutor(threads) as executor:
        return max(sum(executor.map(lambda _, size=size: _rate(*size), range(threads))) for size in _SIZES)


def operations(model_file: Path, pairs: Sequence[TokenArrays]) -> float:
    """Operations of the int8 products and of attention for these pairs. What comes after tokens are left out is
    computed for the others alone, and what comes after the first token is taken out, in the last layer, for that one.
    """
    model = onnx.load(str(model_file))
    weights = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    reads = {_KEPT_STATES: "kept", _FIRST_STATE: "first"}
    products = dict.fromkeys(("all", "kept", "first"), 0.0)
    attention = dict.fromkeys(products, 0.0)
    for node in model.graph.node:
        read = max((reads.get(name, "all") for name in node.input), key=list(products).index, default="all")
        for name in node.output:
            reads.setdefault(name, read)
        if node.op_type in _PRODUCTS:
            rows, columns = weights[node.input[1]]
            products[read] += 2 * rows * columns
            if node.op_type == "QAttention":
                attention[read] += 4 * columns / 3
        elif node.op_type == "MultiHeadAttention":
            attention[read] += 4 * weights[node.input[3]][0] / 3
    total = 0.0
    for n_all, n_kept in zip([pair["input_ids"].size for pair in pairs], _kept(model, pairs), strict=True):
        tokens = {"all": n_all, "kept": n_kept, "first": 1}
        total += sum(n * products[read] for read, n in tokens.items())
        total += attention["all"] * n_all**2 + attention["kept"] * n_kept**2 + attention["first"] * n_kept
    return total


def _kept(model: onnx.ModelProto, pairs: Sequence[TokenArrays]) -> list[int]:
    """Tokens of each pair that the upper layers read."""
    if not any(_KEPT_STATES in node.output for node in model.graph.node):
        return [pair["input_ids"].size for pair in pairs]
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(_KEPT_STATES, TensorProto.FLOAT, None))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    taken = [given.name for given in session.get_inputs()]
    return [session.run(None, {name: pair[name] for name in taken})[0].shape[1] for pair in pairs]


def shape(model_file: Path) -> dict[str, int]:
    """A BERT-shaped model's sizes, under the names of its configuration."""
    graph = onnx.load(str(model_file)).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    layers = [node for node in graph.node if node.op_type in ("QAttention", "MultiHeadAttention")]
    [rows] = [tensor.dims for name, tensor in weights.items() if name.endswith("word_embeddings.weight_rows")]
    heads = next(helper.get_attribute_value(given) for given in layers[0].attribute if given.name == "num_heads")
    widths = [tensor.dims[1] for tensor in weights.values() if len(tensor.dims) == 2 and tensor.dims[0] == rows[1]]
    return {
        "vocab_size": rows[0],
        "hidden_size": rows[1],
        "num_hidden_layers": len(layers),
        "num_attention_heads": heads,
        "intermediate_size": max(width for width in widths if width != 3 * rows[1]),
    }


def _rate(n_rows: int, n_inner: int, n_columns: int) -> float:
    session, given = _product(n_rows, n_inner, n_columns)
    session.run(None, given)
    started, n_runs = time.perf_counter(), 0
    while (took_s := time.perf_counter() - started) < _SECONDS:
        session.run(None, given)
        n_runs += 1
    return 2.0 * n_rows * n_inner * n_columns * n_runs / took_s


def _product(n_rows: int, n_inner: int, n_columns: int) -> tuple[ort.InferenceSession, dict[str, Any]]:
    chosen = np.random.default_rng(0)
    weights = chosen.integers(-127, 127, (n_inner, n_columns), dtype=np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["given", "weights", "zero_point"], ["product"])],
        "product",
        [helper.make_tensor_value_info("given", TensorProto.UINT8, [n_rows, n_inner])],
        [helper.make_tensor_value_info("product", TensorProto.INT32, [n_rows, n_columns])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.array(128, np.uint8), "zero_point")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session, {"given": chosen.integers(0, 255, (n_rows, n_inner), dtype=np.uint8)}
