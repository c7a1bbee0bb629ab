"""Products of integers, as networks that were quantized elsewhere hold them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tools.fuzz.builder import FLOAT, Builder, Rejected, Value
from tools.fuzz.catalogue.registry import INT8, UINT8, operator

_BYTES = (0.0, 255.0)
_SMALL = (-128.0, 127.0)


def _zero(b: Builder, x: Value, lengths: tuple[int, ...] = ()) -> Value:
    low = 100 if x.dtype == UINT8 else -10
    return b.constant(b.draw.array(lengths, x.dtype, (low, low + 20)))


def _scale(b: Builder, low: float = -6.0, high: float = -3.0) -> Value:
    return b.constant(np.exp2(b.draw.array((), FLOAT, (low, high))).astype(np.float32))


def _factor(b: Builder, shape: Sequence[int], *, like: Value) -> Value:
    """Return a weight; onnxruntime multiplies uint8 by either type, int8 by int8."""
    dtype = b.draw.pick([INT8, UINT8]) if like.dtype == UINT8 else INT8
    return b.constant(b.draw.array(shape, dtype, _BYTES if dtype == UINT8 else _SMALL))


@operator(
    "MatMulInteger", "QLinearMatMul", ranks=(2, 3), dtypes=(UINT8, INT8), domain=_BYTES, weight=0
)
def integer_matmul(b: Builder, x: Value) -> Sequence[Value]:
    """Add a product of matrices: its sums, or them on a grid."""
    weight = _factor(b, (x.shape[-1], b.draw.integer(1, 5)), like=x)
    if b.draw.chance(0.5):
        zeros = [_zero(b, x) if b.draw.chance(0.7) else None, None]
        if zeros[0] is not None and b.draw.chance(0.7):
            zeros[1] = _zero(b, weight)
        return b.node("MatMulInteger", x, weight, *zeros)
    operands = [x, _scale(b), _zero(b, x), weight, _scale(b), _zero(b, weight)]
    return b.node("QLinearMatMul", *operands, _scale(b, -3.0, 1.0), _zero(b, x))


@operator(
    "ConvInteger",
    "QLinearConv",
    ranks=(4,),
    dtypes=(UINT8, INT8),
    lengths=(2, 6),
    domain=_BYTES,
    weight=0,
)
def integer_conv(b: Builder, x: Value) -> Sequence[Value]:
    """Add a convolution: its sums, or them on a grid, with a bias or not."""
    draw = b.draw
    kernel = [draw.integer(1, min(3, length)) for length in x.shape[2:]]
    features = draw.integer(1, 4)
    weight = _factor(b, (features, x.shape[1], *kernel), like=x)
    keywords: dict[str, Any] = {"strides": draw.ints(2, 1, 2), "pads": draw.ints(4, 0, 1)}
    if draw.chance(0.5):
        if x.dtype != UINT8:
            raise Rejected("onnxruntime convolves uint8 only")
        return b.node("ConvInteger", x, weight, _zero(b, x), **keywords)
    bias = b.constant(draw.array((features,), np.dtype(np.int32), (-500, 500)))
    operands = [x, _scale(b), _zero(b, x), weight, _scale(b), _zero(b, weight)]
    given = bias if draw.chance(0.5) else None
    return b.node("QLinearConv", *operands, _scale(b, -3.0, 1.0), _zero(b, x), given, **keywords)
