"""Arithmetic: what the node cases of ONNX do not ask."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jptq.ops import elementwise


@pytest.mark.parametrize(("a", "b"), [(7, 2), (-7, 2), (7, -2), (-7, -2)])
def test_integer_division_truncates_towards_zero(a: int, b: int) -> None:
    quotient = elementwise.div(jnp.asarray([a]), jnp.asarray(b))
    assert quotient.tolist() == [int(a / b)]
    assert quotient.dtype == jnp.int32


def test_halves_round_to_the_even_neighbour() -> None:
    halves = jnp.asarray([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], jnp.float32)
    assert elementwise.round_half_to_even(halves).tolist() == [-2, -2, 0, 0, 2, 2]


def test_a_power_keeps_the_dtype_of_its_base() -> None:
    base, exponent = jnp.asarray([2, 9]), jnp.asarray(0.5, jnp.float32)
    result = elementwise.power(base, exponent)
    assert result.dtype == base.dtype
    assert result.tolist() == [1, 3]


def test_the_square_of_a_negative_base_has_its_gradient() -> None:
    slope = jax.grad(lambda x: elementwise.power(x, jnp.float32(2)))(jnp.float32(-3))
    assert float(slope) == -6


@pytest.mark.parametrize(("fmod", "expected"), [(0, [1, -1, 1, -1]), (1, [1, 2, -2, -1])])
def test_the_sign_of_a_remainder_is_that_of_the_divisor_unless_fmod(
    fmod: int, expected: list[int]
) -> None:
    a, b = jnp.asarray([4, 5, -5, -4]), jnp.asarray([3, -3, 3, -3])
    assert elementwise.mod(a, b, fmod=fmod).tolist() == expected


def test_three_inputs_broadcast_against_each_other() -> None:
    inputs = [jnp.ones((2, 1)), jnp.full((1, 3), 2.0), jnp.asarray(4.0)]
    assert elementwise.maximum(*inputs).shape == (2, 3)
    np.testing.assert_array_equal(elementwise.add_all(*inputs), np.full((2, 3), 7.0))
    np.testing.assert_allclose(elementwise.mean_of_all(*inputs), np.full((2, 3), 7 / 3), rtol=1e-6)


def test_a_nan_wins_maximum_and_minimum() -> None:
    inputs = jnp.asarray([1.0, jnp.nan]), jnp.asarray([jnp.nan, 1.0])
    assert np.isnan(elementwise.maximum(*inputs)).all()
    assert np.isnan(elementwise.minimum(*inputs)).all()


def test_half_precision_stays_half_precision() -> None:
    x = jnp.asarray([0.5, 0.25], jnp.float16)
    for function in (elementwise.erf, elementwise.exp, elementwise.reciprocal, elementwise.atanh):
        assert function(x).dtype == jnp.float16
    assert elementwise.mean_of_all(x, x).dtype == jnp.float16
