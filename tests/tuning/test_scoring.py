"""What samples lose by thresholds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jptq.tuning.scoring import lost_share


def images(seed: int = 0) -> np.ndarray:
    """Three samples of an output of two channels, one in pixels and one of probabilities."""
    rng = np.random.default_rng(seed)
    return np.stack([200 * rng.random((3, 50)), rng.random((3, 50))], axis=1)


def variance(values: np.ndarray) -> np.ndarray:
    return values.var((0, 2))


def test_nothing_is_lost_by_equal_values() -> None:
    x = images()
    np.testing.assert_array_equal(lost_share(x, x.copy(), variance(x)), 0.0)


def test_a_lost_channel_counts_like_any_other_however_small_it_is() -> None:
    x = images()
    y = x.copy()
    y[:, 1] = x[:, 1].mean()
    cosine = (x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum())
    assert cosine > 0.9999
    np.testing.assert_allclose(lost_share(x, y, variance(x)), 0.25, atol=0.05)


@given(st.floats(1e-6, 1e6))
def test_the_unit_of_a_channel_does_not_matter(scale: float) -> None:
    x, y = images(0), images(1)
    unit = np.array([scale, 1.0])[:, None]
    # Sums of squares are rounded once more: a few units in the last place.
    np.testing.assert_allclose(
        lost_share(x * unit, y * unit, variance(x * unit)), lost_share(x, y, variance(x)), rtol=1e-9
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_sample_without_a_number_loses_all_of_the_output(bad: float) -> None:
    x = images()
    y = x.copy()
    y[1, 0, 7] = bad
    assert lost_share(x, y, variance(x)).tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_the_float_network_leaves_open_is_not_lost(bad: float) -> None:
    x = images()
    x[1, 0, 7] = bad
    y = x.copy()
    y[1, 0, 7] = 0.0
    assert lost_share(x, y, variance(images())).tolist() == [0.0, 0.0, 0.0]


def test_errors_beyond_any_number_stay_a_share() -> None:
    x = images()
    found = lost_share(x, x + 3e38, variance(x))
    assert found.max() <= 1.0
    np.testing.assert_allclose(found, 1.0)
