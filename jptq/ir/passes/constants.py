"""Constant nodes become initializers; plain arithmetic on constants is computed now."""

from __future__ import annotations

import logging
import math
from typing import Final

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from jptq.ir.convert import to_array, to_tensor
from jptq.ir.passes import graph as edits

GROWTH_LIMIT: Final = 4 << 20
"""Bytes. A larger result stays a node, unless its inputs have as many elements (weights stored as
float16 or int8, say): the file must not swell."""

_ALWAYS: Final = {
    # Shapes, and where values stand.
    *("Shape", "Size", "ConstantOfShape", "Range", "EyeLike", "NonZero", "Identity", "Reshape"),
    *("Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Tile", "Concat", "Split"),
    *("Slice", "Pad", "Trilu", "Gather", "GatherElements", "GatherND", "ScatterElements"),
    *("ScatterND", "DepthToSpace", "SpaceToDepth", "OneHot", "Where", "Cast", "CastLike"),
    # Value by value.
    *("Add", "Sub", "Mul", "Div", "Mod", "Pow", "Neg", "Abs", "Sign", "Reciprocal", "Sqrt", "Exp"),
    *("Log", "Sin", "Cos", "Tanh", "Sigmoid", "Erf", "Relu", "Floor", "Ceil", "Round", "Min"),
    *("Max", "Sum", "Mean", "Clip", "Not", "And", "Or", "Xor", "Equal", "Greater", "Less"),
    *("GreaterOrEqual", "LessOrEqual", "IsNaN", "IsInf"),
    # Sums, as weights are merged and scaled.
    *("MatMul", "Gemm", "CumSum", "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin"),
    *("ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare"),
}
_FOLDED: Final = {**dict.fromkeys(_ALWAYS, 1), "Softmax": 13, "LogSoftmax": 13, "Hardmax": 13}
"""The first opset in which ONNX's evaluator computes an operator as onnxruntime does.

It knows one meaning only of operators that had several. What is not listed is left to the engine,
which computes it when tracing. Random numbers differ from run to run, and quantizers carry a
meaning that folding destroys.
"""
_SHRINKING: Final = {"NonZero"}
"""Their output's shape hangs on values; it is bounded by the input's size."""

_logger = logging.getLogger(__name__)


def run(model: ir.Model) -> bool:
    """Lift and fold the constants of the main graph."""
    lift = LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)
    changed = bool(lift(model).modified)
    opset = model.graph.opset_imports.get("", 1)
    for node in tuple(model.graph):
        if _is_foldable(node, opset) and _fold(node, model, opset):
            changed = True
    return changed


def _is_foldable(node: ir.Node, opset: int) -> bool:
    return (
        node.domain == ""
        and opset >= _FOLDED.get(node.op_type, math.inf)
        and any(value is not None for value in node.inputs)
        and all(value is None or edits.constant(value) is not None for value in node.inputs)
        and not any(output.is_graph_output() for output in node.outputs)
        and _is_small(node)
    )


def _is_small(node: ir.Node) -> bool:
    if node.op_type in _SHRINKING:
        return True
    held = sum(value.const_value.size for value in node.inputs if value and value.const_value)
    for output in node.outputs:
        shape = edits.static_shape(output)
        if not output.uses():
            continue
        if shape is None or output.dtype is None:
            _logger.debug("%s is not folded: its size is unknown", node.name)
            return False
        count = math.prod(shape)
        if count > held and count * output.dtype.itemsize > GROWTH_LIMIT:
            _logger.debug("%s is not folded: its result is large", node.name)
            return False
    return True


def _fold(node: ir.Node, model: ir.Model, opset: int) -> bool:
    results = _evaluate(node, opset)
    if results is None:
        return False
    for output, result in zip(node.outputs, results, strict=True):
        if not output.uses():
            continue
        shape = edits.static_shape(output)
        fits = isinstance(result, np.ndarray) and (
            (shape is None or shape == result.shape)
            and (output.dtype is None or output.dtype == to_tensor("", result).dtype)
        )
        if not fits:
            _logger.debug("%s is not folded: the evaluator disagrees with inference", node.name)
            return False
    for output, result in zip(node.outputs, results, strict=True):
        if output.uses() and output.name:
            value = ir.Value(
                name=output.name,
                shape=ir.Shape(result.shape),
                type=ir.TensorType(to_tensor("", result).dtype),
                const_value=to_tensor(output.name, result),
            )
            output.replace_all_uses_with(value)
            model.graph.register_initializer(value)
    edits.remove_unread(node)
    return True


def _evaluate(node: ir.Node, opset: int) -> list[np.ndarray] | None:
    """Compute one node; None where the evaluator cannot."""
    feeds = {
        str(value.name): to_array(value.const_value)
        for value in node.inputs
        if value is not None and value.const_value is not None
    }
    graph = onnx.helper.make_graph(
        [ir.to_proto(node)],
        node.op_type,
        [_untyped(name) for name in feeds],
        [_untyped(output.name) for output in node.outputs if output.name],
    )
    imports = [onnx.helper.make_opsetid("", opset)]
    proto = onnx.helper.make_model(graph, opset_imports=imports)
    try:
        with np.errstate(all="ignore"):
            found = iter(ReferenceEvaluator(proto).run(None, feeds))
    except Exception as error:
        # The evaluator raises whatever its kernels do; an unfolded node is still correct.
        _logger.debug("%s is not folded: %s", node.name, error)
        return None
    return [np.asarray(next(found)) if output.name else np.empty(0) for output in node.outputs]


def _untyped(name: str) -> onnx.ValueInfoProto:
    info = onnx.ValueInfoProto()
    info.name = name
    return info
