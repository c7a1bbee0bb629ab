"""Activations: extremes, gradients, and the row coercion of old opsets."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from jptq.ops import activation
from tests.ops.agreement import check_against_onnxruntime, together

POINTWISE = [
    activation.relu,
    activation.leaky_relu,
    activation.elu,
    activation.selu,
    activation.celu,
    activation.thresholded_relu,
    activation.shrink,
    activation.sigmoid,
    activation.hard_sigmoid,
    activation.hard_swish,
    activation.swish,
    activation.softplus,
    activation.softsign,
    activation.mish,
    activation.gelu,
]
EXTREMES = np.asarray([-1e4, -200.0, -88.8, -1.0, 0.0, 1.0, 88.8, 200.0, 1e4], np.float32)


def test_values_and_gradients_are_finite_at_extremes() -> None:
    both = {f.__name__: jax.vmap(jax.value_and_grad(f)) for f in POINTWISE}
    for name, (values, slopes) in together(both, EXTREMES).items():
        assert np.isfinite(values).all(), name
        assert np.isfinite(slopes).all(), name


def test_gradients_agree_with_finite_differences() -> None:
    x, step = np.asarray([-2.6, -1.3, -0.2, 0.3, 0.9, 1.7, 2.8]), 1e-6  # away from all kinks

    def all_of(function: Callable) -> Callable:
        return lambda x: (jax.vmap(jax.grad(function))(x), function(x + step), function(x - step))

    with jax.enable_x64(True):
        found = together({f.__name__: all_of(f) for f in POINTWISE}, x)
    for name, (slopes, ahead, behind) in found.items():
        differences = (ahead - behind) / (2 * step)
        np.testing.assert_allclose(slopes, differences, rtol=1e-5, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("function", POINTWISE, ids=lambda f: f.__name__)
def test_half_precision_stays_half_precision(function: Callable) -> None:
    x = jax.ShapeDtypeStruct(EXTREMES.shape, jnp.float16)
    assert jax.eval_shape(function, x).dtype == jnp.float16


def test_the_gradient_of_relu_at_zero_is_zero() -> None:
    assert float(jax.grad(activation.relu)(0.0)) == 0


@pytest.mark.parametrize("limits", [(None, None), (-1.0, None), (None, 2.0), (-1.0, 2.0)])
def test_absent_limits_do_not_clip(limits: tuple[float | None, float | None]) -> None:
    low, high = (None if limit is None else jnp.float32(limit) for limit in limits)
    x = np.linspace(-3, 3, 13, dtype=np.float32)
    expected = x if limits == (None, None) else np.clip(x, *limits)
    np.testing.assert_array_equal(activation.clip(jnp.asarray(x), low, high), expected)


def test_the_upper_limit_wins_where_limits_cross() -> None:
    got = activation.clip(jnp.arange(3.0), jnp.float32(5), jnp.float32(1))
    assert got.tolist() == [1, 1, 1]


def test_the_limits_of_opset_6_are_attributes_and_fit_half_precision() -> None:
    x = jnp.asarray([-9.0, 0.5, 9.0], jnp.float16)
    assert activation.clip_6(x, min=0.0).tolist() == [0, 0.5, 9]
    assert activation.clip_6(x, max=6.0).dtype == jnp.float16


def test_the_slope_of_opset_6_lies_along_the_channels() -> None:
    x = jnp.full((1, 2, 2, 2), -1.0)
    got = activation.prelu_6(x, jnp.asarray([0.5, 0.25]))
    np.testing.assert_array_equal(got[0, :, 0, 0], [-0.5, -0.25])


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_softmax_of_opset_11_normalizes_all_axes_from_the_given_one(axis: int) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    axes = tuple(range(axis % 3, 3))
    named = (activation.softmax_1, activation.log_softmax_1, activation.hardmax_1)
    soft, logarithm, peaks = together(
        {f.__name__: functools.partial(f, axis=axis) for f in named}, x
    ).values()
    np.testing.assert_allclose(soft, scipy.special.softmax(x, axes), rtol=1e-5)
    expected = scipy.special.log_softmax(x, axes)
    np.testing.assert_allclose(logarithm, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(peaks.sum(axes), np.ones(x.shape[: axis % 3]))
    np.testing.assert_array_equal((peaks * x).sum(axes), x.max(axes))


def test_a_saturated_softmax_has_finite_logarithm_and_gradient() -> None:
    x = jnp.asarray([0.0, 1000.0, -1000.0])
    assert activation.log_softmax(x).tolist() == [-1000, 0, -2000]
    slopes = jax.jacobian(activation.softmax)(x)
    assert np.isfinite(slopes).all()


def test_hardmax_marks_the_first_of_equal_maxima() -> None:
    got = activation.hardmax(jnp.asarray([[1.0, 3.0, 3.0]]), axis=1)
    assert got.tolist() == [[0, 1, 0]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.float32])
@pytest.mark.parametrize("bias", [1.0, 1.5])
@pytest.mark.parametrize("lambd", [1.5, -1.5])
def test_shrink_of_integers_agrees_with_onnxruntime(dtype: type, bias: float, lambd: float) -> None:
    x = np.array([0, 1, 2, 3, 100], dtype)
    check_against_onnxruntime("Shrink", [x], {"bias": bias, "lambd": lambd}, opset=9)
