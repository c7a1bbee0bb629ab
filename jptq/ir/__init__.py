"""ONNX files in and out, edits, paths, and the optimisation of the float graph."""

from __future__ import annotations

from jptq.ir.edit import extract, insert_on_tensors, prune, rename, replace_node, with_nodes
from jptq.ir.expand import expand_units
from jptq.ir.fixing import fix_inputs, fix_values, give_shapes, shape_flag
from jptq.ir.float32 import in_float32, inputs_before, other_inputs, taken
from jptq.ir.fused import fused_into, unknown_node
from jptq.ir.load import from_bytes, load, renamed
from jptq.ir.lowering import for_vendor, unread
from jptq.ir.model import CALIBRATION, HORIZON, Attribute, Model, Node, Tensor
from jptq.ir.opset import raise_opset
from jptq.ir.optimizer import optimize
from jptq.ir.paths import ancestors, between, descendants
from jptq.ir.refuse import refuse_quantized
from jptq.ir.save import save, to_bytes, to_proto
from jptq.ir.verify import least_inputs

__all__ = [
    "CALIBRATION",
    "HORIZON",
    "Attribute",
    "Model",
    "Node",
    "Tensor",
    "ancestors",
    "between",
    "descendants",
    "expand_units",
    "extract",
    "fix_inputs",
    "fix_values",
    "for_vendor",
    "from_bytes",
    "fused_into",
    "give_shapes",
    "in_float32",
    "inputs_before",
    "insert_on_tensors",
    "least_inputs",
    "load",
    "optimize",
    "other_inputs",
    "prune",
    "raise_opset",
    "refuse_quantized",
    "rename",
    "renamed",
    "replace_node",
    "save",
    "shape_flag",
    "taken",
    "to_bytes",
    "to_proto",
    "unknown_node",
    "unread",
    "with_nodes",
]
