"""Reductions: both schemas, empty sets, gradients, order of ties."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from jptq.ops import find, reduce
from tests.ops.agreement import onnxruntime_outputs, together

X = np.random.default_rng(1).normal(size=(2, 3, 4)).astype(np.float32)
EXPECTED: dict[str, Callable[..., np.ndarray]] = {
    "ReduceSum": np.sum,
    "ReduceMean": np.mean,
    "ReduceMax": np.max,
    "ReduceMin": np.min,
    "ReduceProd": np.prod,
    "ReduceL1": lambda x, **k: np.sum(np.abs(x), **k),
    "ReduceL2": lambda x, **k: np.sqrt(np.sum(x * x, **k)),
    "ReduceSumSquare": lambda x, **k: np.sum(x * x, **k),
    "ReduceLogSum": lambda x, **k: np.log(np.sum(x, **k)),
    "ReduceLogSumExp": scipy.special.logsumexp,
}
every_reduction = pytest.mark.parametrize("name", EXPECTED)


def _function(name: str, version: int) -> Callable[..., jax.Array]:
    entry = find("", name, version)
    assert entry is not None
    return entry.function


@every_reduction
def test_axes_by_attribute_and_by_input_agree_with_numpy(name: str) -> None:
    def both(axes: tuple[int, ...] | None, keepdims: int) -> Callable[..., tuple[jax.Array, ...]]:
        given = None if axes is None else np.asarray(axes)
        return lambda x: (
            _function(name, 11)(x, axes=axes, keepdims=keepdims),
            _function(name, 18)(x, given, keepdims=keepdims),
        )

    x = np.abs(X)
    ways = list(itertools.product([None, (1,), (-1, 0)], [0, 1]))
    for (axes, keepdims), (old, new) in together({way: both(*way) for way in ways}, x).items():
        expected = EXPECTED[name](x, axis=axes, keepdims=bool(keepdims))
        np.testing.assert_allclose(old, expected, rtol=1e-5, err_msg=f"{axes} {keepdims}")
        np.testing.assert_array_equal(old, new)


@every_reduction
def test_empty_axes_reduce_all_or_nothing_as_told(name: str) -> None:
    function, none = _function(name, 18), np.asarray([], np.int64)
    assert jax.eval_shape(lambda x: function(x, none), X).shape == (1, 1, 1)
    kept = jax.eval_shape(lambda x: function(x, none, noop_with_empty_axes=1), X)
    assert kept.shape == X.shape


@every_reduction
def test_an_empty_attribute_reduces_all_as_onnxruntime_does(name: str) -> None:
    (expected,) = onnxruntime_outputs(name, [np.abs(X)], {"axes": []}, opset=11)
    got = _function(name, 11)(jnp.asarray(np.abs(X)), axes=())
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean"])
def test_large_halves_do_not_overflow_on_the_way(name: str) -> None:
    x = np.abs(X * 2000).astype(np.float16)
    (expected,) = onnxruntime_outputs(name, [x], {"axes": [0, 1, 2]}, opset=17)
    got = _function(name, 17)(jnp.asarray(x), axes=(0, 1, 2))
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(got, expected, rtol=1e-3)


@every_reduction
def test_integers_and_halves_keep_their_dtype(name: str) -> None:
    for dtype in (np.int32, np.float16):
        x = jax.ShapeDtypeStruct((2, 2), dtype)
        found = jax.eval_shape(functools.partial(_function(name, 13), keepdims=0), x)
        assert found.dtype == dtype


def test_gradients_are_finite_where_the_data_are_zero_or_large() -> None:
    def slope(name: str) -> Callable[..., jax.Array]:
        return jax.grad(lambda x: reduce.reduce_sum(_function(name, 13)(x), None, False))

    for x in (np.zeros((2, 2), np.float32), np.full((2, 2), 1e4, np.float32)):
        # The logarithm of zero has no slope.
        names = [name for name in EXPECTED if name != "ReduceLogSum" or x.any()]
        for name, found in together({name: slope(name) for name in names}, x).items():
            assert np.isfinite(found).all(), name


def test_the_mean_of_integers_is_truncated() -> None:
    got = reduce.reduce_mean(jnp.asarray([[-1, -2], [3, 4]]), (1,), False)
    assert got.tolist() == [-1, 3]


def test_only_the_maximum_is_looked_through() -> None:
    for name in EXPECTED:
        entry = find("", name, 18)
        assert entry is not None
        assert entry.traits.look_through == (name == "ReduceMax")


def test_the_last_of_equal_extremes_is_found_on_request() -> None:
    x = jnp.asarray([[1.0, 3.0, 3.0, 1.0]])
    found = [
        function(x, axis=-1, keepdims=0, select_last_index=last).item()
        for function in (reduce.arg_max, reduce.arg_min)
        for last in (0, 1)
    ]
    assert found == [1, 2, 0, 3]


def test_indices_are_int64_where_the_session_has_it() -> None:
    assert reduce.arg_max(jnp.ones(3)).dtype == np.int32
    with jax.enable_x64(True):
        assert reduce.arg_max(jnp.ones(3)).dtype == np.int64
        assert reduce.top_k(jnp.ones(3), np.asarray([2]))[1].dtype == np.int64


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
def test_exclusive_and_reverse_sums_and_products(exclusive: int, reverse: int) -> None:
    x = np.asarray([2.0, 3.0, 5.0, 7.0], np.float32)
    order = slice(None, None, -1) if reverse else slice(None)
    for function, cumulate, neutral in (
        (reduce.cum_sum, np.cumsum, 0),
        (reduce.cum_prod, np.cumprod, 1),
    ):
        terms = x[order]
        shifted = np.concatenate([[neutral], terms[:-1]]) if exclusive else terms
        got = function(jnp.asarray(x), np.asarray(0), exclusive=exclusive, reverse=reverse)
        np.testing.assert_array_equal(got, cumulate(shifted)[order])


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_ties_of_top_k_come_in_order_of_position(largest: int, dtype: type) -> None:
    x = jnp.asarray([[5, 0, 9], [5, 1, 9], [7, 1, 8]], dtype)
    values, indices = reduce.top_k(x, np.asarray([2]), axis=0, largest=largest)
    if largest:
        assert values.tolist() == [[7, 1, 9], [5, 1, 9]]
        assert indices.tolist() == [[2, 1, 0], [0, 2, 1]]
    else:
        assert values.tolist() == [[5, 0, 8], [5, 1, 9]]
        assert indices.tolist() == [[0, 0, 2], [1, 1, 0]]


@pytest.mark.parametrize("largest", [0, 1])
def test_zeros_of_either_sign_are_a_tie_of_top_k(largest: int) -> None:
    x = np.float32([[-0.0, 0.0, -0.0, 0.0, -1.0, 1.0]])
    got = jax.jit(lambda x: reduce.top_k(x, np.asarray([6]), largest=largest))(x)
    want = onnxruntime_outputs(
        "TopK", [x, np.asarray([6])], {"largest": largest}, opset=11, n_outputs=2
    )
    np.testing.assert_array_equal(got[1], want[1])
    np.testing.assert_array_equal(np.signbit(got[0]), np.signbit(want[0]))


@pytest.mark.parametrize("largest", [0, 1])
def test_top_k_passes_gradients_to_the_chosen_elements(largest: int) -> None:
    def total(x: jax.Array) -> jax.Array:
        return reduce.top_k(x, np.asarray([2]), largest=largest)[0].sum()

    slope = jax.grad(total)(jnp.asarray([3.0, 1.0, 2.0]))
    assert slope.tolist() == ([1, 0, 1] if largest else [0, 1, 1])


def test_top_k_of_opset_9_takes_an_attribute() -> None:
    values, _ = reduce.top_k_1(jnp.asarray([3.0, 1.0, 2.0]), k=1)
    assert values.tolist() == [3]
