"""If, Loop, Scan, and quantizers that a network brings along."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from tools.fuzz.builder import BOOL, FLOAT, Builder, Value
from tools.fuzz.catalogue.registry import SOME_RANK, operator


def _described(name: str, value: Value | None = None) -> onnx.ValueInfoProto:
    if value is None:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    return helper.make_tensor_value_info(
        name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
    )


@operator("If", ranks=SOME_RANK, weight=0.7)
def branch(b: Builder, x: Value) -> Sequence[Value]:
    """Add a choice between two graphs that read a tensor outside of them."""
    draw = b.draw
    condition = b.input((), BOOL) if draw.chance(0.6) else b.constant(np.asarray(draw.chance(0.5)))
    graphs = []
    for side in ("then", "else"):
        name = b.name(side)
        op = draw.pick(["Relu", "Tanh", "Neg", "Abs", "Sigmoid"])
        nodes = [helper.make_node(op, [x.name], [f"{name}:0"], name=f"{name}/first")]
        if draw.chance(0.5):
            nodes.append(helper.make_node("Add", [f"{name}:0", x.name], [f"{name}:1"], name=name))
        graphs.append(helper.make_graph(nodes, name, [], [_described(nodes[-1].output[0], x)]))
    return b.node("If", condition, captured=[x], then_branch=graphs[0], else_branch=graphs[1])


@operator("Loop", ranks=SOME_RANK, weight=0.5)
def loop(b: Builder, x: Value) -> Sequence[Value]:
    """Add a fixed number of turns that carry one tensor and give out another."""
    draw = b.draw
    name = b.name("body")
    step, cond, state = f"{name}:i", f"{name}:cond", f"{name}:state"
    nodes = [
        helper.make_node("Identity", [cond], [f"{name}:go"], name=f"{name}/go"),
        helper.make_node(
            draw.pick(["Tanh", "Sigmoid"]), [state], [f"{name}:bent"], name=f"{name}/bent"
        ),
        helper.make_node("Add", [f"{name}:bent", x.name], [f"{name}:next"], name=f"{name}/next"),
        helper.make_node("Neg", [f"{name}:next"], [f"{name}:scan"], name=f"{name}/scan"),
    ]
    body = helper.make_graph(
        nodes,
        name,
        [
            helper.make_tensor_value_info(step, TensorProto.INT64, []),
            helper.make_tensor_value_info(cond, TensorProto.BOOL, []),
            _described(state, x),
        ],
        [
            helper.make_tensor_value_info(f"{name}:go", TensorProto.BOOL, []),
            _described(f"{name}:next", x),
            _described(f"{name}:scan", x),
        ],
    )
    turns = b.constant(np.asarray(draw.integer(1, 3), np.int64))
    go = b.constant(np.asarray(True)) if draw.chance(0.5) else None
    return b.node("Loop", turns, go, x, captured=[x], outputs=2, body=body)


@operator("Scan", ranks=(2, 3), weight=0.5)
def scan(b: Builder, x: Value) -> Sequence[Value]:
    """Add a graph that runs along an axis."""
    draw = b.draw
    if b.opset < 9:
        return b.node("Identity", x)
    name = b.name("body")
    axis = draw.integer(0, x.rank - 1)
    lengths = [length for i, length in enumerate(x.shape) if i != axis]
    state = b.operand(lengths)

    def described(tensor: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(tensor, TensorProto.FLOAT, lengths)

    nodes = [
        helper.make_node("Add", [f"{name}:state", f"{name}:x"], [f"{name}:sum"], name=f"{name}/a"),
        helper.make_node("Tanh", [f"{name}:sum"], [f"{name}:next"], name=f"{name}/b"),
        helper.make_node("Mul", [f"{name}:next", f"{name}:x"], [f"{name}:out"], name=f"{name}/c"),
    ]
    body = helper.make_graph(
        nodes,
        name,
        [described(f"{name}:state"), described(f"{name}:x")],
        [described(f"{name}:next"), described(f"{name}:out")],
    )
    return b.node(
        "Scan", state, x, outputs=2, body=body, num_scan_inputs=1,
        scan_input_axes=[axis],
        scan_input_directions=[draw.integer(0, 1)],
        scan_output_axes=[draw.integer(0, len(lengths))],
    )  # fmt: skip


@operator("QuantizeLinear", "DequantizeLinear", ranks=(2, 3, 4), weight=0.3)
def quantizers(b: Builder, x: Value) -> Sequence[Value]:
    """Add a pair of quantizers, per tensor or per channel."""
    draw = b.draw
    dtype = draw.pick([np.int8, np.uint8])
    axis = draw.integer(0, x.rank - 1) if b.opset >= 13 and draw.chance(0.4) else None
    shape = () if axis is None else (x.shape[axis],)
    scale = b.constant(np.exp2(draw.array(shape, FLOAT, (-7.0, -3.0))).astype(np.float32))
    low = 0 if dtype == np.int8 else 100
    zero = b.constant(draw.array(shape, np.dtype(dtype), (low, low + 20)))
    (integers,) = b.node("QuantizeLinear", x, scale, zero, axis=axis)
    return b.node("DequantizeLinear", integers, scale, zero, axis=axis)
