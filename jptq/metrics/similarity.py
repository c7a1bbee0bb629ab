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
from jax import Array, lax

from jptq.registry import lookup

Moments: TypeAlias = np.ndarray
"""``float64[..., 12 + 2 C]``: the columns of `FIELDS`, then signal and noise power of each of the C
channels (`channels`), per comparison."""

FIELDS = (
    "aa",
    "ae",
    "ee",
    "abs",
    "relative",
    "relative_count",
    "max",
    "ab",
    "bb",
    "broken",
    "undefined",
    "different",
)

EQUAL: Moments = np.asarray(
    [[*(float(name in ("aa", "relative_count", "ab", "bb")) for name in FIELDS), 1.0, 0.0]]
)
"""Of a tensor and itself."""

_MOST_CHANNELS = 256

_BROKEN = 1e3
"""Error of an element that only quantization makes NaN or infinite, in units of the tensor's
largest value: the worst there is, and still a number that can be added up and ranked."""

_NEAR = 0.01
"""Error power over signal power below which tensors are nearly equal."""

_LARGEST = 1e150
"""Float64 values beyond this count as this: their squares would have no number."""


def moments(a: Array, b: Array) -> Array:
    """Return the sums that all metrics need, of one pair of tensors.

    Call it (jitted) under ``jax.enable_x64``, as `compare` does: everything is float64, because the
    cosine of two nearly equal tensors would drown in float32, and because squares and ratios of
    float32 numbers leave the range of float32 at both ends.

    Args:
      a: Float output, any shape.
      b: Quantized output, same shape.

    Returns:
      ``[12 + 2 C]``, see `Moments`; e is ``b - a``. NaN and infinite elements of ``a`` count as 0,
      without error if ``b`` has them too; all others that are NaN or infinite have the error
      `_BROKEN`. How many there are of these is ``broken``, how many NaN ``a`` has ``undefined``,
      how many elements are not equal ``different``.
    """
    count = channels(a.shape)
    lead = a.shape[0] if count > 1 else 1
    rows = (lead, count, a.size // max(lead * count, 1))
    x, y = exact(a).reshape(rows), exact(b).reshape(rows)
    same = (x == y) | (jnp.isnan(x) & jnp.isnan(y))
    e = jnp.where(same, 0, y - x)
    undefined = jnp.isnan(x)
    x = jnp.where(jnp.isfinite(x), x, 0)
    broken = ~jnp.isfinite(e)
    e, y = jnp.where(broken, 0, e), jnp.where(broken | undefined, x, y)
    # Where both hold the same infinity.
    y = jnp.where(jnp.isfinite(y), y, 0)
    large, size = jnp.abs(x), jnp.abs(e)
    nonzero = x != 0
    inverse = 1 / jnp.where(nonzero, large, jnp.inf)
    products = (x * x, x * y, y * y, x * e, e * e, size, size * inverse)
    counts = tuple(truth.astype(jnp.float64) for truth in (nonzero, undefined, ~same, broken))
    beside_lost = (jnp.where(broken, large, 0), jnp.where(broken, inverse, 0))
    sums, (most, worst) = reduced((*products, *counts, *beside_lost), (large, size), (0, 2))
    signal, ab, bb, ae, noise, total, relative, nonzeros, *others = sums
    undefineds, different, lost, beside, against = others
    # Away from x: a lost element must not look like a longer vector of the same direction.
    most = most.max(initial=0)
    far = _BROKEN * jnp.where(most > 0, most, 1)
    noise = noise + lost * far**2
    fields = [
        signal.sum(),
        (ae - beside * far).sum(),
        noise.sum(),
        (total + lost * far).sum(),
        (relative + against * far).sum(),
        nonzeros.sum(),
        jnp.maximum(worst.max(initial=0), jnp.where(lost.sum() > 0, far, 0)),
        (ab - beside * far).sum(),
        (bb - 2 * beside * far + lost * far**2).sum(),
        lost.sum(),
        undefineds.sum(),
        different.sum(),
    ]
    return jnp.concatenate([jnp.stack(fields), signal, noise])


def exact(x: Array) -> Array:
    """Return a tensor in float64, under ``jax.enable_x64``.

    XLA:CPU takes denormal numbers for zero, also where it converts them: these are put together
    from their bits. Host code has no such need.
    """
    wide = x.astype(jnp.float64)
    if x.dtype == jnp.float64:
        return jnp.where(jnp.isfinite(wide), jnp.clip(wide, -_LARGEST, _LARGEST), wide)
    if x.dtype not in (jnp.float32, jnp.bfloat16):
        return wide
    bits = lax.bitcast_convert_type(x.astype(jnp.float32), jnp.int32)
    magnitude = (bits & 0x007FFFFF).astype(jnp.float64) * 2.0**-149
    return jnp.where((bits & 0x7F800000) == 0, jnp.where(bits < 0, -magnitude, magnitude), wide)


def reduced(
    added: tuple[Array, ...],
    largest: tuple[Array, ...],
    axes: tuple[int, ...],
    *,
    least: float = 0.0,
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Add up some terms over axes, and find the largest of others, at least `least`; all float64.

    All of it in one pass: reductions apart would compute every term again for each.
    """
    sums = len(added)

    def both(one: tuple[Array, ...], other: tuple[Array, ...]) -> tuple[Array, ...]:
        pairs = list(zip(one, other, strict=True))
        return (*(a + b for a, b in pairs[:sums]), *(jnp.maximum(a, b) for a, b in pairs[sums:]))

    starts = (*(np.float64(0) for _ in added), *(np.float64(least) for _ in largest))
    found = tuple(lax.reduce((*added, *largest), starts, both, axes))
    return found[:sums], found[sums:]


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
      ``[*pairs, 12 + 2 C]``, see `Moments`.
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
    aa, ae, ee, ab, bb = (m[..., FIELDS.index(name)] for name in ("aa", "ae", "ee", "ab", "bb"))
    # Of nearly equal tensors the error has digits that their products have lost.
    near = ee < _NEAR * aa
    inner, other = np.where(near, aa + ae, ab), np.where(near, aa + 2 * ae + ee, bb)
    both_zero = (aa == 0) & (bb == 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        # A product of both would leave the range of float64 before its root comes back.
        value = np.clip(inner / np.sqrt(aa) / np.sqrt(other), -1.0, 1.0)
    return np.where(both_zero, 1.0, np.where((aa == 0) | (bb == 0), 0.0, value))


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
      of: ``of(moments float64[..., 12 + 2 C], elements per tensor) -> float64[...]``.
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
        self._least = np.full(len(names), np.inf)
        self._moments: np.ndarray | float = 0.0

    def add(self, m: Moments) -> None:
        """Take in ``float64[S, 12 + 2 C]``, a row per sample."""
        values = evaluate(self._names, m, self._size)
        finite = np.isfinite(values)
        self._sum += np.where(finite, values, 0.0).sum(axis=0)
        self._count += finite.sum(axis=0)
        self._least = np.fmin(self._least, np.fmin.reduce(values, axis=0, initial=np.inf))
        self._moments = self._moments + m.sum(0)

    @property
    def broken(self) -> int:
        """How many elements only quantization made NaN or infinite."""
        sums = np.asarray(self._moments)
        return int(sums[FIELDS.index("broken")]) if sums.ndim else 0

    def values(self) -> np.ndarray:
        """Return ``float64[M]``: means over the samples that have a finite value (`mean`).

        Pooled metrics are those of all samples together.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(self._count > 0, self._sum / self._count, self._least)
        for i, name in enumerate(self._names):
            if METRICS[name].pooled:
                mean[i] = METRICS[name].of(np.asarray(self._moments), self._size)
        return np.asarray(mean)


def mean(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Return the mean of a metric over samples, infinities and NaN left out.

    A sample without any error has an infinite ratio of signal to noise: it says nothing of the
    others. Where no sample has a finite value, the least one stands; NaN if all are NaN.

    Args:
      values: ``float64[S, *rest]``.
      axis: Of the samples.
    """
    finite = np.isfinite(values)
    count = finite.sum(axis)
    total = np.where(finite, values, 0.0).sum(axis)
    least = np.fmin.reduce(values, axis)
    return np.where(count > 0, total / np.maximum(count, 1), least)


def evaluate(names: Sequence[str], m: Moments, size: int) -> np.ndarray:
    """Return metrics of moments.

    Args:
      names: M keys of `METRICS`.
      m: ``float64[S, 12 + 2 C]``, a row per sample.
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
