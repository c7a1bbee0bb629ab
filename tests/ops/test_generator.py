"""Tensors from attributes, shapes and host values."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jptq.errors import ModelError
from jptq.ops import generator


@pytest.mark.parametrize(
    ("attribute", "value", "dtype"),
    [
        ("value", np.asarray([1, 2], np.uint8), np.uint8),
        ("value_float", 1.5, np.float32),
        ("value_floats", (1.5, 2.5), np.float32),
        ("value_int", 0, np.int64),
        ("value_ints", (), np.int64),
    ],
)
def test_a_constant_has_the_dtype_of_its_attribute(attribute: str, value, dtype: type) -> None:
    got = generator.constant(**{attribute: value})
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, value)


def test_a_constant_without_value_is_refused() -> None:
    with pytest.raises(ModelError, match="no value"):
        generator.constant()


def test_shapes_are_host_int64_even_while_tracing() -> None:
    seen = []

    @jax.jit
    def traced(x: jax.Array) -> jax.Array:
        seen.extend([generator.shape(x), generator.shape(x, start=-2, end=-1), generator.size(x)])
        return x

    traced(jnp.ones((2, 3, 4)))
    assert [value.tolist() for value in seen] == [[2, 3, 4], [3], 24]
    assert all(type(value) is np.ndarray and value.dtype == np.int64 for value in seen)


@pytest.mark.parametrize(
    ("bounds", "dtype"),
    [
        ((0, 5, 1), np.int64),
        ((10, 4, -2), np.int64),
        ((3, 3, 1), np.int32),
        ((5, 1, 1), np.int64),
        ((1.0, 2.0, 0.25), np.float32),
    ],
)
def test_a_range_stops_before_its_limit(bounds: tuple[float, ...], dtype: type) -> None:
    got = generator.arange(*(np.asarray(bound, dtype) for bound in bounds))
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, np.arange(*bounds))


def test_a_range_of_halves_is_counted_in_single_precision() -> None:
    start, limit, delta = (np.asarray(x, ml_dtypes.bfloat16) for x in (0, 300, 1))
    got = generator.arange(start, limit, delta)
    np.testing.assert_array_equal(got, np.arange(300).astype(ml_dtypes.bfloat16))


def test_a_shape_is_filled_with_a_value_of_its_own_dtype() -> None:
    got = generator.constant_of_shape(np.asarray([2, 0, 3]), value=np.asarray([7], np.int32))
    assert got.shape == (2, 0, 3)
    assert got.dtype == np.int32
    scalar = generator.constant_of_shape(np.asarray([], np.int64))
    assert scalar.shape == ()
    assert scalar == np.float32(0)


def test_ones_mark_positions_and_others_mark_nothing() -> None:
    got = generator.one_hot(
        jnp.asarray([0, -1, 7]), np.asarray([3]), jnp.asarray([2.0, 5.0]), axis=0
    )
    np.testing.assert_array_equal(got, [[5, 2, 2], [2, 2, 2], [2, 5, 2]])


def test_positions_of_nonzeros_are_a_row_per_axis() -> None:
    assert generator.non_zero(np.asarray([[0, 1], [2, 3]])).tolist() == [[0, 1, 1], [1, 0, 1]]


@pytest.mark.parametrize(("value", "count"), [(3.0, 1), (0.0, 0)])
def test_the_places_of_a_scalar_have_no_coordinates(value: float, count: int) -> None:
    got = generator.non_zero(np.asarray(value, np.float32))
    assert (got.shape, got.dtype) == ((0, count), np.int64)  # so says NonZero-13
