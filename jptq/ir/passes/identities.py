"""Nodes that hand on an input unchanged are removed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import onnx_ir as ir

from jptq.ir.passes import graph as edits

Handler = Callable[[ir.Node], ir.Value | None]


def run(model: ir.Model) -> bool:
    """Remove every node whose output provably equals one of its inputs."""
    changed = False
    for node in tuple(model.graph):
        handler = _HANDLERS.get(node.op_type) if node.domain == "" else None
        if handler is None or edits.reads_beyond_first(node):
            continue
        value = handler(node)
        if value is not None:
            changed |= edits.bypass(node, value)
    return changed


def _first(node: ir.Node) -> ir.Value | None:
    return node.inputs[0]


def _dropout(node: ir.Node) -> ir.Value | None:
    training = node.inputs[2] if len(node.inputs) > 2 else None
    if training is not None:
        flag = edits.constant(training)
        if flag is None or bool(flag.item()):
            return None
    return node.inputs[0]


def _only(node: ir.Node) -> ir.Value | None:
    return node.inputs[0] if len(node.inputs) == 1 else None


def _cast(node: ir.Node) -> ir.Value | None:
    value = node.inputs[0]
    return value if value is not None and value.dtype == node.attributes["to"].as_int() else None


def _cast_like(node: ir.Node) -> ir.Value | None:
    value, like = node.inputs[:2]
    known = value is not None and like is not None and value.dtype is not None
    return value if known and value and like and value.dtype == like.dtype else None


def _same_shape(node: ir.Node) -> ir.Value | None:
    """Return the input of a node that only reshapes, if the shape stays."""
    shape = edits.static_shape(node.inputs[0])
    same = shape is not None and shape == edits.static_shape(node.outputs[0])
    return node.inputs[0] if same else None


def _transpose(node: ir.Node) -> ir.Value | None:
    order = edits.ints(node, "perm")
    return node.inputs[0] if order is not None and order == tuple(range(len(order))) else None


def _pad(node: ir.Node) -> ir.Value | None:
    pads = edits.ints(node, "pads")
    if pads is None:
        array = edits.constant(node.inputs[1]) if len(node.inputs) > 1 else None
        if array is None:
            return None
        pads = tuple(array.tolist())
    return None if any(pads) else node.inputs[0]


def _slice(node: ir.Node) -> ir.Value | None:
    if len(node.inputs) > 4:
        steps = edits.constant(node.inputs[4])
        # A step of -1 keeps the shape and reverses the order.
        if node.inputs[4] is not None and (steps is None or (steps < 0).any()):
            return None
    return _same_shape(node)


def _neutral(node: ir.Node, number: float, sides: tuple[int, ...]) -> ir.Value | None:
    """Return the other operand if one of `sides` is filled with the neutral number."""
    for side in sides:
        array = edits.constant(node.inputs[side])
        other = node.inputs[1 - side]
        if array is None or array.dtype.kind not in "fiu" or not np.all(array == number):
            continue
        shape = edits.static_shape(other)
        if shape is not None and shape == edits.static_shape(node.outputs[0]):
            return other
    return None


_HANDLERS: Final[Mapping[str, Handler]] = {
    "Identity": _first,
    "Dropout": _dropout,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Reshape": _same_shape,
    "Flatten": _same_shape,
    "Squeeze": _same_shape,
    "Unsqueeze": _same_shape,
    "Expand": _same_shape,
    "Tile": _same_shape,
    "Transpose": _transpose,
    "Pad": _pad,
    "Slice": _slice,
    "Concat": _only,
    "Sum": _only,
    "Mean": _only,
    "Max": _only,
    "Min": _only,
    "Mul": lambda node: _neutral(node, 1, (0, 1)),
    "Div": lambda node: _neutral(node, 1, (1,)),
    "Add": lambda node: _neutral(node, 0, (0, 1)),
    "Sub": lambda node: _neutral(node, 0, (1,)),
}
