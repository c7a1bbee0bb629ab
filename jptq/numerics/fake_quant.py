"""Fake quantization as data: float in, float on the grid out, straight-through gradient.

Whether, how finely and over which range a tensor is quantized are arrays, so that a changed
precision needs no compilation (design 2, invariant 1).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array


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
    return jnp.clip(jnp.round(x / scale) + offset, lower, upper)


@jax.custom_jvp
def fake_quant(
    x: Array, scale: Array, offset: Array, lower: Array, upper: Array, gate: Array
) -> Array:
    """Return ``x + gate * (Q(x) - x)``, exactly ``x`` at gate 0 and exactly ``Q(x)`` at gate 1.

    The derivative is straight-through: at gate 1 that of the identity inside the range and zero
    outside it, at gate 0 that of the identity; with respect to the gate it is ``Q(x) - x``.

    Args:
      x: Values, float32.
      scale: Width of a step, broadcastable against ``x``.
      offset: Integer that stands for 0.
      lower: Least integer.
      upper: Largest integer.
      gate: Scalar, usually 0 or 1; the direction of design 5.

    Source: Bengio et al. 2013, arXiv:1308.3432 (straight-through estimator); design 4.
    """
    on_grid = (quantize(x, scale, offset, lower, upper) - offset) * scale
    # The blend x + 1 * (q - x) is not q in floating point.
    return jnp.where(gate == 1, on_grid, jnp.where(gate == 0, x, x + gate * (on_grid - x)))


@fake_quant.defjvp
def _fake_quant_jvp(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    x, scale, offset, lower, upper, gate = primals
    dx, _, _, _, _, dgate = tangents
    steps = jnp.round(x / scale) + offset
    inside = (steps >= lower) & (steps <= upper)
    on_grid = (jnp.clip(steps, lower, upper) - offset) * scale
    out = jnp.where(gate == 1, on_grid, jnp.where(gate == 0, x, x + gate * (on_grid - x)))
    slope = jnp.where(inside, jnp.ones_like(x), 1 - gate)
    return out, slope * dx + dgate * (on_grid - x)
