"""What picks values by index, and puts them back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tools.fuzz.builder import BOOL, FLOAT, INT64, Builder, Rejected, Value
from tools.fuzz.catalogue.registry import ANY, INT32, SOME_RANK, operator

_NUMBERS = (FLOAT, FLOAT, FLOAT, INT64)


def places(b: Builder, shape: Sequence[int], length: int, *, signed: bool = True) -> Value:
    """Return indices into an axis: known, or fed."""
    if length == 0:
        raise Rejected("nothing to pick")
    low = -length if signed and b.opset >= 11 else 0
    dtype = b.draw.pick([INT64, INT64, INT32])
    if b.draw.chance(0.3) and len(b.inputs) < 3:
        return b.input(shape, dtype, (low, length - 1))
    return b.constant(b.draw.array(shape, dtype, (low, length - 1)))


@operator("Gather", dtypes=ANY, ranks=SOME_RANK, weight=2.5)
def gather(b: Builder, x: Value) -> Sequence[Value]:
    """Add a Gather by indices of any rank."""
    axis = b.draw.integer(0, x.rank - 1)
    shape = b.draw.shape(b.draw.integer(0, 2 if x.rank < 5 else 1), high=3)
    signed = b.draw.signed_axis(axis, x.rank) if b.opset >= 11 else axis
    return b.node("Gather", x, places(b, shape, x.shape[axis]), axis=signed)


@operator("GatherElements", dtypes=ANY, ranks=SOME_RANK)
def gather_elements(b: Builder, x: Value) -> Sequence[Value]:
    """Add a GatherElements by indices of the tensor's rank."""
    axis = b.draw.integer(0, x.rank - 1)
    shape = [b.draw.integer(1, length) for length in x.shape]
    shape[axis] = b.draw.integer(1, 4)
    signed = b.draw.signed_axis(axis, x.rank)
    return b.node("GatherElements", x, places(b, shape, x.shape[axis]), axis=signed)


def _tuples(b: Builder, shape: Sequence[int], lengths: Sequence[int]) -> np.ndarray:
    columns = [
        b.draw.array(shape, INT64, (-length if b.opset >= 11 else 0, length - 1))
        for length in lengths
    ]
    return np.stack(columns, axis=-1)


@operator("GatherND", dtypes=ANY, ranks=(1, 2, 3, 4))
def gather_nd(b: Builder, x: Value) -> Sequence[Value]:
    """Add a GatherND, with leading axes in common or without."""
    batch = b.draw.integer(0, x.rank - 1) if b.opset >= 12 and b.draw.chance(0.4) else 0
    depth = b.draw.integer(1, x.rank - batch)
    shape = (*x.shape[:batch], *b.draw.shape(b.draw.integer(0 if batch else 1, 1), high=3))
    indices = _tuples(b, shape, x.shape[batch : batch + depth])
    return b.node("GatherND", x, b.constant(indices), batch_dims=batch if batch else None)


@operator("ScatterElements", "Scatter", dtypes=_NUMBERS, ranks=SOME_RANK)
def scatter_elements(b: Builder, x: Value) -> Sequence[Value]:
    """Add a ScatterElements; without a reduction, to places that differ."""
    draw = b.draw
    axis = draw.integer(0, x.rank - 1)
    shape = [draw.integer(1, length) for length in x.shape]
    length = x.shape[axis]
    reduction = draw.pick([None, "none", "add", "mul", "max", "min"])
    if b.opset < 16 or (reduction in ("max", "min") and b.opset < 18):
        reduction = None
    if reduction in (None, "none"):
        order = np.argsort(draw.rng.random((*shape[:axis], length, *shape[axis + 1 :])), axis=axis)
        indices = order.take(range(shape[axis]), axis=axis).astype(np.int64)
    else:
        indices = draw.array(shape, INT64, (0, length - 1))
    if b.opset >= 11 and draw.chance(0.5):
        indices = indices - length
    op = "Scatter" if b.opset < 11 else "ScatterElements"
    signed = draw.signed_axis(axis, x.rank) if b.opset >= 11 else axis
    updates = b.operand(shape, x.dtype)
    return b.node(op, x, b.constant(indices), updates, axis=signed, reduction=reduction)


