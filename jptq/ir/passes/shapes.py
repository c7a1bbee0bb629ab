"""Shapes and types of all tensors, by ONNX's own inference; `Shape` and `Size` become constants."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from jptq.ir.passes import graph as edits


def run(model: ir.Model) -> bool:
    """Infer what is missing and replace `Shape` and `Size` of tensors of known shape."""
    # Not strict: vendor operators have no schema, and a part without shapes is no obstacle.
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
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
