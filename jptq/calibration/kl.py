"""Thresholds that lose the least information: minimum Kullback-Leibler divergence.

Source: hmct-spec 2.2 (``kl``); the method is that of S. Migacz, "8-bit inference with TensorRT",
GTC 2017. The vendor's kernel is closed: bin counts are the vendor's, the collapse is the published
one with levels of equal width.
"""

from __future__ import annotations

import numpy as np

from jptq.calibration.method import Method
from jptq.calibration.statistics import Statistics

LEVELS = 128
VALUES_PER_BIN = 8
"""With fewer values than this per starting bin a histogram is mostly gaps, which the divergence
takes for structure: a gate of 256 values is cut to a fifth of its range. The largest value is
kept then. The vendor's rule for such tensors is not published."""

_CHUNK = 2048


def threshold(statistics: Statistics, method: Method) -> float:
    """Return the threshold whose 128 levels describe the clipped distribution best.

    Exact zeros are left out: every symmetric grid holds them. Too few values: the largest.
    """
    if not np.isfinite(statistics.largest) or statistics.largest == 0:
        return statistics.largest
    histogram = statistics.histograms[method.num_bin]
    bins = method.num_bin
    for _ in range(histogram.growth):
        bins = bins * 2 if bins * 2 <= method.max_num_bin else bins
    merged = histogram.counts.copy()
    merged[0] -= histogram.zeros
    counts = merged.reshape(bins, -1).sum(axis=1)
    if counts.sum() < VALUES_PER_BIN * method.num_bin:
        return statistics.largest
    kept = LEVELS + int(np.argmin(divergences(counts)))
    width = histogram.width * (histogram.counts.size // bins)
    return min(kept * width, statistics.largest)


def divergences(counts: np.ndarray) -> np.ndarray:
    """Return the divergence of every cut of a histogram.

    For i kept bins, P is the histogram cut there with all that lies above added to its last bin;
    Q spreads the counts of each of 128 equal levels over the level's bins that P fills. Where the
    last level holds nothing but that tail, Q counts it as one value: a cut inside a gap has a
    price, not an infinite one.

    Args:
      counts: ``int64[bins]``, bins >= 128, not all zero.

    Returns:
      ``float64[bins - 127]`` for i = 128 ... bins, in nats; inf where nothing is kept.
    """
    h = counts.astype(np.float64)
    below = _running(h)  # everything a level needs is a difference of running sums
    filled = _running(h > 0)
    entropy = _running(_xlogx(h))
    total = below[-1]
    out = []
    for start in range(LEVELS, h.size + 1, _CHUNK):
        kept = np.arange(start, min(start + _CHUNK, h.size + 1))
        edges = kept[:, None] * np.arange(LEVELS + 1) // LEVELS
        mass = np.diff(below[edges], axis=1)
        width = np.diff(filled[edges], axis=1)
        tail = total - below[kept]
        last = h[kept - 1]
        width[:, -1] += (last == 0) & (tail > 0)
        clipped = mass.copy()
        clipped[:, -1] += tail
        mass[:, -1] = np.where((mass[:, -1] == 0) & (tail > 0), 1.0, mass[:, -1])
        own = entropy[kept] - _xlogx(last) + _xlogx(last + tail)
        with np.errstate(divide="ignore", invalid="ignore"):
            cross = np.where(clipped > 0, clipped * np.log(mass / width), 0.0).sum(axis=1)
            found = (own - cross) / total + np.log(below[kept] / total)
        out.append(np.where(below[kept] > 0, found, np.inf))
    return np.concatenate(out)


def _running(values: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def _xlogx(values: np.ndarray) -> np.ndarray:
    return values * np.log(np.where(values > 0, values, 1.0))
