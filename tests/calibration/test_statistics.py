from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jptq.calibration import statistics
from jptq.calibration.maximum import quantile
from jptq.calibration.statistics import FINE_BINS, Histogram, Statistics


def gathered(x: np.ndarray, num_bin: int = 1024, max_num_bin: int = 16384) -> Statistics:
    """Return the statistics of samples ``[S, n]`` given in one batch."""
    known = statistics.update(statistics.init(), statistics.measure(x))
    empty = statistics.empty_histogram(known, num_bin, max_num_bin)
    histogram = statistics.update_histogram(empty, statistics.count(x, empty, len(x)))
    return Statistics(
        low=known.low, high=known.high, first=known.first, histograms={num_bin: histogram}
    )


def exact_quantile(x: np.ndarray, share: float) -> float:
    return float(np.sort(np.abs(x), axis=None)[math.ceil(share * x.size) - 1])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.5, 0.9, 0.999, 0.99995, 1.0]), st.floats(0.1, 9))
def test_quantiles_are_exact_up_to_a_bin(seed: int, share: float, tail: float) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((4, 500)) ** 3 * tail).astype(np.float32)
    known = gathered(x)
    found, exact = quantile(known.histograms[1024], share), exact_quantile(x, share)
    resolution = known.largest / (FINE_BINS / 2)
    assert exact * (1 - 1e-5) <= found <= exact + resolution * (1 + 1e-3)


def test_the_histogram_covers_all_samples_and_starts_with_the_first() -> None:
    x = np.array([[1.0, -0.5, 0.0], [-3.0, 0.25, 0.0]], np.float32)
    histogram = gathered(x).histograms[1024]
    assert histogram.growth == 2  # from 1 to 4
    assert histogram.width == 4 / histogram.counts.size
    assert histogram.counts.sum() == 6
    assert histogram.zeros == 2
    per_unit = histogram.counts.size // 4
    assert histogram.counts[[0, per_unit // 4, per_unit // 2, per_unit, 3 * per_unit]].tolist() == [
        2,
        1,
        1,
        1,
        1,
    ]


def test_samples_that_fill_a_batch_up_are_not_counted() -> None:
    x = np.ones((3, 5), np.float32)
    empty = statistics.empty_histogram(gathered(x), 1024, 16384)
    assert statistics.count(x, empty, 2).counts.sum() == 10


@pytest.mark.parametrize(("num_bin", "max_num_bin"), [(129, 258), (1000, 5000), (20000, 20000)])
def test_bins_are_a_power_of_two_times_the_first_bins(num_bin: int, max_num_bin: int) -> None:
    empty = statistics.empty_histogram(gathered(np.ones((1, 2), np.float32)), num_bin, max_num_bin)
    factor = empty.counts.size / num_bin
    assert factor == 2 ** round(math.log2(factor))
    assert empty.counts.size >= max(max_num_bin, FINE_BINS)


@pytest.mark.parametrize("value", [0.0, 1e-40, np.nan, np.inf])
def test_degenerate_tensors_have_a_histogram_too(value: float) -> None:
    known = statistics.update(
        statistics.init(), statistics.measure(np.full((2, 3), value, np.float32))
    )
    empty = statistics.empty_histogram(known, 1024, 16384)
    assert empty.width > 0
    assert math.isfinite(empty.width)


def test_a_tensor_that_is_zero_in_the_first_sample_is_laid_out_by_its_largest_value() -> None:
    histogram = gathered(np.array([[0.0], [5.0]], np.float32)).histograms[1024]
    assert (histogram.growth, histogram.width * histogram.counts.size) == (0, 5.0)


def test_channels_are_kept_apart() -> None:
    x = np.array([[[[1, -2]], [[0, 3]]], [[[-4, 0]], [[1, 1]]]], np.float32).reshape(2, 1, 2, 2)
    found = statistics.update(statistics.init(), statistics.measure(x, 1))
    np.testing.assert_array_equal(found.channels, [4, 3])
    assert isinstance(gathered(x).histograms[1024], Histogram)


@pytest.mark.parametrize("shape", [(2, 0, 3), (2, 3, 0)])
def test_a_tensor_without_elements_counts_as_zero(shape: tuple[int, ...]) -> None:
    x = np.zeros(shape, np.float32)
    known = gathered(x)
    assert (known.low, known.high, known.largest) == (0.0, 0.0, 0.0)
    assert known.histograms[1024].counts.sum() == 0
    channels = statistics.measure(x, 0).channels
    assert channels is not None
    np.testing.assert_array_equal(channels, np.zeros(shape[1]))
