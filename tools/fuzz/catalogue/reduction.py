"""What makes fewer numbers of many: sums along axes, extremes, orders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tools.fuzz.builder import FLOAT, INT64, Builder, Rejected, Value
from tools.fuzz.catalogue.registry import ANY_RANK, FLOAT64, INT32, SOME_RANK, operator

_REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
)  # fmt: skip
_TYPES = (FLOAT, FLOAT, FLOAT, INT32, np.dtype(np.int64), FLOAT64)


def random_axes(b: Builder, rank: int) -> list[int] | None:
    """Return axes in any order and of either sign, none at all, or None for absent ones."""
    if b.draw.chance(0.2):
        return None
    axes = b.draw.some(range(rank), least=min(rank, 1) if b.draw.chance(0.9) else 0)
    signs = b.opset >= 11
    return b.draw.shuffled([b.draw.signed_axis(a, rank) if signs else a for a in axes])


@operator(*_REDUCTIONS, ranks=ANY_RANK, dtypes=_TYPES, weight=3.0)
def reduce(b: Builder, x: Value) -> Sequence[Value]:
    """Add a reduction; its axes are an attribute, later an input."""
    op = b.draw.pick(_REDUCTIONS)
    if op == "ReduceLogSum":
        if x.dtype != FLOAT:
            raise Rejected("needs positive numbers")
        x = b.within(x, (0.1, 9.0))
    if op in ("ReduceLogSumExp", "ReduceL2") and x.dtype.kind == "i":
        raise Rejected("whether 2.9999999 or 3 is cut off is a matter of rounding")
    keepdims = b.draw.pick([0, 1, None])
    axes = random_axes(b, x.rank)
    if b.since(op) < (13 if op == "ReduceSum" else 18):
        if axes == []:
            raise Rejected("means all axes to some, none to others")
        return b.node(op, x, axes=axes, keepdims=keepdims)
    noop = b.draw.pick([0, 1, None])
    given = None if axes is None else b.constant(axes)
    return b.node(op, x, given, keepdims=keepdims, noop_with_empty_axes=noop)


@operator("ArgMax", "ArgMin", ranks=SOME_RANK, dtypes=_TYPES[:5])
def extreme(b: Builder, x: Value) -> Sequence[Value]:
    """Add the place of an extreme, the first or last one."""
    axis = b.draw.integer(0, x.rank - 1)
    axis = b.draw.signed_axis(axis, x.rank) if b.opset >= 11 else axis
    return b.node(
        b.draw.pick(["ArgMax", "ArgMin"]),
        x,
        axis=b.draw.pick([axis, axis, None]),
        keepdims=b.draw.pick([0, 1, None]),
        select_last_index=b.draw.pick([0, 1, None]),
    )


@operator("CumSum", ranks=SOME_RANK, dtypes=_TYPES)
def cumulate(b: Builder, x: Value) -> Sequence[Value]:
    """Add a running sum."""
    axis = b.draw.signed_axis(b.draw.integer(0, x.rank - 1), x.rank)
    return b.node(
        "CumSum",
        x,
        b.constant(np.asarray(axis, np.int64)),
        exclusive=b.draw.pick([0, 1, None]),
        reverse=b.draw.pick([0, 1, None]),
    )


@operator("TopK", ranks=SOME_RANK, dtypes=_TYPES[:5], weight=1.5)
def top(b: Builder, x: Value) -> Sequence[Value]:
    """Add the largest or smallest numbers and their places."""
    axis = b.draw.integer(0, x.rank - 1)
    if 0 in x.shape:
        raise Rejected("nothing to order")
    k = b.draw.integer(1, x.shape[axis])
    axis = b.draw.signed_axis(axis, x.rank) if b.opset >= 11 else axis
    if b.since("TopK") < 10:
        return b.node("TopK", x, axis=axis, k=k, outputs=2)
    largest = b.draw.pick([0, 1, None])
    return b.node("TopK", x, b.constant([k]), outputs=2, axis=axis, largest=largest, sorted=1)


@operator("Softmax", "LogSoftmax", "Hardmax", ranks=SOME_RANK, weight=2.5)
def softmax(b: Builder, x: Value) -> Sequence[Value]:
    """Add a softmax or one of its kin along any axis."""
    op = b.draw.pick(["Softmax", "Softmax", "LogSoftmax", "Hardmax"])
    axis = b.draw.integer(0, x.rank - 1)
    if b.opset >= 11:
        axis = b.draw.signed_axis(axis, x.rank)
    default_fits = b.opset >= 13 or x.rank > 1
    return b.node(op, x, axis=b.draw.pick([axis, axis, None]) if default_fits else axis)


@operator("LpNormalization", ranks=SOME_RANK)
def unit_length(b: Builder, x: Value) -> Sequence[Value]:
    """Add a division by the length."""
    axis = b.draw.signed_axis(b.draw.integer(0, x.rank - 1), x.rank)
    return b.node("LpNormalization", x, axis=b.draw.pick([axis, None]), p=b.draw.pick([1, 2, None]))


@operator("Det", ranks=(2, 3, 4), weight=0.0)
def determinant(b: Builder, x: Value) -> Sequence[Value]:
    """Add determinants of square matrices.

    Not in networks: of two equal rows one elimination gives 0, another a rounding error of its own.
    """
    size = min(x.shape[-2:])
    if x.shape[-1] != x.shape[-2]:
        x = b.operand((*x.shape[:-2], size, size))
    return b.node("Det", x)


@operator("Einsum", ranks=(2, 3), weight=1.5)
def einsum(b: Builder, x: Value) -> Sequence[Value]:
    """Add a sum of products."""
    ways: list[tuple[str, tuple[int, ...] | None]]
    if x.rank == 2:
        n, k = x.shape
        ways = [
            ("ij,jk->ik", (k, 3)),
            ("ij,kj->ki", (4, k)),
            ("ij,ij->i", (n, k)),
            ("ij->ji", None),
            ("ij,j->i", (k,)),
            ("ij->", None),
        ]
    else:
        m, n, k = x.shape
        ways = [
            ("bij,bjk->bik", (m, k, 2)),
            ("bij,bkj->bik", (m, 3, k)),
            ("...ij,jk->...ik", (k, 2)),
            ("bij->bji", None),
            ("bij,bij->b", (m, n, k)),
        ]
    equation, other = b.draw.pick(ways)
    return b.node("Einsum", x, *([] if other is None else [b.operand(other)]), equation=equation)


@operator("CumSum", "NonZero", "Size", "Shape", ranks=SOME_RANK, dtypes=(FLOAT, INT64))
def measure(b: Builder, x: Value) -> Sequence[Value]:
    """Add what only depends on the shape."""
    if b.draw.chance(0.4):
        return b.node("Size", x)
    if b.since("Shape") >= 15 and b.draw.chance(0.6):
        start = b.draw.integer(-x.rank - 1, x.rank)
        return b.node("Shape", x, start=start, end=b.draw.pick([b.draw.integer(-2, 9), None]))
    return b.node("Shape", x)
