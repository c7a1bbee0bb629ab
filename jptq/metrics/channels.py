"""What becomes of each channel of an output: the cosine of a whole is that of its largest values.

A detector's output joins boxes in pixels with probabilities: INT8 may make every probability zero,
and the cosine of the whole stays above 0.999. Means, spreads and correlations of all channels
stream over samples; nothing grows with their number.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jptq.metrics.similarity import exact, reduced

FIELDS = (
    "count",
    "mean",
    "mean_quantized",
    "spread",
    "spread_quantized",
    "common",
    "magnitude",
    "low",
    "high",
    "low_quantized",
    "high_quantized",
)
"""Rows of what `compare` returns: elements that are finite in both tensors; means of the float and
of the quantized ones; sums of squared distances from these; sum of the products of both distances;
largest absolute float value; least and largest values."""

_COUNT, _MEAN, _MEAN_Q, _SPREAD, _SPREAD_Q, _COMMON, _MAGNITUDE = range(7)


def compare(a: Array | np.ndarray, b: Array | np.ndarray, axis: int) -> Array:
    """Return the statistics of every channel of pairs of tensors.

    Args:
      a: Float output, ``[S, *shape]``.
      b: Quantized output, same shape.
      axis: Of ``shape`` that counts channels, C of them.

    Returns:
      ``float64[S, 11, C]``, rows as in `FIELDS`.
    """
    with jax.enable_x64(True):
        return _compiled(axis)(a, b)


@functools.cache
def _compiled(axis: int) -> Callable[..., Array]:
    return jax.jit(jax.vmap(functools.partial(_statistics, axis=axis)))


def _statistics(a: Array, b: Array, *, axis: int) -> Array:
    x, y = (jnp.moveaxis(exact(v), axis, 0).reshape(a.shape[axis], -1) for v in (a, b))
    known = jnp.isfinite(x) & jnp.isfinite(y)
    x, y = jnp.where(known, x, 0), jnp.where(known, y, 0)
    both = (x, y)
    ends = tuple(jnp.where(known, sign * z, -jnp.inf) for z in both for sign in (-1, 1))
    sums, most = reduced(
        (known.astype(jnp.float64), *both), (jnp.abs(x), *ends), (1,), least=-np.inf
    )
    count, *totals = sums
    means = [total / jnp.maximum(count, 1) for total in totals]
    u, v = (jnp.where(known, z - mean[:, None], 0) for z, mean in zip(both, means, strict=True))
    spreads, _ = reduced((u * u, v * v, u * v), (), (1,))
    magnitude, low, high, low_q, high_q = most
    return jnp.stack([count, *means, *spreads, magnitude, -low, high, -low_q, high_q])


def merged(rows: np.ndarray, axis: int = 0) -> np.ndarray:
    """Return the statistics of several parts together, as if they had been one.

    Args:
      rows: Statistics with the parts along an axis; `FIELDS` are the first axis of the others:
        ``float64[P, 11, C]`` with axis 0, ``float64[11, P]`` with axis 1.
      axis: Of the parts.

    Returns:
      ``float64[11, *rest]``.

    Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm", 1979.
    """
    parts = np.moveaxis(rows, axis, 0)
    field = {name: parts[:, i] for i, name in enumerate(FIELDS)}
    count = field["count"].sum(0)
    share = field["count"] / np.maximum(count, 1)
    means = (share * field["mean"]).sum(0), (share * field["mean_quantized"]).sum(0)
    u, v = field["mean"] - means[0], field["mean_quantized"] - means[1]
    n = field["count"]
    return np.stack(
        [
            count,
            *means,
            (field["spread"] + n * u * u).sum(0),
            (field["spread_quantized"] + n * v * v).sum(0),
            (field["common"] + n * u * v).sum(0),
            field["magnitude"].max(0, initial=0.0),
            field["low"].min(0, initial=np.inf),
            field["high"].max(0, initial=-np.inf),
            field["low_quantized"].min(0, initial=np.inf),
            field["high_quantized"].max(0, initial=-np.inf),
        ]
    )


def correlation(rows: np.ndarray) -> np.ndarray:
    """Return Pearson's correlation of float and quantized values, ``float64[C]`` of ``[11, C]``.

    0 where the quantized values are constant and the float ones are not; 1 where those are.
    """
    x, y = rows[_SPREAD], rows[_SPREAD_Q]
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.clip(rows[_COMMON] / np.sqrt(x) / np.sqrt(y), -1.0, 1.0)
    return np.where(x == 0, 1.0, np.where(y == 0, 0.0, found))
