"""How the absolute values of a tensor are spread, in one pass: counts by quarters of octaves.

The range need not be known beforehand, so that no second pass is needed to say what most values
are like beside the largest.
"""

from __future__ import annotations

import functools
import math
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

LOOKED_AT = 65536
"""Most values of a tensor and sample that are counted, evenly taken."""

_BINS = 1024
_SHIFT = 21
"""Bits of a float32 below its exponent and the first two of its fraction."""


def nothing() -> np.ndarray:
    """Return the counts of no value."""
    return np.zeros(_BINS, np.int64)


def count(x: Array | np.ndarray, real: int) -> Array | np.ndarray:
    """Return the counts of a batch.

    Args:
      x: ``float32[S, *shape]``.
      real: How many of the S samples count; the others fill the batch up.

    Returns:
      ``int[1024]``: by the leading bits of the absolute value.
    """
    size = math.prod(x.shape[1:])
    step = max(1, -(-size // LOOKED_AT))
    while math.gcd(step, size) > 1:  # else it would meet the same places of an axis only
        step += 1
    if isinstance(x, np.ndarray):
        bins = _bins(x[:real], step, np)
        return np.bincount(bins.ravel(), minlength=_BINS)
    return _count(x, np.int32(real), step)


def usual(counts: np.ndarray, share: float) -> float:
    """Return a value that a share of the absolute values, exact zeros left out, does not exceed.

    Returns:
      The upper edge of the quarter of an octave in which the quantile lies: at most 25 % above it.
      0 where all values are zero.
    """
    others = counts.copy()
    others[0] = 0  # zero, and numbers below the least normal one
    total = int(others.sum())
    if total == 0:
        return 0.0
    rank = max(1, math.ceil(share * total))
    at = int(np.searchsorted(np.cumsum(others), rank))
    edge = np.uint32((at + 1) << _SHIFT).reshape(1).view(np.float32)
    return float(edge[0])


def _bins(x: Any, step: int, xp: ModuleType) -> Any:
    taken = x.reshape(x.shape[0], -1)[:, ::step].astype(np.float32)
    bits: Any = (
        np.ascontiguousarray(taken).view(np.uint32)
        if xp is np
        else jax.lax.bitcast_convert_type(taken, jnp.uint32)
    )
    return ((bits & np.uint32(0x7FFFFFFF)) >> np.uint32(_SHIFT)).astype(np.int32)


@functools.partial(jax.jit, static_argnums=2)
def _count(x: Array, real: Array, step: int) -> Array:
    bins = _bins(x, step, jnp)
    weight = (jnp.arange(x.shape[0], dtype=jnp.int32) < real).astype(jnp.int32)[:, None]
    return jnp.zeros(_BINS, jnp.int32).at[bins].add(jnp.broadcast_to(weight, bins.shape))
