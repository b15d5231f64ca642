"""Makes an int8 model folder of a float32 one (a quarter of the size, two to three times the speed), or a float16 one.

Weights become int8 with one scale per output channel. Activations are quantised at run time (dynamic); with one
sequence per run, a text's result does not depend on other texts. Plain dynamic quantisation loses a tenth of the top-10
documents, because a few channels of the activations are many times larger than the others and set the scale for all. So
these channels are scaled down and their weights up (Xiao et al. 2023, "SmoothQuant": https://arxiv.org/abs/2211.10438),
by a multiplication before each matrix product. The layer norm's weights cannot take the factors, because its output is
also the residual.

The word table becomes int8 with one scale per word.

GPUs get float16 instead, because they need another form of int8 products: half of the size, with unchanged inputs and
outputs.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.float16 import convert_float_to_float16

from bridge.errors import ModelError
from bridge.models.artifact import ModelFolder, verify, write_manifest
from bridge.models.fidelity import fidelity
from bridge.models.image_encoder import INPUT, read_picture
from bridge.models.tokenization import load_tokenizer
from bridge.training.output_layer import quantize_output_layer
from bridge.training.token_pruning import prune_tokens

SMOOTHING = 0.8
"""Share of the difficulty that moves from activations to weights, the paper's alpha; measured from .5 to .85."""

Precision = Literal["int8", "fp16"]

_QUANTISED = ("MatMul", "Attention")
_MASK_PLACE = {"Attention": 3, "MultiHeadAttention": 4}
"""Operators that take the mask, and the position of that input."""

_SMALL_TABLE_ROWS = 1024
_FEWEST_PAIRS = 8


def quantize_folder(
    folder: ModelFolder,
    out: Path,
    pairs: Sequence[tuple[str, str]],
    *,
    precision: Precision = "int8",
    keep_tokens: float = 1.0,
    pictures: Sequence[bytes] = (),
) -> ModelFolder:
    """Makes an int8 or a float16 model folder of a float32 one; for an image encoder `pictures` are files like those
    that it will read.

    One half of `pairs` (query, passage) calibrates the ranges. The other half compares the two models, and the figures
    go into the manifest. `keep_tokens` below 1 is for cross-encoders in int8: the share of a passage's tokens that the
    upper half of the layers reads, see `prune_tokens`.

    Raises:
        ModelError: not an encoder or a cross-encoder, too few pairs or pictures, or a model that needs all tokens.
        PictureRefused: one of the pictures cannot be read.
    """
    verify(folder, kind=folder.manifest.kind)
    if folder.manifest.kind in ("query_generator", "static_encoder"):
        raise ModelError(f"model {folder.path} is of kind {folder.manifest.kind}, whose weights are int8 already")
    if len(pairs) < 2 * _FEWEST_PAIRS:
        raise ModelError(f"{len(pairs)} texts are too few to quantise model {folder.path}: give {2 * _FEWEST_PAIRS}")
    if keep_tokens < 1 and (folder.manifest.kind != "cross_encoder" or precision != "int8"):
        raise ModelError(
            f"model {folder.path}: keep_tokens is {keep_tokens:g}, and only cross-encoders in int8 can leave out "
            f"tokens: leave it at 1"
        )
    tower = folder.manifest.pictures
    if tower is not None and len(pictures) < 2 * _FEWEST_PAIRS:
        raise ModelError(
            f"{len(pictures)} pictures are too few to quantise model {folder.path}: give a folder of "
            f"{2 * _FEWEST_PAIRS} with --pictures"
        )
    seen, unseen = pairs[::2], pairs[1::2]
    tokenizer = load_tokenizer(folder)
    calibration = [
        arrays
        for query, passage in seen
        for arrays in (
            tokenizer.pairs(query, [passage])
            if folder.manifest.kind == "cross_encoder"
            else tokenizer.sequences([text for text in (query, passage) if text])
        )
    ]
    towers: dict[str, Sequence[Mapping[str, NDArray[Any]]]] = {folder.manifest.file: calibration}
    if tower is not None:
        towers[tower.file] = [{INPUT: read_picture(each, tower)[None]} for each in pictures[::2]]
    out.mkdir(parents=True, exist_ok=True)
    for name, arrays in towers.items():
        if precision == "fp16":
            halve(folder.path / name, out / name)
        else:
            quantize(folder.path / name, out / name, arrays, keep_tokens=keep_tokens)
    for name in folder.manifest.files.keys() - towers.keys():
        shutil.copyfile(folder.path / name, out / name)
    made = write_manifest(out, msgspec.structs.replace(folder.manifest, keep_tokens=keep_tokens))
    return write_manifest(
        out, msgspec.structs.replace(made.manifest, figures=fidelity(folder, made, unseen, pictures[1::2]))
    )


