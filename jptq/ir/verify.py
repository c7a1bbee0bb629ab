"""Checks on a file's own words before anything is allocated or opened because of them."""

from __future__ import annotations

import dataclasses
import math
import reprlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import Message  # type: ignore[import-untyped]

from jptq.errors import ModelError
from jptq.ir import functions
from jptq.ir.model import Attribute, Model, Node

_TYPED_FIELDS = {
    ir.DataType.FLOAT: "float_data",
    ir.DataType.COMPLEX64: "float_data",
    ir.DataType.DOUBLE: "double_data",
    ir.DataType.COMPLEX128: "double_data",
    ir.DataType.INT64: "int64_data",
    ir.DataType.UINT32: "uint64_data",
    ir.DataType.UINT64: "uint64_data",
}
"""Where ONNX puts numbers that are not raw bytes; all other types are in ``int32_data``."""

_COMPLEX = {ir.DataType.COMPLEX64, ir.DataType.COMPLEX128}


def check(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse a file whose tensors lie about their size or reach out of its folder.

    Nor may its functions call themselves or expand without measure.

    Args:
      proto: The parsed file, nothing of its external data loaded.
      path: Where it came from; external data must lie in the same folder or below.

    Raises:
      ModelError: Names the file and the first tensor at fault.
    """
    _check_text(proto, path)
    functions.check_calls(proto, path)
    for tensor in _tensors(proto):
        where = f"tensor {tensor.name!r} in {path}"
        n_bytes = _declared_bytes(tensor, where)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _check_external(tensor, n_bytes, path, where)
        else:
            _check_inline(tensor, n_bytes, where)


def check_nodes(model: Model) -> None:
    """Refuse nodes that lack what ONNX's schema requires; passes may then rely on it.

    Operators without a schema are not looked at.

    Raises:
      ModelError: Names the node and what is missing, or the opset is not published yet.
    """
    newest = onnx.defs.onnx_opset_version()
    if model.opset("") > newest:
        raise ModelError(
            f"opset {model.opset('')} is not known",
            why=f"operators are known up to opset {newest}: later ones may mean something else",
            hint=f"export the model with opset {newest} or earlier",
        )
    for node in model.nodes:
        where = f"node {node.name!r} ({node.op})"
        try:
            schema = onnx.defs.get_schema(node.op, model.opset(node.domain), node.domain)
        except onnx.defs.SchemaError:
            continue
        n_inputs, n_outputs = len(node.inputs), len(node.outputs)
        fits_inputs = schema.min_input <= n_inputs <= schema.max_input
        if not fits_inputs or not 1 <= n_outputs <= schema.max_output:
            raise ModelError(
                f"{node.op} cannot have {n_inputs} inputs and {n_outputs} outputs", where=where
            )
        for formal, name in zip(schema.inputs, node.inputs, strict=False):
            if not name and formal.option == onnx.defs.OpSchema.FormalParameterOption.Single:
                raise ModelError(f"{node.op} needs input {formal.name!r}", where=where)
        for name, attribute in schema.attributes.items():
            if attribute.required and name not in node.attributes:
                raise ModelError(f"{node.op} needs attribute {name!r}", where=where)
        for name, value in node.attributes.items():
            _check_attribute(schema, name, value, node)
        for subgraph in node.subgraphs:
            check_nodes(dataclasses.replace(subgraph, opsets=model.opsets))


_KINDS = {
    "INT": lambda value: isinstance(value, int),
    "FLOAT": lambda value: isinstance(value, (int, float)),
    "STRING": lambda value: isinstance(value, str),
    "TENSOR": lambda value: isinstance(value, np.ndarray),
    "GRAPH": lambda value: isinstance(value, Model),
    "INTS": lambda value: _all(value, int),
    "FLOATS": lambda value: _all(value, (int, float)),
    "STRINGS": lambda value: _all(value, str),
}
_AT_LEAST_ONE = {
    *("group", "strides", "dilations", "kernel_shape", "blocksize", "hidden_size", "num_groups"),
    *("num_heads", "q_num_heads", "kv_num_heads", "num_scan_inputs", "num_outputs"),
}
"""Attributes, of any operator, that count something or divide by it."""


def _all(value: object, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, tuple) and all(isinstance(item, kind) for item in value)


def _check_attribute(schema: onnx.defs.OpSchema, name: str, value: Attribute, node: Node) -> None:
    """Refuse an attribute of another type than its operator's, or that counts less than one."""
    where = f"node {node.name!r} ({node.op})"
    if name in schema.attributes:
        kind = str(schema.attributes[name].type).rpartition(".")[2]
        if kind in _KINDS and not _KINDS[kind](value):
            raise ModelError(
                f"attribute {name!r} is no {kind}", where=where, why=f"it is {reprlib.repr(value)}"
            )
    numbers = value if isinstance(value, tuple) else (value,)
    if name in _AT_LEAST_ONE and any(isinstance(n, int) and n < 1 for n in numbers):
        raise ModelError(f"attribute {name!r} is {value}", where=where, why="it is 1 at least")


def least_inputs(model: Model, node: Node) -> int:
    """Return how many inputs a node has at least under the model's opset; 0 without a schema."""
    try:
        schema = onnx.defs.get_schema(node.op, model.opset(node.domain), node.domain)
    except onnx.defs.SchemaError:
        return 0
    return int(schema.min_input)


def _check_text(message: Message, path: Path) -> None:
    """Refuse names that are not UTF-8; the parser hands them on as bytes."""
    for field, value in message.ListFields():
        if field.type not in (field.TYPE_STRING, field.TYPE_MESSAGE):
            continue
        values = [value] if isinstance(value, (str, bytes, Message)) else value
        for item in values:
            if isinstance(item, Message):
                _check_text(item, path)
            elif not isinstance(item, str):
                raise ModelError(
                    f"{path} is damaged: {field.full_name} holds {bytes(item)!r}",
                    why="names in an ONNX file are UTF-8",
                    hint="fetch or export the file again",
                )


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _graph_tensors(proto.graph)
    for function in proto.functions:
        for node in function.node:
            yield from _node_tensors(node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    if graph.sparse_initializer:
        names = ", ".join(repr(sparse.values.name) for sparse in graph.sparse_initializer[:3])
        raise ModelError(
            "sparse initializers are not supported",
            where=names,
            hint="export the model with dense weights",
        )
    yield from graph.initializer
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
            raise ModelError(
                "sparse constants are not supported",
                where=f"node {node.name or ', '.join(node.output)!r} ({node.op_type})",
                hint="export the model with dense weights",
            )
        if attribute.HasField("t") or attribute.type == onnx.AttributeProto.TENSOR:
            yield attribute.t
        yield from attribute.tensors
        if attribute.HasField("g"):
            yield from _graph_tensors(attribute.g)
        for graph in attribute.graphs:
            yield from _graph_tensors(graph)


def _declared_bytes(tensor: onnx.TensorProto, where: str) -> int | None:
    """Return the bytes that dtype and shape ask for; None for text."""
    try:
        dtype = ir.DataType(tensor.data_type)
    except ValueError:
        dtype = ir.DataType.UNDEFINED
    if dtype == ir.DataType.UNDEFINED:
        raise ModelError(f"unknown element type {tensor.data_type}", where=where)
    if any(length < 0 for length in tensor.dims):
        raise ModelError(f"negative length in shape {tuple(tensor.dims)}", where=where)
    if dtype == ir.DataType.STRING:
        return None
    bits: int = math.prod(tensor.dims) * dtype.bitwidth
    return (bits + 7) // 8


def _check_inline(tensor: onnx.TensorProto, n_bytes: int | None, where: str) -> None:
    n_elements = math.prod(tensor.dims)
    if n_bytes is None:
        held, needed, unit = len(tensor.string_data), n_elements, "strings"
    elif tensor.HasField("raw_data"):
        held, needed, unit = len(tensor.raw_data), n_bytes, "bytes"
    else:
        # A number per element; of types below 8 bits a number holds as many as fit a byte.
        dtype = ir.DataType(tensor.data_type)
        held = len(getattr(tensor, _TYPED_FIELDS.get(dtype, "int32_data")))
        needed = n_elements * (2 if dtype in _COMPLEX else 1)
        if dtype.bitwidth < 8:
            needed = n_bytes
        unit = "numbers"
    if held != needed:
        raise ModelError(
            f"tensor holds {held} {unit}, its shape {tuple(tensor.dims)} needs {needed}",
            where=where,
            hint="the file is damaged or incomplete: fetch it again",
        )


def _check_external(tensor: onnx.TensorProto, n_bytes: int | None, path: Path, where: str) -> None:
    words = {entry.key: entry.value for entry in tensor.external_data}
    location = words.get("location", "")
    folder = path.parent.resolve()
    posix, windows = PurePosixPath(location), PureWindowsPath(location)
    target = folder / location
    if (
        not location
        or posix.is_absolute()
        or windows.drive
        or windows.root
        or ".." in (*posix.parts, *windows.parts)
        or not target.resolve().is_relative_to(folder)
    ):
        raise ModelError(
            f"external data {location!r} lies outside the model's folder",
            where=where,
            why="a model file may only name files of its own folder",
            hint="copy the data (not a link to it) beside the model",
        )
    if not target.is_file():
        raise ModelError(
            f"external data {location!r} is missing",
            where=where,
            hint=f"put the file into {folder}",
        )
    status = target.stat()
    if status.st_nlink > 1:
        raise ModelError(
            f"external data {location!r} is a hard link",
            where=where,
            why="a hard link can stand for a file of another folder",
            hint="copy the file",
        )
    try:
        offset = int(words.get("offset") or 0)
        length = int(words["length"]) if words.get("length") else n_bytes
    except ValueError:
        raise ModelError(
            f"external data {location!r} has no readable offset and length", where=where
        ) from None
    if n_bytes is None:
        raise ModelError("text cannot be stored as external data", where=where)
    if length != n_bytes or offset < 0 or offset + n_bytes > status.st_size:
        raise ModelError(
            f"external data {location!r} is too short",
            where=where,
            why=(
                f"{n_bytes} bytes at offset {offset} are needed, "
                f"{length} are declared, the file has {status.st_size}"
            ),
            hint="the file is damaged or incomplete: fetch it again",
        )
