"""What an ONNX file refers to, read from its bytes before ONNX Runtime opens it.

Weights may lie in other files ("external data"). ONNX Runtime refuses paths out of the folder and symbolic
links, yet follows hard links, so such a file could read any file of this machine into a model. A shipped
model needs no external data: every reference to it is refused.

The walk knows as much of Protocol Buffers as that takes: https://protobuf.dev/programming-guides/encoding/
and the field numbers of onnx.proto3.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

from bridge.errors import ModelError

_VARINT, _FIXED64, _MESSAGE, _FIXED32 = 0, 1, 2, 5

_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse_tensor"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse_tensor", 23: "sparse_tensor"},
    "sparse_tensor": {1: "tensor", 2: "tensor"},
}
"""Messages that can hold a tensor: field number → kind of the message in it."""

_TENSOR_EXTERNAL_DATA = 13
_MODEL_GRAPH = 7
_MAX_DEPTH = 32
"""Graphs nest in attributes of nodes (If, Loop); text models stay far below."""


def check(path: Path) -> None:
    """Checks that the file is a whole ONNX model with all its weights inside.

    Raises:
        ModelError: truncated, not ONNX, without a graph, or with weights in other files.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            fields = [number for number, _, _ in _fields(data, 0, len(data))]
            external = next(_external_tensors(data, "model", 0, len(data), 0), None)
        except _NotProtobuf as error:
            raise ModelError(
                f"model file {path} is truncated or no ONNX model ({error}): fetch or export it anew"
            ) from error
    if _MODEL_GRAPH not in fields:
        raise ModelError(f"model file {path} is no ONNX model (it holds no graph): fetch or export it anew")
    if external is not None:
        raise ModelError(
            f"model file {path} keeps weights in another file ({external!r}), which is never followed: "
            f"save it as one file (`onnx.save_model(…, save_as_external_data=False)`)"
        )


class _NotProtobuf(Exception):
    """The bytes break the encoding."""


def _external_tensors(data: mmap.mmap, kind: str, start: int, end: int, depth: int) -> Iterator[str]:
    """Yields what every external tensor below this message says of its place."""
    if depth > _MAX_DEPTH:
        raise _NotProtobuf(f"nested deeper than {_MAX_DEPTH}")
    for number, begin, stop in _fields(data, start, end):
        if kind == "tensor":
            if number == _TENSOR_EXTERNAL_DATA:
                yield data[begin:stop].decode("utf-8", "replace")
        elif child := _CHILDREN[kind].get(number):
            yield from _external_tensors(data, child, begin, stop, depth + 1)


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yields field number, begin and end of each length-delimited field; the others hold no messages."""
    position = start
    while position < end:
        tag, position = _varint(data, position, end)
        wire_type = tag & 7
        if wire_type == _VARINT:
            _, position = _varint(data, position, end)
        elif wire_type == _MESSAGE:
            length, position = _varint(data, position, end)
            if position + length > end:
                raise _NotProtobuf(f"{position + length - end:,} bytes are missing")
            yield tag >> 3, position, position + length
            position += length
        elif wire_type in (_FIXED64, _FIXED32):
            position += 8 if wire_type == _FIXED64 else 4
        else:
            raise _NotProtobuf(f"wire type {wire_type} at byte {position:,}")
    if position != end:
        raise _NotProtobuf("a field ends beyond its message")


def _varint(data: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 64:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise _NotProtobuf(f"a number breaks off at byte {position:,}")
