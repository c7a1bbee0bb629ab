"""Similarity of two tensors from sums that stream: one device pass serves every metric.

Source: hmct-spec 2.5. ``a`` is the float output, ``b`` the quantized one. Note the vendor's
definitions: `sqnr` is ``10 log10(|a| / |a - b|)``, half of the usual decibels, and `mre` divides
by the float value, elements where that is zero left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jptq.registry import lookup

Moments: TypeAlias = np.ndarray
"""``float64[..., 7]``: the columns of `FIELDS`, per comparison."""

FIELDS = ("aa", "ae", "ee", "abs", "relative", "relative_count", "max")


def moments(a: Array, b: Array) -> Array:
    """Return the sums that all metrics need, of one pair of tensors.

    Call it (jitted) under ``jax.enable_x64``: the sums are float64, because the cosine of two
    nearly equal tensors would drown in float32.

    Args:
      a: Float output, any shape.
      b: Quantized output, same shape.

    Returns:
      ``[7]``, see `FIELDS`; e is ``b - a``.
    """
    x = a.astype(jnp.float64).ravel()
    e = b.astype(jnp.float64).ravel() - x
    size = jnp.abs(e)
    nonzero = x != 0
    relative = jnp.where(nonzero, size / jnp.where(nonzero, jnp.abs(x), 1.0), 0.0)
    return jnp.stack(
        [
            jnp.vdot(x, x),
            jnp.vdot(x, e),
            jnp.vdot(e, e),
            size.sum(),
            relative.sum(),
            nonzero.sum().astype(jnp.float64),
            size.max(initial=0.0),
        ]
    )


def jitted(batched: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """Return ``batched`` jitted so that it computes in float64 whatever the caller's setting."""
    compiled = jax.jit(batched)

    def call(a: Array, b: Array) -> Array:
        with jax.enable_x64(True):
            return compiled(a, b)

    return call


def _cosine(m: Moments, size: int) -> np.ndarray:
    del size
    aa, bb = m[..., 0], np.maximum(m[..., 0] + 2 * m[..., 1] + m[..., 2], 0.0)
    norms = np.sqrt(aa * bb)
    both_zero = (aa == 0) & (bb == 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.clip((aa + m[..., 1]) / norms, -1.0, 1.0)
    return np.where(both_zero, 1.0, np.where(norms == 0, 0.0, value))


def _mse(m: Moments, size: int) -> np.ndarray:
    return np.asarray(m[..., 2] / size)


def _mae(m: Moments, size: int) -> np.ndarray:
    return np.asarray(m[..., 3] / size)


def _mre(m: Moments, size: int) -> np.ndarray:
    del size
    return np.asarray(m[..., 4] / np.maximum(m[..., 5], 1.0))


def _sqnr(m: Moments, size: int) -> np.ndarray:
    del size
    with np.errstate(divide="ignore", invalid="ignore"):
        value = 5.0 * (np.log10(m[..., 0]) - np.log10(m[..., 2]))
    return np.where((m[..., 0] == 0) & (m[..., 2] == 0), 0.0, value)


def _chebyshev(m: Moments, size: int) -> np.ndarray:
    del size
    return np.asarray(m[..., 6])


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
      of: ``of(moments float64[..., 7], elements per tensor) -> float64[...]``.
      better: ``higher`` or ``lower``.
    """

    of: Callable[[Moments, int], np.ndarray]
    better: str


METRICS = {
    "cosine-similarity": Metric(_cosine, better="higher"),
    "mse": Metric(_mse, better="lower"),
    "mre": Metric(_mre, better="lower"),
    "sqnr": Metric(_sqnr, better="higher"),
    "chebyshev": Metric(_chebyshev, better="lower"),
    "mae": Metric(_mae, better="lower"),
}


def evaluate(names: Sequence[str], m: Moments, size: int) -> np.ndarray:
    """Return metrics of moments.

    Args:
      names: M keys of `METRICS`.
      m: ``float64[..., 7]``.
      size: Elements of the tensors compared.

    Returns:
      ``float64[..., M]``.

    Raises:
      UnknownNameError: A name is not a metric.
    """
    return np.stack([lookup(METRICS, name, "metric").of(m, size) for name in names], axis=-1)
