"""Nodes and constants that no output needs are removed."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from jptq.ir.passes import graph as edits


def run(model: ir.Model) -> bool:
    """Remove what is not read; graph inputs stay."""
    changed = False
    while True:
        bodies = [node for node in model.graph if _bodies(node)]
        if not RemoveUnusedNodesPass()(model).modified:
            return changed
        changed = True
        # To the library, what a removed body took from outside is still read.
        for node in bodies:
            if node.graph is None:
                for body in _bodies(node):
                    edits.forget(body)


def _bodies(node: ir.Node) -> list[ir.Graph]:
    return [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]