def quantize(
    model_file: Path,
    out_file: Path,
    calibration: Sequence[Mapping[str, NDArray[Any]]],
    *,
    keep_tokens: float = 1.0,
) -> None:
    """Writes the int8 form of `model_file`; `calibration` are typical inputs.

    Raises:
        ModelError: there is no calibration, nothing in the graph to quantise, or no way to leave out tokens.
    """
    if not calibration:
        raise ModelError(f"model {model_file} cannot be quantised without texts: give some like those it will meet")
    model = onnx.load(str(model_file))
    drop_mask(model)
    if keep_tokens < 1:
        prune_tokens(model, keep_tokens)
    smooth(model, activation_maxima(model, calibration))
    with tempfile.TemporaryDirectory() as scratch:
        smoothed = Path(scratch) / "smoothed.onnx"
        onnx.save_model(model, str(smoothed))
        quantize_products(smoothed, out_file)


def halve(model_file: Path, out_file: Path) -> None:
    """Writes the float16 form of `model_file`; types of inputs and outputs do not change."""
    # The graph has nodes whose type onnx cannot infer; all their outputs are floats.
    model = convert_float_to_float16(onnx.load(str(model_file)), keep_io_types=True, disable_shape_infer=True)
    onnx.save_model(model, str(out_file))


def quantize_products(model_file: Path, out_file: Path) -> None:
    """Writes `model_file` with int8 products and word table, without smoothing."""
    with tempfile.TemporaryDirectory() as scratch:
        quantised = Path(scratch) / "quantised.onnx"
        quantize_dynamic(
            str(model_file),
            str(quantised),
            op_types_to_quantize=list(_QUANTISED),
            per_channel=True,
            # Processors without VNNI add products in 16 bits, which saturate for 4 in 100,000 pairs of the
            # shipped encoder: 2 % of a product's output. Seven-bit weights would cost more than that everywhere.
            reduce_range=False,
            weight_type=QuantType.QInt8,
            # The graph has nodes whose type onnx cannot infer; all their outputs are floats.
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
        model = onnx.load(str(quantised))
    quantize_word_table(model)
    quantize_output_layer(model)
    onnx.save_model(model, str(out_file))


def activation_maxima(
    model: onnx.ModelProto, calibration: Sequence[Mapping[str, NDArray[Any]]]
) -> dict[str, NDArray[np.float32]]:
    """Per input of a product with weights: the largest magnitude of each channel, float32 (n_channels,)."""
    inputs = sorted({node.input[0] for node in _products(model.graph)})
    if not inputs:
        raise ModelError("the model's graph has no product with weights: there is nothing to quantise")
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in inputs)
    session = ort.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    taken = [given.name for given in session.get_inputs()]
    maxima: dict[str, NDArray[np.float32]] = {}
    for arrays in calibration:
        activations = session.run(inputs, {name: arrays[name] for name in taken})
        for name, activation in zip(inputs, activations, strict=True):
            maxima[name] = np.maximum(maxima.get(name, 0), _channel_maxima(activation))
    return maxima


