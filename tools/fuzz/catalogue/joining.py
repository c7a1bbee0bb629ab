"""Concat, Split, Pad."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tools.fuzz.builder import FLOAT, Builder, Rejected, Value
from tools.fuzz.catalogue.registry import ANY, FLOAT64, INT32, INT64, SOME_RANK, operator


@operator("Concat", dtypes=ANY, ranks=SOME_RANK, empty=True, weight=4.0)
def concat(b: Builder, x: Value) -> Sequence[Value]:
    """Add a Concat of one to four tensors, perhaps of one twice."""
    axis = b.draw.integer(0, x.rank - 1)
    parts = [x]
    for _ in range(b.draw.integer(0, 3)):
        if b.draw.chance(0.2):
            parts.append(x)
            continue
        lengths = list(x.shape)
        lengths[axis] = b.draw.integer(0 if b.draw.chance(0.1) and not b.tame else 1, 3)
        parts.append(b.operand(lengths, x.dtype))
    signed = b.draw.signed_axis(axis, x.rank) if b.opset >= 11 else axis
    return b.node("Concat", *b.draw.shuffled(parts), axis=signed)


@operator("Split", dtypes=ANY, ranks=SOME_RANK, weight=2.0)
def split(b: Builder, x: Value) -> Sequence[Value]:
    """Add a Split: in equal parts, in given ones, in as many as asked."""
    draw = b.draw
    axis = draw.integer(0, x.rank - 1)
    length = x.shape[axis]
    signed = draw.signed_axis(axis, x.rank) if b.opset >= 11 else axis
    count = draw.integer(1, min(length, 3))
    if draw.chance(0.5):
        cuts = sorted(draw.ints(count - 1, 1, length)) if count > 1 else []
        sizes = np.diff([0, *cuts, length]).tolist()
        if b.opset < 13:
            return b.node("Split", x, outputs=count, axis=signed, split=sizes)
        return b.node("Split", x, b.constant(sizes), outputs=count, axis=signed)
    if b.opset >= 18:
        return b.node("Split", x, outputs=count, axis=signed, num_outputs=count)
    if length % count:
        raise Rejected("no equal parts")
    return b.node("Split", x, outputs=count, axis=signed)


@operator("Pad", dtypes=(FLOAT, FLOAT, FLOAT, INT32, INT64, FLOAT64), ranks=SOME_RANK, weight=2.5)
def pad(b: Builder, x: Value) -> Sequence[Value]:
    """Add a Pad: any mode, negative pads crop."""
    draw = b.draw
    mode = draw.pick(["constant", "constant", "reflect", "edge", "wrap", None])
    if mode == "wrap" and b.opset < 19:
        mode = "edge"
    if b.opset < 13 and x.dtype != FLOAT:
        raise Rejected("numbers only")
    most = [2 if mode in ("constant", None) else min(length - 1, 2) for length in x.shape]
    pads = [draw.integer(0, m) if draw.chance(0.6) else 0 for m in (*most, *most)]
    if draw.chance(0.15) and mode in ("constant", None):
        spot = draw.integer(0, x.rank - 1)
        if x.shape[spot] > 1:
            pads[spot] = -1
    value = draw.pick([0.0, 1.5, -2.0]) if x.dtype.kind == "f" else 1
    if b.opset < 11:
        return b.node("Pad", x, mode=mode, pads=pads, value=draw.pick([None, float(value)]))
    axes = None
    if b.opset >= 18 and draw.chance(0.4):
        chosen = draw.some(range(x.rank), least=1)
        pads = [pads[a] for a in chosen] + [pads[a + x.rank] for a in chosen]
        axes = b.constant([draw.signed_axis(a, x.rank) for a in chosen])
    given = b.scalar(value, x.dtype) if draw.chance(0.6) else None
    return b.node("Pad", x, b.constant(pads), given, axes, mode=mode)
