"""Fake quantization as data: float in, float on the grid out, straight-through gradient.

Whether, how finely and over which range a tensor is quantized are arrays, so that a changed
precision needs no compilation (design 2, invariant 1).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jptq.numerics.affine import Affine


def quantize(x: Array, scale: Array, offset: Array, lower: Array, upper: Array) -> Array:
    """Return the integers of ``x`` on a grid, as floats.

    Rounds half to even, as ONNX QuantizeLinear does. Compilers may multiply by the reciprocal of
    the scale: a value within one unit in the last place of a tie can then fall to either side.

    Args:
      x: Values; the other arguments broadcast against it.
      scale: Width of a step.
      offset: Integer that stands for 0.
      lower: Least integer.
      upper: Largest integer.
    """
    return _limited(_place(x, scale, offset), lower, upper)


def on_grid(constant: np.ndarray, grid: Affine, axis: int | None) -> np.ndarray:
    """Return the integers of a constant on a grid, ``float32`` of its shape.

    The numbers of `quantize`, on the host: every shape of a weight would be a program to compile.

    Args:
      constant: Values.
      grid: Of one channel, or of as many as ``axis`` has.
      axis: Channel axis; None for one grid.
    """
    shape = [1] * constant.ndim
    if axis is not None:
        shape[axis] = -1
    scale, offset = (np.asarray(v, np.float32).reshape(shape) for v in (grid.scale, grid.offset))
    steps = np.rint(constant.astype(np.float32, copy=False) / scale) + offset
    return np.clip(steps, np.float32(grid.lower), np.float32(grid.upper))


def half(x: Array) -> Array:
    """Return ``x`` as it comes back from float16, saturated at the largest number of that.

    Not by two casts: a compiler that is allowed more precision than asked for drops them.

    Args:
      x: Values, float32.

    Source: IEEE 754-2019, binary16; hmct-spec 1.3.
    """
    in_range = _limited(x, _full(-_LARGEST_HALF, x), _full(_LARGEST_HALF, x))
    rounded = lax.reduce_precision(in_range, exponent_bits=5, mantissa_bits=10)
    # That makes numbers below the smallest normal one zero; float16 has a fixed step there.
    step = _full(2.0**-24, x)
    small = lax.mul(lax.round(lax.mul(x, _full(2.0**24, x)), _TO_EVEN), step)
    return lax.select(lax.lt(lax.abs(x), _full(2.0**-14, x)), small, rounded)


# Primitives, not `jax.numpy`: every network is traced with two quantizers per node, and a function
# of `jax.numpy` takes several times as long to trace.


def _spread(value: Array, x: Array) -> Array:
    """Return a value that broadcasts against ``x`` in the shape of ``x``."""
    value = jnp.asarray(value)
    if value.dtype == jnp.float32 and x.dtype == jnp.float64:  # a network in float64, for checks
        value = lax.convert_element_type(value, x.dtype)
    if value.shape == x.shape:
        return value
    return lax.broadcast_in_dim(value, x.shape, range(x.ndim - value.ndim, x.ndim))


def _full(value: float, x: Array) -> Array:
    return lax.full_like(x, value)


def _steps(x: Array, scale: Array) -> Array:
    """Return the nearest whole number of steps in ``x``.

    XLA turns a division by a broadcast value into a product with its reciprocal, which rounds
    some ties the other way. It must not see that the divisor is one: both branches are `scale`.
    """
    hidden = _spread(lax.optimization_barrier(scale), x)
    divisor = lax.select(lax.lt(x, _full(0, x)), _spread(scale, x), hidden)
    return lax.round(lax.div(x, divisor), _TO_EVEN)


def _place(x: Array, scale: Array, offset: Array) -> Array:
    """Return the integers that stand for ``x``, within the range or beyond."""
    return lax.add(_steps(x, scale), _spread(offset, x))


def _quantized(
    x: Array, place: Array, scale: Array, offset: Array, lower: Array, upper: Array
) -> Array:
    """Return ``Q(x)``: on a grid, or as float16 where the grid has no integers."""
    integers = _limited(place, lower, upper)
    on_grid = lax.mul(lax.sub(integers, _spread(offset, x)), _spread(scale, x))
    return lax.select(_spread(lower < upper, x), on_grid, half(x))


def _limited(x: Array, lower: Array, upper: Array) -> Array:
    """Return ``x`` between two values; NaN stays NaN."""
    return lax.min(_spread(upper, x), lax.max(_spread(lower, x), x))


_TO_EVEN = lax.RoundingMethod.TO_NEAREST_EVEN
_LARGEST_HALF = 65504.0


@jax.custom_jvp
def fake_quant(
    x: Array, scale: Array, offset: Array, lower: Array, upper: Array, gate: Array
) -> Array:
    """Return exactly ``Q(x)`` if the gate is positive, else exactly ``x``.

    A grid without integers, ``lower == upper``, stands for float16: `half`.

    The derivative is straight-through: behind an open gate that of the identity inside the range
    and zero outside it. With respect to the gate it is ``Q(x) - x``, as if the gate blended.

    Args:
      x: Values, float32.
      scale: Width of a step, broadcastable against ``x``.
      offset: Integer that stands for 0.
      lower: Least integer.
      upper: Largest integer.
      gate: Scalar, 0 or 1. Partial gates are `jptq.sensitivity.gates`' business.

    Source: Bengio et al. 2013, arXiv:1308.3432 (straight-through estimator); design 4.
    """
    q = _quantized(x, _place(x, scale, offset), scale, offset, lower, upper)
    return lax.select(_spread(gate > 0, x), q, x)


@fake_quant.defjvp
def _fake_quant_jvp(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    x, scale, offset, lower, upper, gate = primals
    dx, _, _, _, _, dgate = tangents
    place = _place(x, scale, offset)
    q = _quantized(x, place, scale, offset, lower, upper)
    on_grid = (place >= lower) & (place <= upper)
    inside = jnp.where(lower < upper, on_grid, jnp.abs(x) <= _LARGEST_HALF)
    slope = ((gate <= 0) | inside).astype(x.dtype)
    return lax.select(_spread(gate > 0, x), q, x), slope * dx + dgate * (q - x)
