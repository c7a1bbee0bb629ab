"""What moves values without changing them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from tools.fuzz.builder import FLOAT, INT64, Builder, Rejected, Value
from tools.fuzz.catalogue.registry import ANY, ANY_RANK, SOME_RANK, operator


def factors(b: Builder, size: int) -> list[int]:
    """Return lengths with a product."""
    lengths: list[int] = []
    for prime in (2, 3, 5, 7):
        while size % prime == 0:
            size //= prime
            lengths.append(prime)
    lengths = b.draw.shuffled([*lengths, *([size] if size > 1 else [])])
    while len(lengths) > b.draw.integer(1, 4):
        first = lengths.pop()
        lengths[b.draw.integer(0, len(lengths) - 1)] *= first
    if b.draw.chance(0.3):
        lengths.insert(b.draw.integer(0, len(lengths)), 1)
    return lengths


@operator("Reshape", dtypes=ANY, ranks=ANY_RANK, empty=True, weight=4.0)
def reshape(b: Builder, x: Value) -> Sequence[Value]:
    """Add a Reshape: by lengths, with -1, with 0, or to what Shape says."""
    draw = b.draw
    size = int(np.prod(x.shape))
    if x.rank and draw.chance(0.25):  # computed from the tensor's own shape, as exporters write it
        (shape,) = b.node("Shape", x)
        axis = draw.integer(0, x.rank - 1)
        (length,) = b.node("Gather", shape, b.constant([axis]))
        if x.shape[axis] == 0:
            raise Rejected("-1 beside 0")
        (target,) = b.node("Concat", length, b.constant([-1]), axis=0)
        return b.node("Reshape", x, target)
    if size == 0:
        return b.node("Reshape", x, b.constant(list(x.shape)))
    lengths = factors(b, size) if size > 1 or draw.chance(0.7) else []
    if lengths and draw.chance(0.4):
        lengths[draw.integer(0, len(lengths) - 1)] = -1
    elif draw.chance(0.3):
        lengths = [
            0 if i < x.rank and x.shape[i] == length and draw.chance(0.6) else length
            for i, length in enumerate(lengths)
        ]
    return b.node("Reshape", x, b.constant(lengths), allowzero=draw.pick([None, None, 0]))


@operator("Flatten", dtypes=ANY, ranks=ANY_RANK, empty=True)
def flatten(b: Builder, x: Value) -> Sequence[Value]:
    """Add a Flatten at any axis."""
    axis = b.draw.integer(0, x.rank)
    if b.opset >= 11 and axis < x.rank:
        axis = b.draw.signed_axis(axis, x.rank)
    return b.node("Flatten", x, axis=b.draw.pick([axis, axis, None]) if x.rank else axis)


@operator("Transpose", dtypes=ANY, ranks=ANY_RANK, empty=True, weight=4.0)
def transpose(b: Builder, x: Value) -> Sequence[Value]:
    """Add a Transpose."""
    order = b.draw.shuffled(range(x.rank))
    return b.node("Transpose", x, perm=None if b.draw.chance(0.2) else order)


@operator("Squeeze", dtypes=ANY, ranks=ANY_RANK, empty=True)
def squeeze(b: Builder, x: Value) -> Sequence[Value]:
    """Add a Squeeze of some or all axes of length one."""
    ones = [i for i, length in enumerate(x.shape) if length == 1]
    axes = b.draw.some(ones, least=min(1, len(ones)))
    signed = [b.draw.signed_axis(a, x.rank) if b.opset >= 11 else a for a in b.draw.shuffled(axes)]
    if not axes or b.draw.chance(0.2):
        return b.node("Squeeze", x)
    if b.opset < 13:
        return b.node("Squeeze", x, axes=signed)
    return b.node("Squeeze", x, b.constant(signed))


@operator("Unsqueeze", dtypes=ANY, ranks=(0, 1, 2, 3, 4), empty=True, weight=1.5)
def unsqueeze(b: Builder, x: Value) -> Sequence[Value]:
    """Add an Unsqueeze at places of the result."""
    count = b.draw.integer(1, 2) if x.rank < 4 else 1
    rank = x.rank + count
    axes = b.draw.shuffled(range(rank))[:count]
    if b.opset < 13:
        return b.node("Unsqueeze", x, axes=sorted(axes))
    return b.node("Unsqueeze", x, b.constant([b.draw.signed_axis(a, rank) for a in axes]))


@operator("Expand", dtypes=ANY, ranks=(0, 1, 2, 3, 4), empty=True)
def expand(b: Builder, x: Value) -> Sequence[Value]:
    """Add an Expand; its shape may be shorter than the tensor's, or hold ones."""
    target = [
        b.draw.integer(1, 3) if length == 1 else (length if b.draw.chance(0.7) else 1)
        for length in x.shape
    ]
    if b.draw.chance(0.3):
        target = [b.draw.integer(1, 2), *target]
    elif b.draw.chance(0.2):
        target = target[b.draw.integer(0, len(target)) :]
    return b.node("Expand", x, b.constant(target))


