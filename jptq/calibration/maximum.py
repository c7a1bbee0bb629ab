"""Thresholds as the largest absolute value, or as a quantile of the absolute values."""

from __future__ import annotations

import math

import numpy as np

from jptq.calibration.method import Method
from jptq.calibration.statistics import Histogram, Statistics


def threshold(statistics: Statistics, method: Method) -> float:
    """Return the p-quantile of the absolute values over all samples; the largest for p = 1.

    Source: hmct-spec 2.2 (``max``, ``max-percentile``).
    """
    if method.percentile >= 1.0 or not np.isfinite(statistics.largest):
        return statistics.largest
    histogram = statistics.histograms[method.num_bin]
    return min(quantile(histogram, method.percentile), statistics.largest)


def quantile(histogram: Histogram, share: float) -> float:
    """Return the upper edge of the bin with the value of rank ``ceil(share * n)``.

    Args:
      histogram: Of n absolute values, n > 0.
      share: From 0 to 1.

    Returns:
      At least the exact quantile, at most a bin's width above it.
    """
    total = int(histogram.counts.sum())
    rank = max(1, math.ceil(share * total))
    at = int(np.searchsorted(np.cumsum(histogram.counts), rank))
    return (at + 1) * histogram.width
