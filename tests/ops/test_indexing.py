"""Selecting and writing by position, against NumPy's own indexing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jptq.errors import ModelError
from jptq.ops import indexing
from tests.ops.agreement import check_against_onnxruntime

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
INT64 = np.iinfo(np.int64)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("indices", [1, [-1, 0], [[0, 1], [-2, -1]]])
def test_gather_counts_negative_indices_from_the_end(axis: int, indices) -> None:
    got = indexing.gather(jnp.asarray(X), jnp.asarray(indices), axis=axis)
    np.testing.assert_array_equal(got, np.take(X, indices, axis))


def test_gather_clamps_what_is_out_of_range() -> None:
    assert indexing.gather(jnp.arange(3), jnp.asarray([5, -9])).tolist() == [2, 0]


def test_gather_elements_may_choose_from_a_part_of_the_other_axes() -> None:
    indices = np.asarray([[[3, -1], [0, 1]]])
    got = indexing.gather_elements(jnp.asarray(X), jnp.asarray(indices), axis=2)
    np.testing.assert_array_equal(got, [[[3, 3], [4, 5]]])


@pytest.mark.parametrize("batch_dims", [0, 1])
def test_gather_nd_reads_coordinates_in_the_last_axis(batch_dims: int) -> None:
    indices = np.asarray([[0, -1], [1, 1]])
    got = indexing.gather_nd(jnp.asarray(X), jnp.asarray(indices), batch_dims=batch_dims)
    expected = [X[0, -1], X[1, 1]] if batch_dims == 0 else [X[0, 0, -1], X[1, 1, 1]]
    np.testing.assert_array_equal(got, expected)


bounds = st.one_of(st.integers(-7, 7), st.sampled_from([INT64.min, INT64.max]))


@settings(deadline=None, max_examples=40, derandomize=True)  # each new slice compiles
@given(start=bounds, end=bounds, step=st.integers(-3, 3).filter(bool), axis=st.integers(-3, 2))
def test_a_slice_clamps_its_bounds_as_python_does(
    start: int, end: int, step: int, axis: int
) -> None:
    got = indexing.slice_(
        jnp.asarray(X), *(np.asarray([number]) for number in (start, end, axis, step))
    )
    if step < 0:  # a start before the axis is its first position
        start = max(start, -X.shape[axis])
    selection = [slice(None)] * 3
    selection[axis] = slice(start, end, step)
    np.testing.assert_array_equal(got, X[tuple(selection)])


@pytest.mark.parametrize("start", [-10, -5, -1, 10])
@pytest.mark.parametrize("end", [-100, 0, 2])
@pytest.mark.parametrize("step", [-1, -2])
def test_a_slice_backwards_clamps_its_bounds_as_onnxruntime_does(
    start: int, end: int, step: int
) -> None:
    x = np.arange(5, dtype=np.float32)
    inputs = [x, *(np.asarray([number]) for number in (start, end, 0, step))]
    check_against_onnxruntime("Slice", inputs, opset=13)


def test_a_slice_without_axes_cuts_the_first_ones() -> None:
    expected = X[1:, 0:2]
    np.testing.assert_array_equal(
        indexing.slice_1(jnp.asarray(X), starts=(1, 0), ends=(9, -1)), expected
    )
    got = indexing.slice_(jnp.asarray(X), np.asarray([1, 0]), np.asarray([9, -1]))
    np.testing.assert_array_equal(got, expected)


def test_a_slice_lowers_to_a_slice_and_not_to_a_gather() -> None:
    arguments = [np.asarray([n]) for n in (0, 3, 2, 2)]
    text = jax.jit(lambda x: indexing.slice_(x, *arguments)).lower(X).as_text()
    assert "stablehlo.slice" in text
    assert "gather" not in text


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        ("none", [9, 2, 7]),
        ("add", [10, 2, 10]),
        ("mul", [9, 2, 21]),
        ("max", [9, 2, 7]),
        ("min", [1, 2, 3]),
    ],
)
def test_updates_meet_what_stands_there(reduction: str, expected: list[int]) -> None:
    data, indices, updates = (jnp.asarray(x) for x in ([1, 2, 3], [0, -1], [9, 7]))
    along = indexing.scatter_elements(data, indices, updates, reduction=reduction)
    by_coordinates = indexing.scatter_nd(data, indices[:, None], updates, reduction=reduction)
    assert along.tolist() == by_coordinates.tolist() == expected


def test_an_unknown_reduction_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ModelError, match="'sum'") as refusal:
        indexing.scatter_nd(jnp.ones(3), jnp.asarray([[0]]), jnp.ones(1), reduction="sum")
    assert "add" in str(refusal.value)


def test_a_cache_is_written_around_its_end_if_circular() -> None:
    cache, update = jnp.zeros((2, 4, 1)), jnp.asarray([[[1.0], [2.0]], [[3.0], [4.0]]])
    got = indexing.tensor_scatter(cache, update, jnp.asarray([0, 3]), mode="circular")
    np.testing.assert_array_equal(got[..., 0], [[1, 2, 0, 0], [4, 0, 0, 3]])


def test_compress_keeps_the_marked_positions() -> None:
    marks = np.asarray([False, True])
    np.testing.assert_array_equal(indexing.compress(jnp.asarray(X), marks, axis=1), X[:, 1:2])
    assert indexing.compress(jnp.asarray(X), marks).tolist() == [1]


def test_only_the_valid_steps_of_a_sequence_are_reversed() -> None:
    x = jnp.asarray([[1, 2, 3], [4, 5, 6]])
    got = indexing.reverse_sequence(x, jnp.asarray([2, 3]), batch_axis=0, time_axis=1)
    assert got.tolist() == [[2, 1, 3], [6, 5, 4]]


def test_gradients_flow_to_what_was_read_and_written() -> None:
    def total(data: jax.Array, updates: jax.Array) -> jax.Array:
        written = indexing.scatter_nd(data, jnp.asarray([[1]]), updates)
        return indexing.gather(written, jnp.asarray([0, 1, 1])).sum()

    slopes = jax.grad(total, argnums=(0, 1))(jnp.ones(3), jnp.ones(1))
    assert [slope.tolist() for slope in slopes] == [[1, 0, 0], [2]]
