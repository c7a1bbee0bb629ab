"""Quantizing and dequantizing operators, so that networks with them can be read and run."""

from __future__ import annotations

import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax import Array, lax

from jptq.numerics import dtypes
from jptq.ops.registry import op
from jptq.ops.traits import Traits

_UNSIGNED_8 = 2
"""ONNX's code of uint8, the output without a zero point."""


def _along(parameter: Array, x: Array, axis: int, block_size: int) -> Array:
    """Shape a scale or zero point so that it broadcasts to ``x``.

    A scalar or one value serves the whole tensor, a vector the positions of ``axis``, a tensor of
    the rank of ``x`` blocks of ``block_size`` positions.
    """
    if block_size:
        repeated = jnp.repeat(parameter, block_size, axis=axis)
        length = x.shape[axis]
        return jnp.take(repeated, np.arange(length), axis=axis)
    if parameter.size == 1:
        return parameter.reshape(())
    shape = np.ones(x.ndim, int)
    shape[axis] = -1
    return parameter.reshape(shape.tolist())


def _quantize(
    x: Array,
    y_scale: Array,
    y_zero_point: Array | None,
    *,
    axis: int = 1,
    block_size: int = 0,
    code: int = 0,
    precision: int = 0,
    saturate: bool = True,
) -> Array:
    target = (
        y_zero_point.dtype
        if y_zero_point is not None
        else np.dtype(dtypes.from_onnx(code or _UNSIGNED_8))
    )
    whole = jnp.issubdtype(target, jnp.integer)
    working = dtypes.from_onnx(precision) if precision else y_scale.dtype
    scale = _along(y_scale, x, axis, block_size).astype(working)
    # XLA divides by a broadcast value by multiplying with its reciprocal, which moves values across
    # rounding ties. It must not see that the divisor is one: both branches are the scale.
    divisor = jnp.where(x < 0, scale, lax.optimization_barrier(scale))
    ratio = x.astype(working) / divisor
    steps = jnp.round(ratio) if whole else ratio
    if y_zero_point is not None:
        steps = steps + _along(y_zero_point, x, axis, block_size).astype(working)
    limits = ml_dtypes.iinfo(target) if whole else ml_dtypes.finfo(target)
    if whole or saturate:
        steps = jnp.clip(steps, float(limits.min), float(limits.max))
    return steps.astype(target)


@op("QuantizeLinear", since=(10,), traits=Traits.float_only())
def quantize_linear_10(x: Array, y_scale: Array, y_zero_point: Array | None = None) -> Array:
    """Round to the nearest step, ties to even; at opset 10 one scale for the whole tensor."""
    return _quantize(x, y_scale, y_zero_point)


@op("QuantizeLinear", since=(13, 19), traits=Traits.float_only())
def quantize_linear_13(
    x: Array, y_scale: Array, y_zero_point: Array | None = None, *, axis: int = 1, saturate: int = 1
) -> Array:
    """Round to the nearest step, ties to even; before opset 21 per tensor or per axis."""
    return _quantize(x, y_scale, y_zero_point, axis=axis, saturate=bool(saturate))


@op("QuantizeLinear", since=(21, 23, 24, 25, 28), traits=Traits.float_only())
def quantize_linear(
    x: Array,
    y_scale: Array,
    y_zero_point: Array | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Array:
    """Round to the nearest step, ties to even, and saturate.

    Args:
      x: Floats of any shape.
      y_scale: Size of a step: one, ``[x.shape[axis]]``, or one per block along ``axis``.
      y_zero_point: As ``y_scale``; its dtype is that of the output.

    Returns:
      Integers, or small floats, of the shape of ``x``. Floats are rounded by their own grid
      and, unless ``saturate``, overflow.

    Source: ONNX operator specification, QuantizeLinear-25.
    """
    return _quantize(
        x,
        y_scale,
        y_zero_point,
        axis=axis,
        block_size=block_size,
        code=output_dtype,
        precision=precision,
        saturate=bool(saturate),
    )


@op("DequantizeLinear", since=(10,), traits=Traits.float_only())
def dequantize_linear_10(x: Array, x_scale: Array, x_zero_point: Array | None = None) -> Array:
    """Turn steps into values; at opset 10 one scale for the whole tensor."""
    return dequantize_linear(x, x_scale, x_zero_point)


@op("DequantizeLinear", since=(13, 19, 21, 23, 24, 25, 28), traits=Traits.float_only())
def dequantize_linear(
    x: Array,
    x_scale: Array,
    x_zero_point: Array | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Array:
    """Turn steps into values: ``(x - zero point) * scale``.

    Args:
      x: Integers of any shape.
      x_scale: Size of a step: one, ``[x.shape[axis]]``, or one per block along ``axis``.
      x_zero_point: As ``x_scale``, in the dtype of ``x``.

    Returns:
      Floats of the shape of ``x``.

    Source: ONNX operator specification, DequantizeLinear-25.
    """
    scale = _along(x_scale, x, axis, block_size)
    values = x.astype(scale.dtype)
    if x_zero_point is not None:
        values = values - _along(x_zero_point, x, axis, block_size).astype(scale.dtype)
    y = values * scale
    return y.astype(dtypes.from_onnx(output_dtype)) if output_dtype else y
