from __future__ import annotations

import math

import numpy as np
import pytest

from jptq.calibration.kl import LEVELS, VALUES_PER_BIN, divergences, threshold
from jptq.calibration.method import Method
from jptq.calibration.statistics import Histogram, Statistics


def naive(counts: np.ndarray, kept: int) -> float:
    """The divergence of one cut, bin by bin."""
    p = counts[:kept].astype(float)
    p[-1] += counts[kept:].sum()
    q = np.zeros(kept)
    for level in range(LEVELS):
        start, stop = kept * level // LEVELS, kept * (level + 1) // LEVELS
        filled = [i for i in range(start, stop) if p[i] > 0]
        for i in filled:
            q[i] = max(counts[start:stop].sum(), 1) / len(filled)
    p, q = p / p.sum(), q / counts[:kept].sum()
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bins", [128, 129, 300])
def test_divergences_are_those_of_the_definition(bins: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(np.exp(-np.arange(bins) / 40) * 30)
    found = divergences(counts)
    expected = [naive(counts, kept) for kept in range(LEVELS, bins + 1)]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_as_many_bins_as_levels_lose_nothing() -> None:
    assert divergences(np.arange(1, 129))[0] == pytest.approx(0, abs=1e-12)


def test_a_lone_far_value_is_cut_off() -> None:
    counts = np.random.default_rng(0).poisson(1e4 * np.exp(-((np.arange(1024) / 60) ** 2)))
    body = int(np.flatnonzero(counts)[-1])
    counts[-1] = 1
    kept = LEVELS + int(np.argmin(divergences(counts)))
    assert body / 3 < kept < body + 50


@pytest.mark.parametrize(("values", "is_cut"), [(VALUES_PER_BIN * 256, True), (2000, False)])
def test_few_values_keep_their_largest(values: int, is_cut: bool) -> None:
    rng = np.random.default_rng(0)
    x = np.abs(np.append(rng.standard_normal(values - 1), 12.0))
    counts, _ = np.histogram(x, bins=16384, range=(0, 12))
    histogram = Histogram(counts=counts, width=12 / 16384, zeros=0, growth=0)
    known = Statistics(low=0.0, high=12.0, first=12.0, histograms={256: histogram})
    assert (threshold(known, Method(name="kl", num_bin=256)) < 12) is is_cut


def test_exact_zeros_do_not_move_the_threshold() -> None:
    x = np.abs(np.random.default_rng(0).standard_normal(20000))
    counts, edges = np.histogram(x, bins=16384, range=(0, x.max()))
    found = []
    for zeros in (0, 10**6):
        padded = counts + np.eye(1, counts.size, dtype=np.int64)[0] * zeros
        histogram = Histogram(counts=padded, width=edges[1], zeros=zeros, growth=0)
        known = Statistics(low=0.0, high=x.max(), first=x.max(), histograms={1024: histogram})
        found.append(threshold(known, Method(name="kl")))
    assert found[0] == found[1]
