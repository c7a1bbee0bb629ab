"""`Model` -> ONNX file: whole or absent, the same bytes for the same model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import onnx_ir as ir

from jptq.files import atomic_path, write_bytes
from jptq.ir.convert import thaw, to_tensor
from jptq.ir.model import Model

_INLINE_LIMIT = 2**31 - 2**26
"""Bytes of constants that fit into one protobuf message, with room for the nodes."""

_EXTERNAL_FROM = 1024
"""Smaller constants stay in the file: shapes and scalars are read without the data."""

_ALIGNMENT = 4096
"""A page: readers map the data file."""


def save(model: Model, path: Path | str, *, external_data: bool | None = None) -> None:
    """Write a model to an ONNX file.

    Args:
      model: What to write. Opsets and metadata are kept; ``horizon`` is imported if it is used.
      path: The file, replaced in one step.
      external_data: Put the constants into ``<path>.data``; None: only if they exceed 2 GB.

    Raises:
      StorageError: The operating system refused to write; what was there before is untouched.
    """
    path = Path(path)
    if external_data is None:
        external_data = constant_bytes(model) > _INLINE_LIMIT
    if not external_data:
        write_bytes(path, to_bytes(model))
        return
    data_path = path.with_name(f"{path.name}.data")
    # The inner file is renamed first: a model never points at data that are not yet there.
    with atomic_path(path) as graph_file, atomic_path(data_path) as data_file:
        with data_file.open("wb") as stream:
            writer = _Writer(stream, data_path.name)
            proto = ir.to_proto(thaw(model, tensor=writer.tensor))
        graph_file.write_bytes(_serialize(proto))


def to_bytes(model: Model) -> bytes:
    """Return the content of an ONNX file that holds everything.

    Raises:
      google.protobuf.message.EncodeError: The constants exceed 2 GB; use `save`.
    """
    return _serialize(to_proto(model))


def to_proto(model: Model) -> onnx.ModelProto:
    """Return a model as ONNX's own message, for programs that work on that."""
    return ir.to_proto(thaw(model))


def constant_bytes(model: Model) -> int:
    """Return the size of the constants: initializers and tensor attributes."""
    attributes = [value for node in model.nodes for value in node.attributes.values()]
    return (
        sum(array.nbytes for array in model.initializers.values())
        + sum(value.nbytes for value in attributes if isinstance(value, np.ndarray))
        + sum(constant_bytes(value) for value in attributes if isinstance(value, Model))
    )


def _serialize(proto: onnx.ModelProto) -> bytes:
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


class _Writer:
    """Appends large constants to a data file, in the order of the initializers."""

    def __init__(self, stream: BinaryIO, location: str) -> None:
        self._stream = stream
        self._location = location

    def tensor(self, name: str, array: np.ndarray) -> ir.TensorProtocol:
        """Write one constant and return the tensor that points at it."""
        inline = to_tensor(name, array)
        if array.dtype == np.object_ or array.nbytes < _EXTERNAL_FROM:
            return inline
        offset = -(-self._stream.tell() // _ALIGNMENT) * _ALIGNMENT
        self._stream.write(bytes(offset - self._stream.tell()))
        self._stream.write(_content(inline, array))
        return ir.ExternalTensor(
            self._location,
            offset=offset,
            length=self._stream.tell() - offset,
            dtype=inline.dtype,
            shape=ir.Shape(array.shape),
            name=name,
        )


def _content(tensor: ir.TensorProtocol, array: np.ndarray) -> bytes | memoryview:
    """Return the bytes of a constant as a file has them, where that needs no copy without one."""
    if sys.byteorder == "little" and tensor.dtype.bitwidth == 8 * array.dtype.itemsize:
        return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    return tensor.tobytes()