@operator("Tile", dtypes=ANY, ranks=SOME_RANK, empty=True)
def tile(b: Builder, x: Value) -> Sequence[Value]:
    """Add a Tile."""
    repeats = [b.draw.weighted([1, 2, 3], [5, 2, 1]) for _ in x.shape]
    if b.draw.chance(0.05) and not b.tame:
        repeats[0] = 0
    return b.node("Tile", x, b.constant(repeats))


@operator("DepthToSpace", "SpaceToDepth", ranks=(4,), lengths=(2, 6), weight=1.5)
def blocks(b: Builder, x: Value) -> Sequence[Value]:
    """Add what moves blocks between channels and places."""
    n, channels, height, width = x.shape
    if b.draw.chance(0.5):
        if height % 2 or width % 2:
            x = b.operand((n, channels, 4, 2))
        return b.node("SpaceToDepth", x, blocksize=2)
    if channels % 4:
        x = b.operand((n, 4 * b.draw.integer(1, 2), 2, 3))
    return b.node("DepthToSpace", x, blocksize=2, mode=b.draw.pick(["DCR", "CRD", None]))


@operator("Trilu", dtypes=(FLOAT, INT64), ranks=(2, 3, 4), empty=True)
def triangle(b: Builder, x: Value) -> Sequence[Value]:
    """Add a Trilu."""
    k = b.constant(np.asarray(b.draw.integer(-4, 4), np.int64)) if b.draw.chance(0.6) else None
    return b.node("Trilu", x, k, upper=b.draw.pick([0, 1, None]))


@operator("Dropout", ranks=ANY_RANK)
def dropout(b: Builder, x: Value) -> Sequence[Value]:
    """Add a Dropout, which passes its input when a network is used."""
    if b.opset < 12:
        return b.node("Dropout", x, ratio=b.draw.pick([None, 0.3]))
    ratio = b.scalar(0.3) if b.draw.chance(0.5) else None
    return b.node("Dropout", x, ratio, outputs=b.draw.pick([1, 1, 2]))


@operator("CenterCropPad", ranks=(2, 3, 4))
def center(b: Builder, x: Value) -> Sequence[Value]:
    """Add what crops or pads around the middle."""
    axes = b.draw.some(range(x.rank), least=1)
    lengths = b.draw.ints(len(axes), 1, 7)
    signed = [b.draw.signed_axis(a, x.rank) for a in axes]
    if len(axes) == x.rank and b.draw.chance(0.5):
        return b.node("CenterCropPad", x, b.constant(lengths))
    return b.node("CenterCropPad", x, b.constant(lengths), axes=signed)


@operator("ConstantOfShape", "Range", "EyeLike", "OneHot", dtypes=(INT64,), ranks=(1, 2))
def generated(b: Builder, x: Value) -> Sequence[Value]:
    """Add what makes values of numbers."""
    draw = b.draw
    op = draw.pick(["ConstantOfShape", "Range", "EyeLike", "OneHot"])
    if op == "ConstantOfShape":
        (shape,) = b.node("Shape", x)
        return b.node(op, shape, value=draw.pick([None, _tensor(2.5, FLOAT),
                                                  _tensor(3, INT64)]))  # fmt: skip
    if op == "Range":
        step = draw.pick([1, 2, -1, -3])
        start, stop = draw.integer(-3, 3), draw.integer(-5, 9)
        dtype = draw.pick([INT64, FLOAT])
        (numbers,) = b.node(op, *(b.scalar(v, dtype) for v in (start, stop, step)))
        return numbers, *b.node("Identity", x)
    if op == "EyeLike":
        if x.rank != 2:
            raise Rejected("matrices only")
        return b.node(op, x, k=draw.pick([None, 1, -1]), dtype=draw.pick([None, 1, 6]))
    values = b.constant(draw.array((2,), FLOAT))
    depth = b.constant(np.asarray(draw.integer(3, 6), np.int64))
    axis = draw.signed_axis(draw.integer(0, x.rank), x.rank + 1)
    return b.node(op, x, depth, values, axis=draw.pick([axis, None]))


def _tensor(number: float, dtype: np.dtype) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(np.asarray([number], dtype))
