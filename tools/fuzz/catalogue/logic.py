"""Comparisons, booleans, bits and types."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import TensorProto

from tools.fuzz.builder import BOOL, FLOAT, INT64, Builder, Rejected, Value
from tools.fuzz.catalogue.elementwise import broadcast_shape, expanded
from tools.fuzz.catalogue.registry import ANY, INT32, INTEGERS, NUMBERS, operator


@operator("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", dtypes=NUMBERS, empty=True)
def compare(b: Builder, x: Value) -> Sequence[Value]:
    """Add a comparison; in networks, of what is known exactly."""
    op = b.draw.pick(["Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual"])
    if op == "Equal" and x.dtype.kind == "f" and b.opset < 11:
        raise Rejected("integers only")
    return b.node(op, x, expanded(b, x))


@operator("And", "Or", "Xor", dtypes=(BOOL,), empty=True)
def logical(b: Builder, x: Value) -> Sequence[Value]:
    """Add an operator on booleans."""
    return b.node(b.draw.pick(["And", "Or", "Xor"]), x, expanded(b, x))


@operator("Not", dtypes=(BOOL,), empty=True)
def negation(b: Builder, x: Value) -> Sequence[Value]:
    """Add a Not."""
    return b.node("Not", x)


@operator("BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot", dtypes=INTEGERS)
def bitwise(b: Builder, x: Value) -> Sequence[Value]:
    """Add an operator on bits."""
    op = b.draw.pick(["BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot"])
    if op == "BitwiseNot":
        return b.node(op, x)
    if op == "BitShift":
        if x.dtype.kind != "u":
            raise Rejected("unsigned only")
        y = b.operand(broadcast_shape(b, x.shape), x.dtype, (0, 5))
        return b.node(op, x, y, direction=b.draw.pick(["LEFT", "RIGHT"]))
    return b.node(op, x, expanded(b, x))


@operator("Where", dtypes=ANY, empty=True, weight=2.0)
def where(b: Builder, x: Value) -> Sequence[Value]:
    """Add a choice between two tensors; all three broadcast."""
    condition = b.operand(broadcast_shape(b, x.shape), BOOL)
    pair = b.draw.shuffled([x, b.operand(broadcast_shape(b, x.shape), x.dtype)])
    return b.node("Where", condition, *pair)


@operator("IsNaN", "IsInf")
def finiteness(b: Builder, x: Value) -> Sequence[Value]:
    """Add a test for what is no finite number."""
    if b.draw.chance(0.5):
        return b.node("IsNaN", x)
    return b.node("IsInf", x, detect_negative=b.draw.pick([0, 1, None]), detect_positive=1)


_TARGETS = (
    TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL,
    TensorProto.FLOAT16, TensorProto.UINT8, TensorProto.INT8, TensorProto.DOUBLE,
)  # fmt: skip


@operator("Cast", dtypes=ANY, empty=True, weight=1.5)
def cast(b: Builder, x: Value) -> Sequence[Value]:
    """Add a Cast; negative numbers have no unsigned type."""
    target = b.draw.pick(_TARGETS)
    if target == TensorProto.UINT8 and x.dtype.kind in "fi":
        if x.dtype != FLOAT:
            raise Rejected("may be negative")
        x = b.within(x, (0.0, 100.0))
    return b.node("Cast", x, to=int(target))


@operator("CastLike", dtypes=ANY, empty=True)
def cast_like(b: Builder, x: Value) -> Sequence[Value]:
    """Add a cast to the type of another tensor."""
    dtype = b.draw.pick([FLOAT, INT32, INT64, BOOL])
    return b.node("CastLike", x, b.operand((1,), dtype))
