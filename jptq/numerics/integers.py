"""Integers of a given width, as floats hold them."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array


def within(x: Array, bits: float, *, wraps: bool) -> Array:
    """Return whole numbers as two's complement of a width holds them.

    Args:
      x: Whole numbers, as floats; beyond 24 bits float32 holds the nearest ones that it has.
      bits: Width, sign included.
      wraps: What does not fit begins again at the other end; if not, it becomes the nearest
        number that fits.
    """
    half = 2.0 ** (bits - 1)
    if wraps:
        return x - 2 * half * jnp.floor((x + half) / (2 * half))
    return jnp.clip(x, -half, half - 1)
