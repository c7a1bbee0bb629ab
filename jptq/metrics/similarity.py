"""Similarity of two tensors from sums that stream: one device pass serves every metric.

Source: hmct-spec 2.5. ``a`` is the float output, ``b`` the quantized one. Note the vendor's
definitions: `sqnr` is ``10 log10(|a| / |a - b|)``, half of the usual decibels, and `mre` divides
by the float value, elements where that is zero left out.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jptq.registry import lookup

Moments: TypeAlias = np.ndarray
"""``float64[..., 7 + 2 C]``: the columns of `FIELDS`, then signal and noise power of each of the C
channels (`channels`), per comparison."""

FIELDS = ("aa", "ae", "ee", "abs", "relative", "relative_count", "max")

EQUAL: Moments = np.asarray([[1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0]])
"""Of a tensor and itself."""

_MOST_CHANNELS = 256

_BROKEN = 1e3
"""Error of an element that only quantization makes NaN or infinite, in units of the tensor's
largest value: the worst there is, and still a number that can be added up and ranked."""


def moments(a: Array, b: Array) -> Array:
    """Return the sums that all metrics need, of one pair of tensors.

    Call it (jitted) under ``jax.enable_x64``, as `compare` does: totals are float64, because the
    cosine of two nearly equal tensors would drown in float32.

    Args:
      a: Float output, any shape.
      b: Quantized output, same shape.

    Returns:
      ``[7 + 2 C]``, see `Moments`; e is ``b - a``. NaN and infinite elements of ``a`` count as 0,
      without error if ``b`` has them too; all others that are NaN or infinite have the error
      `_BROKEN`.
    """
    working = jnp.float32 if a.dtype == jnp.float32 else jnp.float64
    count = channels(a.shape)
    lead = a.shape[0] if count > 1 else 1
    rows = (lead, count, a.size // max(lead * count, 1))
    x, y = a.astype(working).reshape(rows), b.astype(working).reshape(rows)
    e = jnp.where((x == y) | (jnp.isnan(x) & jnp.isnan(y)), 0, y - x)
    x = jnp.where(jnp.isfinite(x), x, 0)
    largest = jnp.abs(x).max(initial=0)
    # Away from x: a lost element must not look like a longer vector of the same direction.
    lost = jnp.minimum(_BROKEN * jnp.where(largest > 0, largest, 1), jnp.finfo(working).max)
    e = jnp.where(jnp.isfinite(e), e, jnp.where(x < 0, lost, -lost))
    size = jnp.abs(e)
    nonzero = x != 0
    relative = jnp.where(nonzero, size / jnp.where(nonzero, jnp.abs(x), 1), 0)
    # Squares of large float32 numbers would overflow: both are taken in units of their largest.
    worst = size.max(initial=0)
    unit, step = (jnp.where(m > 0, m, 1) for m in (largest, worst))
    x, e = x / unit, e / step
    unit, step = unit.astype(jnp.float64), step.astype(jnp.float64)
    signal, noise = _per_channel(x * x) * unit**2, _per_channel(e * e) * step**2
    sums = jnp.stack(
        [
            signal.sum(),
            _per_channel(x * e).sum() * unit * step,
            noise.sum(),
            _per_channel(jnp.abs(e)).sum() * step,
            _per_channel(relative).sum(),
            nonzero.sum().astype(jnp.float64),
            worst.astype(jnp.float64),
        ]
    )
    return jnp.concatenate([sums, signal, noise])


_CHUNK = 256
"""Terms that are added in float32 before float64 takes over: fast, and good to 1e-6 of a sum of
terms of one sign. Errors of the metrics are relative to themselves, not to the outputs."""


def _per_channel(terms: Array) -> Array:
    """Add up ``[N, C, M]`` to ``float64[C]``."""
    chunk = min(_CHUNK, max(terms.shape[2], 1))
    spare = -terms.shape[2] % chunk
    padded = jnp.pad(terms, ((0, 0), (0, 0), (0, spare)))
    chunks = padded.reshape(*terms.shape[:2], -1, chunk).sum(-1)
    return chunks.astype(jnp.float64).sum((0, 2))


def channels(shape: tuple[int, ...]) -> int:
    """Return how many channels of an output are told apart: axis 1 of three or more axes.

    A detector's one output often joins boxes in pixels with probabilities: an error that is small
    against the whole can be large against a channel.
    """
    return shape[1] if len(shape) >= 3 and 1 < shape[1] <= _MOST_CHANNELS else 1


def compare(a: Array | np.ndarray, b: Array | np.ndarray, *, axes: int = 1) -> Array:
    """Return the moments of many pairs of tensors, in float64 whatever the caller's setting.

    Args:
      a: Float output, ``[*pairs, *shape]``.
      b: Quantized output, same shape.
      axes: Leading axes that count pairs: samples, as a rule.

    Returns:
      ``[*pairs, 7 + 2 C]``, see `Moments`.
    """
    with jax.enable_x64(True):
        return _compiled(axes)(a, b)


@functools.cache
def _compiled(axes: int) -> Callable[..., Array]:
    function = moments
    for _ in range(axes):
        function = jax.vmap(function)
    return jax.jit(function)


def _cosine(m: Moments, size: int) -> np.ndarray:
    del size
    aa, bb = m[..., 0], np.maximum(m[..., 0] + 2 * m[..., 1] + m[..., 2], 0.0)
    norms = np.sqrt(aa * bb)
    both_zero = (aa == 0) & (bb == 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.clip((aa + m[..., 1]) / norms, -1.0, 1.0)
    return np.where(both_zero, 1.0, np.where(norms == 0, 0.0, value))


def _mse(m: Moments, size: int) -> np.ndarray:
    return np.asarray(m[..., 2] / max(size, 1))


def _mae(m: Moments, size: int) -> np.ndarray:
    return np.asarray(m[..., 3] / max(size, 1))


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


def _nsr(m: Moments, size: int) -> np.ndarray:
    del size
    return _share(m[..., 2], m[..., 0])


def _channel_nsr(m: Moments, size: int) -> np.ndarray:
    del size
    signal, noise = np.split(m[..., len(FIELDS) :], 2, axis=-1)
    return np.asarray(_share(noise, signal).mean(-1))


def _share(noise: np.ndarray, signal: np.ndarray) -> np.ndarray:
    """Noise over signal; 0 without noise, 1 where there is noise but no signal."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(noise == 0, 0.0, np.where(signal == 0, 1.0, noise / signal))


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
      of: ``of(moments float64[..., 7 + 2 C], elements per tensor) -> float64[...]``.
      better: ``higher`` or ``lower``.
      pooled: Moments are added over samples first: for ratios whose denominator may be tiny in a
        single sample.
    """

    of: Callable[[Moments, int], np.ndarray]
    better: str
    pooled: bool = False


METRICS = {
    "cosine-similarity": Metric(_cosine, better="higher"),
    "mse": Metric(_mse, better="lower"),
    "mre": Metric(_mre, better="lower"),
    "sqnr": Metric(_sqnr, better="higher"),
    "chebyshev": Metric(_chebyshev, better="lower"),
    "mae": Metric(_mae, better="lower"),
    "nsr": Metric(_nsr, better="lower", pooled=True),
    "channel-nsr": Metric(_channel_nsr, better="lower", pooled=True),
}
"""The vendor's, and two of ours: `nsr` is noise power over signal power, free of units, and
`channel-nsr` its mean over the channels of an output."""


class Means:
    """Metrics of many samples whose moments come in batches; nothing grows with their number.

    Args:
      names: M keys of `METRICS`.
      size: Elements of the tensors compared.
    """

    def __init__(self, names: Sequence[str], size: int) -> None:
        self._names = names
        self._size = size
        self._sum = np.zeros(len(names))
        self._count = np.zeros(len(names))
        self._moments: np.ndarray | float = 0.0

    def add(self, m: Moments) -> None:
        """Take in ``float64[S, 7 + 2 C]``, a row per sample."""
        values = evaluate(self._names, m, self._size)
        self._sum += np.nansum(values, axis=0)
        self._count += (~np.isnan(values)).sum(axis=0)
        self._moments = self._moments + m.sum(0)

    def values(self) -> np.ndarray:
        """Return ``float64[M]``: means over the samples, those without a number left out.

        Pooled metrics are those of all samples together.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(self._count > 0, self._sum / self._count, np.nan)
        for i, name in enumerate(self._names):
            if METRICS[name].pooled:
                mean[i] = METRICS[name].of(np.asarray(self._moments), self._size)
        return np.asarray(mean)


def evaluate(names: Sequence[str], m: Moments, size: int) -> np.ndarray:
    """Return metrics of moments.

    Args:
      names: M keys of `METRICS`.
      m: ``float64[S, 7 + 2 C]``, a row per sample.
      size: Elements of the tensors compared.

    Returns:
      ``float64[S, M]``; pooled metrics repeat their value.

    Raises:
      UnknownNameError: A name is not a metric.
    """
    columns = []
    for name in names:
        metric = lookup(METRICS, name, "metric")
        used = np.broadcast_to(m.sum(0), m.shape) if metric.pooled else m
        columns.append(metric.of(used, size))
    return np.stack(columns, axis=-1)
