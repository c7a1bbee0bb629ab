from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jptq.errors import DataError
from jptq.numerics.affine import Affine, affine, clean_thresholds
from jptq.numerics.qtypes import FLOAT32, INT8, INT16, QType

LARGEST = float(np.finfo(np.float32).max)
TINY = float(np.finfo(np.float32).tiny)

ends = st.floats(-LARGEST, LARGEST, width=32)


def _values(grid: Affine) -> np.ndarray:
    """Least and largest value of a grid of one channel, in float64."""
    steps = np.array([grid.lower, grid.upper], np.float64)
    return (steps - np.float64(grid.offset[0])) * np.float64(grid.scale[0])


@pytest.mark.parametrize("kind", [INT8, INT16])
def test_the_largest_integer_stands_for_the_threshold(kind: QType) -> None:
    grid = affine(np.array([0.5, 3.0], np.float32), kind)
    np.testing.assert_allclose(grid.scale * kind.upper, [0.5, 3.0], rtol=1e-7)
    np.testing.assert_array_equal(grid.offset, 0)
    assert (grid.lower, grid.upper) == (kind.lower, kind.upper)
    assert grid.scale.dtype == grid.offset.dtype == np.float32


def test_a_type_without_a_grid_has_scale_one() -> None:
    grid = affine(np.array([0.5, 3.0], np.float32), FLOAT32)
    np.testing.assert_array_equal(grid.scale, [1, 1])
    assert affine(np.array([-1.0, 2.0], np.float32), FLOAT32, asymmetric=True).scale.shape == (1,)


@given(ends, ends)
def test_an_asymmetric_grid_contains_zero_exactly(one: float, other: float) -> None:
    low, high = sorted((one, other))
    grid = affine(np.array([low, high], np.float32), INT8, asymmetric=True)
    assert float(grid.offset[0]).is_integer()
    assert grid.lower <= grid.offset[0] <= grid.upper
    assert grid.scale[0] > 0


@given(ends, ends)
def test_an_asymmetric_grid_covers_its_range(one: float, other: float) -> None:
    low, high = sorted((one, other))
    grid = affine(np.array([low, high], np.float32), INT8, asymmetric=True)
    least, largest = _values(grid)
    # The integer for zero is rounded: either end may be missed by half a step.
    slack = 0.5001 * float(grid.scale[0])
    assert least <= min(low, 0.0) + slack
    assert largest >= max(high, 0.0) - slack


def test_an_asymmetric_grid_has_a_step_of_the_range_over_255() -> None:
    grid = affine(np.array([-1.0, 3.0], np.float32), INT8, asymmetric=True)
    assert grid.scale[0] == pytest.approx(4 / 255)
    assert grid.offset[0] == 127 - round(3 * 255 / 4)


def test_int16_stays_symmetric_over_a_range() -> None:
    grid = affine(np.array([-4.0, 3.0], np.float32), INT16, asymmetric=True)
    assert grid.scale[0] == pytest.approx(4 / 32767)
    np.testing.assert_array_equal(grid.offset, [0])


def test_a_range_of_nothing_quantizes_zero_to_zero() -> None:
    grid = affine(np.zeros(2, np.float32), INT8, asymmetric=True)
    assert grid.scale[0] > 0
    assert grid.lower <= grid.offset[0] <= grid.upper


def test_a_range_wider_than_float32_keeps_a_finite_scale() -> None:
    grid = affine(np.array([-LARGEST, LARGEST], np.float32), INT8, asymmetric=True)
    assert np.isfinite(grid.scale).all()


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=8))
def test_cleaned_thresholds_give_finite_normal_scales(values: list[float]) -> None:
    out = clean_thresholds(np.array(values, np.float32), where="x")
    for kind in (INT8, INT16):
        scale = affine(out, kind).scale
        assert np.isfinite(scale).all()
        assert (scale >= TINY).all()


def test_cleaning_keeps_usable_thresholds() -> None:
    given = np.array([1.5, 2.0, 1e-30], np.float32)
    np.testing.assert_array_equal(clean_thresholds(given, where="x"), given)


def test_cleaning_takes_the_size_of_negative_and_infinite_thresholds() -> None:
    out = clean_thresholds(np.array([-2.0, np.inf, 0.0, TINY], np.float32), where="x")
    np.testing.assert_array_equal(out, np.array([2.0, LARGEST, 1.0, 1.0], np.float32))


def test_a_threshold_that_is_nan_is_refused_with_its_tensor() -> None:
    with pytest.raises(DataError, match="NaN") as caught:
        clean_thresholds(np.array([1.0, np.nan], np.float32), where="Conv_3")
    assert caught.value.where == "Conv_3"
