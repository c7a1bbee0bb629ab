"""Quantizing and dequantizing operators, so that networks with them can be read and run."""

from __future__ import annotations

import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax import Array, lax

from jptq.numerics import dtypes
from jptq.ops.convolution import conv
from jptq.ops.precision import widened
from jptq.ops.registry import op
from jptq.ops.traits import Ints, Traits

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


def _quotient(x: Array, divisor: Array) -> Array:
    """Divide as IEEE 754 does.

    XLA divides by a broadcast value by multiplying with its reciprocal, which moves values across
    rounding ties. It must not see that the divisor is one: both branches are the same.
    """
    return x / jnp.where(x < 0, divisor, lax.optimization_barrier(divisor))


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
    ratio = _quotient(x.astype(working), scale)
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


@op("DynamicQuantizeLinear", since=(11,), traits=Traits.float_only())
def dynamic_quantize_linear(x: Array) -> tuple[Array, Array, Array]:
    """Quantize to ``uint8`` over the range of the values themselves and zero.

    Args:
      x: ``float32``, any shape.

    Returns:
      Steps in the shape of ``x``; their size and the zero point, scalars.

    Source: ONNX operator specification, DynamicQuantizeLinear-11.
    """
    low, high = jnp.minimum(x.min(initial=0), 0), jnp.maximum(x.max(initial=0), 0)
    span = high - low
    scale = _quotient(jnp.where(span == 0, 1, span), jnp.asarray(255, x.dtype))
    zero_point = jnp.clip(jnp.round(_quotient(-low, scale)), 0, 255).astype(jnp.uint8)
    return _quantize(x, scale, zero_point), scale, zero_point


def _centred(x: Array, zero_point: Array | None, shape: tuple[int, ...] = ()) -> Array:
    """Return whole numbers less their zero point as ``int32``.

    Args:
      x: Any shape.
      zero_point: Of the tensor, or a vector that ``shape`` makes broadcast to ``x``.
      shape: See there.
    """
    wide = x.astype(jnp.int32)
    if zero_point is None:
        return wide
    offset = zero_point.astype(jnp.int32)
    return wide - (offset.reshape(shape) if shape and offset.ndim == 1 else offset)


_OF_ROWS = (-1, 1)
"""What makes a vector with a number per row broadcast to a matrix."""


@op("MatMulInteger", since=(10,), traits=Traits.float_only())
def matmul_integer(
    a: Array, b: Array, a_zero_point: Array | None = None, b_zero_point: Array | None = None
) -> Array:
    """Multiply matrices of whole numbers; sums are ``int32``.

    Args:
      a: ``[..., M, K]``.
      b: ``[..., K, N]``.
      a_zero_point: A scalar, ``[M]`` or ``[..., M, 1]``.
      b_zero_point: A scalar, ``[N]`` or ``[..., 1, N]``.

    Source: ONNX operator specification, MatMulInteger-10.
    """
    return jnp.matmul(_centred(a, a_zero_point, _OF_ROWS), _centred(b, b_zero_point))


@op("QLinearMatMul", since=(10, 21), traits=Traits.float_only())
def qlinear_matmul(
    a: Array,
    a_scale: Array,
    a_zero_point: Array,
    b: Array,
    b_scale: Array,
    b_zero_point: Array,
    y_scale: Array,
    y_zero_point: Array,
) -> Array:
    """Multiply quantized matrices and quantize the product.

    Args:
      a: ``[..., M, K]``.
      a_scale: A scalar, ``[M]`` or ``[..., M, 1]``; as its zero point, and those of the product.
      a_zero_point: See ``a_scale``.
      b: ``[..., K, N]``.
      b_scale: A scalar, ``[N]`` or ``[..., 1, N]``; as its zero point.
      b_zero_point: See ``b_scale``.
      y_scale: See ``a_scale``.
      y_zero_point: See ``a_scale``; its dtype is that of the output.

    Source: ONNX operator specification, QLinearMatMul-21.
    """
    sums = matmul_integer(a, b, a_zero_point, b_zero_point)
    of_a, of_y = (widened(s.reshape(_OF_ROWS) if s.ndim == 1 else s) for s in (a_scale, y_scale))
    offset = y_zero_point.reshape(_OF_ROWS) if y_zero_point.ndim == 1 else y_zero_point
    return _requantize(sums, of_a * widened(b_scale) / of_y, offset)


def _requantize(sums: Array, factor: Array, zero_point: Array) -> Array:
    """Return ``int32`` sums times a factor as whole numbers of the zero point's type."""
    limits = ml_dtypes.iinfo(zero_point.dtype)
    steps = jnp.round(sums.astype(factor.dtype) * factor) + zero_point.astype(factor.dtype)
    return jnp.clip(steps, float(limits.min), float(limits.max)).astype(zero_point.dtype)


@op("ConvInteger", since=(10,), traits=Traits.float_only())
def conv_integer(
    x: Array,
    w: Array,
    x_zero_point: Array | None = None,
    w_zero_point: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Array:
    """Convolve whole numbers as `conv` does; sums are ``int32``, pads hold the zero point.

    Args:
      x: ``[N, C, *spatial]``.
      w: ``[M, C / group, *kernel]``.
      x_zero_point: A scalar.
      w_zero_point: A scalar or ``[M]``.

    Source: ONNX operator specification, ConvInteger-10.
    """
    per_channel = (-1, *(1,) * (w.ndim - 1))
    return conv(
        _centred(x, x_zero_point),
        _centred(w, w_zero_point, per_channel),
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )


@op("QLinearConv", since=(10,), traits=Traits.float_only())
def qlinear_conv(
    x: Array,
    x_scale: Array,
    x_zero_point: Array,
    w: Array,
    w_scale: Array,
    w_zero_point: Array,
    y_scale: Array,
    y_zero_point: Array,
    b: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Array:
    """Convolve quantized features and quantize the result.

    Args:
      x: ``[N, C, *spatial]``; its scale and zero point are scalars, as are those of the result.
      x_scale: See ``x``.
      x_zero_point: See ``x``.
      w: ``[M, C / group, *kernel]``.
      w_scale: A scalar or ``[M]``; as its zero point.
      w_zero_point: See ``w_scale``.
      y_scale: See ``x``.
      y_zero_point: See ``x``; its dtype is that of the output.
      b: ``int32[M]``, in steps of ``x_scale * w_scale``.

    Source: ONNX operator specification, QLinearConv-10.
    """
    sums = conv_integer(
        x,
        w,
        x_zero_point,
        w_zero_point,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    ones = (1,) * (x.ndim - 2)
    if b is not None:
        sums = sums + b.reshape(-1, *ones)
    of_w = w_scale.reshape(-1, *ones) if w_scale.ndim == 1 else w_scale
    return _requantize(
        sums, x_scale.reshape(()) * of_w / y_scale.reshape(()), y_zero_point.reshape(())
    )
