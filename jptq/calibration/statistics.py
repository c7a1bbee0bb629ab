"""What is kept of a tensor over all samples: its range and a histogram, never its values.

Both are reduced on the device, batch by batch, in two passes over the samples: the histogram
needs the range to lay out its bins.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jptq.ops.intervals import ALL, Interval

FINE_BINS = 16384
"""Least number of bins: a threshold read off a histogram is at most the tensor's largest absolute
value / 8192 above the exact one."""


_LEAST = 1e-30
"""Below this a tensor counts as zero: bins of it would be narrower than float32 can say."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Histogram:
    """Counts of absolute values.

    Attributes:
      counts: ``int64[bins]``; bin i holds values from ``i * width`` to ``(i + 1) * width``.
      width: Of a bin, in the tensor's unit.
      zeros: How many of the first bin's values are exactly 0.
      growth: How often the range had to be doubled from that of the first sample.
    """

    counts: np.ndarray
    width: float
    zeros: int
    growth: int


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Statistics:
    """Of one tensor, over all samples.

    Attributes:
      low: Least value.
      high: Largest value.
      first: Largest absolute value of the first sample.
      channels: ``float32[C]``, largest absolute value per channel; None if not asked for.
      histograms: By ``num_bin``.
      limit: Values were cut off at the ends of this (`limited`).
      usual: What 99.9 % of the absolute values do not exceed, exact zeros left out; NaN if not
        asked for.
    """

    low: float
    high: float
    first: float
    channels: np.ndarray | None = None
    histograms: Mapping[int, Histogram] = dataclasses.field(default_factory=dict)
    limit: Interval = ALL
    usual: float = math.nan

    def limited(self, interval: Interval) -> Statistics:
        """Return the statistics of the values with those outside of an interval at its ends.

        Channels are kept apart only for convolutions, which tell all values apart.
        """
        low, high = np.clip([self.low, self.high], *interval).tolist()
        cut = dataclasses.replace(self, low=low, high=high, limit=interval)
        # Only the range that a histogram begins with follows from it.
        return dataclasses.replace(cut, first=min(self.first, cut.largest))

    @property
    def largest(self) -> float:
        """Return the largest absolute value."""
        # max(), unlike np.maximum, may lose a NaN.
        return float(np.maximum(abs(self.low), abs(self.high)))


def init() -> Statistics:
    """Return the statistics of no sample."""
    return Statistics(low=math.inf, high=-math.inf, first=math.nan)


class Measured(NamedTuple):
    """The range of one batch, on the device or the host."""

    low: Array | np.ndarray
    high: Array | np.ndarray
    first: Array | np.ndarray
    channels: Array | np.ndarray | None


def measure(x: Array | np.ndarray, channel_axis: int | None = None) -> Measured:
    """Return the range of a batch.

    Args:
      x: ``[S, *shape]``, S samples; a repeated sample does no harm. A tensor on the host is
        measured there.
      channel_axis: Axis of ``shape`` to keep apart, or None.
    """
    if isinstance(x, np.ndarray):
        return _measure(x, channel_axis, np)
    return _measured(x, channel_axis)


def _measure(x: Any, channel_axis: int | None, xp: ModuleType) -> Measured:
    magnitude = xp.abs(x)
    channels = None
    if channel_axis is not None:
        others = tuple(i for i in range(x.ndim) if i != channel_axis + 1)
        channels = xp.max(magnitude, axis=others, initial=0)
    if x.size == 0:  # a tensor without elements counts as zero
        nothing = xp.zeros((), np.float32)
        return Measured(nothing, nothing, nothing, channels)
    # XLA:CPU may lose a NaN in a minimum or maximum.
    marker = xp.where(xp.isnan(x).any(), np.float32(np.nan), np.float32(0))
    return Measured(xp.min(x) + marker, xp.max(x) + marker, xp.max(magnitude[0]), channels)


@functools.partial(jax.jit, static_argnums=1)
def _measured(x: Array, channel_axis: int | None) -> Measured:
    return _measure(x, channel_axis, jnp)


def update(before: Statistics, batch: Measured) -> Statistics:
    """Return the statistics with the range of a batch added."""
    channels = None if batch.channels is None else np.asarray(batch.channels)
    if channels is not None and before.channels is not None:
        channels = np.maximum(before.channels, channels)
    return Statistics(
        # np.minimum and np.maximum keep a NaN, which is refused when thresholds are made.
        low=float(np.minimum(before.low, batch.low)),
        high=float(np.maximum(before.high, batch.high)),
        first=float(batch.first) if math.isnan(before.first) else before.first,
        channels=channels,
    )


def empty_histogram(statistics: Statistics, num_bin: int, max_num_bin: int) -> Histogram:
    """Return a histogram without counts that suits a tensor.

    The range starts as the first sample's and is doubled until it covers all samples, so that it
    does not depend on the batch size. Bins are as fine as the methods need: a multiple of
    ``num_bin`` by a power of two.

    Args:
      statistics: The tensor's, after all samples.
      num_bin: Bins over the first sample's range.
      max_num_bin: Bins that ``kl`` may use.
    """
    largest = statistics.largest
    start = statistics.first if statistics.first > 0 else largest
    usable = _LEAST < largest < math.inf
    growth = max(0, math.ceil(math.log2(largest / start))) if usable else 0
    bins = num_bin * 2 ** math.ceil(math.log2(max(max_num_bin, FINE_BINS, num_bin) / num_bin))
    span = start * 2.0**growth if usable else 1.0
    return Histogram(counts=np.zeros(bins, np.int64), width=span / bins, zeros=0, growth=growth)


class Counted(NamedTuple):
    """The histogram of one batch, on the device or the host."""

    counts: Array | np.ndarray
    zeros: Array | np.integer


def count(x: Array | np.ndarray, into: Histogram, real: int, *, limit: Interval = ALL) -> Counted:
    """Return the histogram of a batch.

    Args:
      x: ``[S, *shape]``; a tensor on the host is counted there.
      into: Lays out the bins.
      real: How many of the S samples count; the others fill the batch up.
      limit: Values outside of this count as its ends.
    """
    if limit.limits:
        x = x.clip(np.float32(limit.low), np.float32(limit.high))
    per_unit, bins = np.float32(1.0 / into.width), into.counts.size
    if isinstance(x, np.ndarray):
        magnitude = np.abs(x[:real]).ravel()
        index = np.minimum(magnitude * per_unit, np.float32(bins - 1)).astype(np.int32)
        return Counted(np.bincount(index, minlength=bins), np.sum(magnitude == 0))
    return Counted(*_count(x, per_unit, np.int32(real), bins))


def update_histogram(before: Histogram, batch: Counted) -> Histogram:
    """Return the histogram with that of a batch added."""
    return dataclasses.replace(
        before,
        counts=before.counts + np.asarray(batch.counts),
        zeros=before.zeros + int(batch.zeros),
    )


@functools.partial(jax.jit, static_argnums=3)
def _count(x: Array, per_unit: Array, real: Array, bins: int) -> tuple[Array, Array]:
    magnitude = jnp.abs(x).reshape(x.shape[0], -1)
    index = jnp.minimum(magnitude * per_unit, np.float32(bins - 1)).astype(jnp.int32)
    counted = (jnp.arange(x.shape[0], dtype=jnp.int32) < real).astype(jnp.int32)[:, None]
    weight = jnp.broadcast_to(counted, index.shape)
    counts = jnp.zeros(bins, jnp.int32).at[index].add(weight)
    return counts, jnp.sum(jnp.where(magnitude == 0, weight, 0))
