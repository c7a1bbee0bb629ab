"""Conversions between element types."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest

from jptq.errors import ModelError
from jptq.ops import cast

Types = onnx.TensorProto


def test_floats_become_integers_by_truncation() -> None:
    x = jnp.asarray([-1.9, -0.5, 0.5, 1.9])
    assert cast.cast(x, to=Types.INT32).tolist() == [-1, 0, 0, 1]


def test_integers_that_do_not_fit_lose_their_high_bits() -> None:
    x = jnp.asarray([200, -129, 256], jnp.int16)
    assert cast.cast(x, to=Types.INT8).tolist() == [-56, 127, 0]


def test_everything_but_zero_is_true() -> None:
    x = jnp.asarray([0.0, -0.0, 0.4, jnp.nan])
    assert cast.cast(x, to=Types.BOOL).tolist() == [False, False, True, True]


def test_64_bits_are_32_where_they_are_off() -> None:
    assert cast.cast(jnp.ones(1), to=Types.INT64).dtype == np.int32
    with jax.enable_x64(True):
        assert cast.cast(jnp.ones(1), to=Types.DOUBLE).dtype == np.float64


@pytest.mark.parametrize("saturate", [0, 1])
def test_8_bit_floats_saturate_unless_told_not_to(saturate: int) -> None:
    x = jnp.asarray([1e6, -jnp.inf, jnp.nan])
    got = np.asarray(cast.cast(x, to=Types.FLOAT8E4M3FN, saturate=saturate)).astype(np.float32)
    np.testing.assert_array_equal(got, [448, -448, np.nan] if saturate else [np.nan] * 3)


def test_the_type_is_taken_from_another_tensor() -> None:
    assert cast.cast_like(jnp.asarray([1.5]), jnp.ones(3, jnp.int8)).dtype == np.int8


def test_a_cast_between_floats_passes_gradients() -> None:
    slope = jax.grad(lambda x: cast.cast(x, to=Types.FLOAT16).astype(jnp.float32))(2.0)
    assert slope == 1


@pytest.mark.parametrize("code", [Types.STRING, 99])
def test_a_type_without_numbers_is_refused_by_its_code(code: int) -> None:
    with pytest.raises(ModelError, match=f"element type {code} "):
        cast.cast(jnp.ones(1), to=code)


def test_bits_are_read_as_another_type() -> None:
    assert cast.bit_cast(jnp.float32(1), to=Types.INT32) == 0x3F800000
    assert cast.bit_cast(jnp.asarray([True]), to=Types.INT8).tolist() == [1]
    assert cast.bit_cast(jnp.asarray([0, 1], jnp.int8), to=Types.BOOL).tolist() == [False, True]
