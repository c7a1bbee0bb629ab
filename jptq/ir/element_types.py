"""Element types of tensors by ONNX's schemas alone, vendor operators among the nodes or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir

from jptq.ir.model import Model, Node

DType: TypeAlias = np.dtype | None

_NUMPY_NAMES: Final = {"float": "float32", "double": "float64", "string": "object"}
_FLOAT32: Final = np.dtype(np.float32)
_DEFAULTS: Final = dict.fromkeys(("ConstantOfShape", "RandomNormal", "RandomUniform"), _FLOAT32)
"""Types of operators whose inputs say nothing, where no attribute does."""


def element_types(graph: Model, outer: Mapping[str, DType]) -> dict[str, DType]:
    """Return the element type of every tensor that a graph holds; None where it is not known.

    Args:
      graph: A model or the body of a node.
      outer: The types of the graph around it.
    """
    known: dict[str, DType] = {tensor.name: tensor.dtype for tensor in graph.inputs}
    known |= {name: array.dtype for name, array in graph.initializers.items()}
    for node in graph.nodes:
        inputs = [known.get(name, outer.get(name)) for name in node.inputs]
        known |= zip(node.outputs, _of_outputs(graph, node, inputs), strict=True)
    return known


def _of_outputs(graph: Model, node: Node, inputs: Sequence[DType]) -> list[DType]:
    count = len(node.outputs)
    if node.subgraphs:
        # A Loop's first result says whether to go on and is not handed out.
        return [result.dtype for result in node.subgraphs[0].outputs[-count:]]
    if node.domain not in ("", "ai.onnx"):
        return [inputs[0] if inputs else None] * count  # the vendor's operators keep the type
    try:
        schema = onnx.defs.get_schema(node.op, graph.opset(""), "")
    except onnx.defs.SchemaError:
        return [None] * count
    by_attribute = _of_attributes(node)
    if by_attribute is not None:
        return [by_attribute] * count
    taken = {
        schema.inputs[min(index, len(schema.inputs) - 1)].type_str: dtype
        for index, dtype in reversed(list(enumerate(inputs)))
        if dtype is not None and schema.inputs
    }
    only = {
        constraint.type_param_str: constraint.allowed_type_strs[0]
        for constraint in schema.type_constraints
        if len(constraint.allowed_type_strs) == 1
    }
    written = [schema.outputs[min(i, len(schema.outputs) - 1)].type_str for i in range(count)]
    return [taken.get(name) or _fixed(only.get(name, name)) for name in written]


def _of_attributes(node: Node) -> DType:
    """Return the type that an attribute, or its default, gives the results."""
    value = node.attributes.get("value")
    if isinstance(value, np.ndarray):
        return value.dtype
    code = node.attributes.get("to", node.attributes.get("dtype"))
    return np.dtype(ir.DataType(code).numpy()) if isinstance(code, int) else _DEFAULTS.get(node.op)


def _fixed(name: str) -> DType:
    """Read a type as a schema writes it, as ``tensor(int64)``; None for a variable."""
    if not name.startswith("tensor("):
        return None
    inside = name.removeprefix("tensor(").removesuffix(")")
    return np.dtype(_NUMPY_NAMES.get(inside, inside))
