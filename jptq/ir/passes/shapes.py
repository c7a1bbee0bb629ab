"""Shapes and types of all tensors, by ONNX's own inference; `Shape` and `Size` become constants."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from jptq.ir.passes import graph as edits

_LONGEST = 1 << 16
"""Elements of a vector that ONNX may follow: it takes 10 ms of each operator that reads one."""


def run(model: ir.Model) -> bool:
    """Infer what is missing and replace `Shape` and `Size` of tensors of known shape."""
    _infer(model, follow_values=False)
    shapes = [value.shape for value in _tensors(model)]
    lengths = [shape[0] for shape in shapes if shape is not None and len(shape) == 1]
    # It follows vectors element by element, and not only those of lengths: one of 1e12 takes all
    # memory. What hangs on constants alone is folded anyway.
    is_short = all(n <= _LONGEST for n in lengths if isinstance(n, int))
    if is_short and not all(shape is not None and shape.is_static() for shape in shapes):
        _infer(model, follow_values=True)
    changed = False
    for node in tuple(model.graph):
        if node.domain != "" or node.op_type not in ("Shape", "Size"):
            continue
        shape = edits.static_shape(node.inputs[0])
        output = node.outputs[0]
        if shape is None or output.is_graph_output():
            continue
        if node.op_type == "Size":
            value = np.array(np.prod(shape, dtype=np.int64))
        else:
            end = node.attributes.get("end")
            start = int(edits.number(node, "start", 0))
            value = np.array(shape[start : end.as_int() if end else None], np.int64)
        constant = edits.add_initializer(model.graph, f"{output.name}_value", value)
        changed |= edits.bypass(node, constant)
    return changed


def _infer(model: ir.Model, *, follow_values: bool) -> None:
    # Not strict: vendor operators have no schema, and a part without shapes is no obstacle.
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=follow_values)(model)


def _tensors(model: ir.Model) -> Iterator[ir.Value]:
    """Yield the inputs and what nodes write, those of bodies included."""
    yield from model.graph.inputs
    for node in model.graph.all_nodes():
        yield from (value for value in node.outputs if value.name)
