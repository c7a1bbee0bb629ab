"""Nodes and constants that no output needs are removed."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass


def run(model: ir.Model) -> bool:
    """Remove what is not read; graph inputs stay."""
    return bool(RemoveUnusedNodesPass()(model).modified)
