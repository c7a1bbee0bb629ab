"""Gemm in one spelling: ``A @ B + C`` with plain, not transposed, constant B."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from jptq.ir.passes import graph as edits


def run(model: ir.Model) -> bool:
    """Write ``transB``, ``alpha`` and ``beta`` into constant operands."""
    changed = False
    for node in tuple(model.graph):
        if node.domain == "" and node.op_type == "Gemm":
            changed |= _normalize_b(node)
            changed |= _normalize_c(node)
    return changed


def _normalize_b(node: ir.Node) -> bool:
    weight = edits.constant(node.inputs[1])
    alpha = edits.number(node, "alpha", 1.0)
    transposed = bool(edits.number(node, "transB", 0))
    if weight is None or weight.dtype.kind != "f" or (alpha == 1.0 and not transposed):
        return False
    plain = weight.T if transposed else weight
    scaled = (plain.astype(np.float64) * alpha).astype(weight.dtype) if alpha != 1.0 else plain
    edits.set_constant(node, 1, np.ascontiguousarray(scaled), f"{node.name}_weight")
    node.attributes.pop("transB", None)
    node.attributes.pop("alpha", None)
    return True


def _normalize_c(node: ir.Node) -> bool:
    beta = edits.number(node, "beta", 1.0)
    if beta == 1.0:
        return False
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        bias = edits.constant(node.inputs[2])
        if bias is None or bias.dtype.kind != "f":
            return False
        scaled = (bias.astype(np.float64) * beta).astype(bias.dtype)
        edits.set_constant(node, 2, scaled, f"{node.name}_bias")
    node.attributes.pop("beta", None)
    return True