def smooth(model: onnx.ModelProto, maxima: dict[str, NDArray[np.float32]]) -> None:
    """Divides each watched activation by a factor per channel and multiplies the weights' rows by it.

    The factor is max|x|^alpha / max|w|^(1 - alpha), its geometric mean scaled to 1.
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for number, (activation, largest) in enumerate(maxima.items()):
        consumers = [node for node in _products(graph) if node.input[0] == activation]
        matrices = [numpy_helper.to_array(weights[node.input[1]]) for node in consumers]
        largest_weight = np.max([np.abs(matrix).max(axis=1) for matrix in matrices], axis=0)
        factor = np.maximum(largest, 1e-5) ** SMOOTHING / np.maximum(largest_weight, 1e-5) ** (1 - SMOOTHING)
        factor = (factor / np.exp(np.log(factor).mean())).astype(np.float32)
        for node, matrix in zip(consumers, matrices, strict=True):
            scaled = (matrix * factor[:, None]).astype(np.float32)
            weights[node.input[1]].CopyFrom(numpy_helper.from_array(scaled, node.input[1]))
            node.input[0] = f"smoothed_{number}"
        graph.initializer.append(numpy_helper.from_array(1 / factor, f"smoothing_{number}"))
        multiplication = helper.make_node("Mul", [activation, f"smoothing_{number}"], [f"smoothed_{number}"])
        multiplication.name = f"Smooth_{number}"
        graph.node.insert(min(list(graph.node).index(node) for node in consumers), multiplication)


def drop_mask(model: onnx.ModelProto) -> None:
    """Removes the attention mask from the graph, and its input.

    On CPUs a session runs one text at a time, so the mask masks nothing, and adding it costs a twentieth of the time.
    """
    graph = model.graph
    for node in graph.node:
        if node.op_type in _MASK_PLACE and len(node.input) > _MASK_PLACE[node.op_type]:
            node.input[_MASK_PLACE[node.op_type]] = ""
    read = _read(graph)
    while unread := [node for node in graph.node if read.isdisjoint(node.output)]:
        for node in unread:
            graph.node.remove(node)
        read = _read(graph)
    for given in [given for given in graph.input if given.name not in read]:
        graph.input.remove(given)


def quantize_word_table(model: onnx.ModelProto) -> None:
    """Stores each large embedding table as int8 rows and one float scale per row."""
    graph = model.graph
    tables = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Gather"]:
        tensor = tables.get(node.input[0])
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT or tensor.dims[0] <= _SMALL_TABLE_ROWS:
            continue
        table = numpy_helper.to_array(tensor)
        scale = np.maximum(np.abs(table).max(axis=1, keepdims=True) / 127, np.finfo(np.float32).tiny)
        name, ids, output = tensor.name, node.input[1], node.output[0]
        graph.initializer.remove(tensor)
        graph.initializer.append(numpy_helper.from_array(np.rint(table / scale).astype(np.int8), f"{name}_rows"))
        graph.initializer.append(numpy_helper.from_array(scale.astype(np.float32), f"{name}_scales"))
        at = list(graph.node).index(node)
        graph.node.remove(node)
        for offset, replacement in enumerate(
            (
                helper.make_node("Gather", [f"{name}_rows", ids], [f"{output}_int8"]),
                helper.make_node("Cast", [f"{output}_int8"], [f"{output}_float"], to=onnx.TensorProto.FLOAT),
                helper.make_node("Gather", [f"{name}_scales", ids], [f"{output}_scale"]),
                helper.make_node("Mul", [f"{output}_float", f"{output}_scale"], [output]),
            )
        ):
            graph.node.insert(at + offset, replacement)


def _products(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes that multiply an activation by weights: `input[0]` by the initializer `input[1]`."""
    weights = {tensor.name for tensor in graph.initializer}
    return (node for node in graph.node if node.op_type in _QUANTISED and node.input[1] in weights)


def _read(graph: onnx.GraphProto) -> set[str]:
    """Names of all node inputs and of the graph's outputs."""
    return {name for node in graph.node for name in node.input} | {given.name for given in graph.output}


def _channel_maxima(activation: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.abs(activation).reshape(-1, activation.shape[-1]).max(axis=0), dtype=np.float32)