@operator("ScatterND", dtypes=_NUMBERS, ranks=(1, 2, 3, 4))
def scatter_nd(b: Builder, x: Value) -> Sequence[Value]:
    """Add a ScatterND; without a reduction, to places that differ."""
    draw = b.draw
    depth = draw.integer(1, x.rank)
    lengths = x.shape[:depth]
    size = int(np.prod(lengths))
    count = draw.integer(1, min(size, 4))
    reduction = draw.pick([None, "none", "add", "mul", "max", "min"])
    if b.opset < 16 or (reduction in ("max", "min") and b.opset < 18):
        reduction = None
    flat = draw.rng.permutation(size)[:count]
    if reduction not in (None, "none"):
        flat = draw.rng.integers(0, size, count)
    indices = np.stack(np.unravel_index(flat, lengths), axis=-1).astype(np.int64)
    updates = b.operand((count, *x.shape[depth:]), x.dtype)
    return b.node("ScatterND", x, b.constant(indices), updates, reduction=reduction)


@operator("Slice", dtypes=ANY, ranks=SOME_RANK, weight=3.0)
def cut(b: Builder, x: Value) -> Sequence[Value]:
    """Add a Slice: from either end, backwards, beyond the end, empty."""
    draw = b.draw
    axes = draw.some(range(x.rank), least=1)
    starts, ends, steps = [], [], []
    for axis in axes:
        length = x.shape[axis]
        step = draw.weighted([1, 2, -1, -2], [6, 1, 1, 1]) if b.opset >= 10 else 1
        first = draw.integer(0, max(length - 1, 0))
        last = draw.integer(first, length + 2) if b.draw.chance(0.5) else 2**31 - 1
        if b.tame and last == first:
            last = first + 1
        if step < 0:
            last = draw.integer(-length - 2, -length - 1) if draw.chance(0.5) else -(2**31)
        starts.append(first - length if draw.chance(0.3) else first)
        ends.append(last)
        steps.append(step)
    signed = [draw.signed_axis(a, x.rank) if b.opset >= 10 else a for a in axes]
    if b.opset < 10:
        return b.node("Slice", x, starts=starts, ends=ends, axes=signed)
    given = None if axes == list(range(x.rank)) and draw.chance(0.5) else b.constant(signed)
    known = all(step == 1 for step in steps) and draw.chance(0.5)
    return b.node("Slice", x, b.constant(starts), b.constant(ends), given,
                  None if known else b.constant(steps))  # fmt: skip


@operator("Compress", dtypes=ANY, ranks=SOME_RANK)
def compress(b: Builder, x: Value) -> Sequence[Value]:
    """Add a Compress by known booleans."""
    axis = b.draw.integer(0, x.rank - 1)
    if b.draw.chance(0.2):
        keep = b.draw.array((max(int(np.prod(x.shape)) - 1, 1),), BOOL)
        keep[0] = True
        return b.node("Compress", x, b.constant(keep))
    keep = b.draw.array((x.shape[axis],), BOOL)
    keep[:1] = True
    signed = b.draw.signed_axis(axis, x.rank) if b.opset >= 11 else axis
    return b.node("Compress", x, b.constant(keep), axis=signed)


@operator("ReverseSequence", dtypes=ANY, ranks=(2, 3, 4))
def reverse(b: Builder, x: Value) -> Sequence[Value]:
    """Add what turns the beginning of every sequence round."""
    time = b.draw.integer(0, 1)
    length, batch = x.shape[time], x.shape[1 - time]
    lengths = b.constant(b.draw.array((batch,), INT64, (1, length)))
    return b.node("ReverseSequence", x, lengths, time_axis=time, batch_axis=1 - time)
