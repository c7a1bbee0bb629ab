"""Levels of the rows of a tensor, over all samples, with the rows that are masked as a whole apart.

What a softmax or an argmax tells apart hangs on its lowest row. Rows that hold nothing but a mask
(the queries of padding) lie far below all others and decide nothing: their grid would leave no
steps for the rest.
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

from jptq.ops.intervals import INFINITE

_DEEP = 128.0
"""A row whose level is no lower than minus this shares a grid with the others: an INT8 step is
about 1, a factor of e in a softmax."""

_APART = 8.0
"""A level this many times lower than the next one above it begins a group of masked rows."""

_OCTAVES = 130
"""Levels of -1 and above, one group per power of two below, and minus infinity."""


def nothing() -> np.ndarray:
    """Return the levels of no row."""
    return np.stack([np.full(_OCTAVES, np.inf), np.full(_OCTAVES, -np.inf)]).astype(np.float32)


def measure(x: Array | np.ndarray, axes: tuple[int, ...], rows: str) -> Array | np.ndarray:
    """Return the levels of the rows of a batch, by powers of two.

    Args:
      x: ``[S, *shape]``, S samples; a repeated sample does no harm.
      axes: Of a row, in ``shape``.
      rows: ``mass``, the logarithm of the mean exponential; ``maximum``; or ``element``: each
        element is a row.

    Returns:
      ``float32[2, octaves]``: least and largest level of each group; inf and -inf where it is
      empty.
    """
    if isinstance(x, np.ndarray):
        with np.errstate(invalid="ignore"):
            return _measure(x, axes, rows, np)
    return _measured(x, axes, rows)


def joined(before: np.ndarray, batch: Array | np.ndarray) -> np.ndarray:
    """Return levels with those of a batch added."""
    least, largest = np.asarray(batch)
    return np.stack([np.minimum(before[0], least), np.maximum(before[1], largest)])


def least(levels: np.ndarray) -> float:
    """Return the lowest level of a row that is not masked as a whole; NaN where there is none."""
    filled = [i for i in range(_OCTAVES) if levels[0, i] <= levels[1, i]]
    kept: list[int] = []
    for i in filled:
        deep = levels[1, i] < -INFINITE
        far = kept and levels[1, i] < -_DEEP and levels[1, i] < _APART * _under(levels, kept)
        if deep or far:
            break
        kept.append(i)
    return float(levels[0, kept[-1]]) if kept else math.nan


def masked(levels: np.ndarray) -> bool:
    """Tell whether there are rows that are masked as a whole, beside others."""
    known = least(levels)
    return not math.isnan(known) and bool(np.min(levels[0]) < known)


def _under(levels: np.ndarray, kept: list[int]) -> float:
    return min(-1.0, float(levels[0, kept[-1]]))


def _measure(x: Any, axes: tuple[int, ...], rows: str, xp: ModuleType) -> Any:
    if x.size == 0:
        return nothing()
    along = tuple(axis + 1 for axis in axes)
    level = x if rows == "element" else xp.max(x, axis=along, keepdims=True)
    if rows == "mass":
        highest = xp.where(level > -INFINITE, level, xp.float32(0))
        # An exponential that underflows adds nothing, as in the softmax; a masked row has none.
        mean = xp.mean(xp.exp(xp.minimum(x - highest, xp.float32(0))), axis=along, keepdims=True)
        mean = xp.maximum(mean, np.finfo(np.float32).tiny)
        level = xp.where(level > -INFINITE, level + xp.log(mean), level)
    level = level.reshape(-1).astype(np.float32)
    level = xp.where(xp.isnan(level), xp.float32(np.inf), level)  # NaN is refused elsewhere
    depth = xp.maximum(-level, xp.float32(1))
    octave = xp.where(level >= -1, 0, xp.minimum(xp.floor(xp.log2(depth)) + 1, _OCTAVES - 1))
    octave = octave.astype(np.int32)
    found = nothing()
    if xp is np:
        np.minimum.at(found[0], octave, level)
        np.maximum.at(found[1], octave, level)
        return found
    return jnp.stack(
        [
            jnp.asarray(found[0]).at[octave].min(level),
            jnp.asarray(found[1]).at[octave].max(level),
        ]
    )


@functools.partial(jax.jit, static_argnums=(1, 2))
def _measured(x: Array, axes: tuple[int, ...], rows: str) -> Array:
    return _measure(x, axes, rows, jnp)
