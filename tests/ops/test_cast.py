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


def test_bits_are_read_as_another_type() -> None:
    assert cast.bit_cast(jnp.float32(1), to=Types.INT32) == 0x3F800000
    assert cast.bit_cast(jnp.asarray([True]), to=Types.INT8).tolist() == [1]
    assert cast.bit_cast(jnp.asarray([0, 1], jnp.int8), to=Types.BOOL).tolist() == [False, True]


@pytest.mark.parametrize("like", [False, True])
@pytest.mark.parametrize("kind", ["INT2", "UINT2", "INT4", "UINT4"])
def test_parts_of_a_byte_wrap_as_in_onnx(kind: str, like: bool) -> None:
    x = np.array([-9, -3, -2, -1.5, 0, 0.7, 1, 2, 3, 100], np.float32)
    code = getattr(Types, kind)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(code)
    target = jnp.zeros((), dtype)
    got = jax.jit(lambda x: cast.cast_like(x, target) if like else cast.cast(x, to=code))(x)
    bits = int(kind[-1])
    whole = np.trunc(x).astype(int) % 2**bits
    expected = np.where((kind[0] == "I") & (whole >= 2 ** (bits - 1)), whole - 2**bits, whole)
    assert got.dtype == dtype
    assert np.asarray(got).astype(int).tolist() == expected.tolist()


@pytest.mark.parametrize("kind", ["FLOAT4E2M1", "FLOAT16"])
def test_small_floats_round_as_numpy_rounds(kind: str) -> None:
    x = np.array([-7, -1.4, 0, 0.2, 0.26, 1, 2.5, 3.5, 5], np.float32)
    code = getattr(Types, kind)
    expected = x.astype(onnx.helper.tensor_dtype_to_np_dtype(code))
    got = np.asarray(jax.jit(lambda x: cast.cast(x, to=code))(x))
    assert got.dtype == expected.dtype
    assert got.astype(float).tolist() == expected.astype(float).tolist()


def _power(x: float, saturate: int, round_mode: str) -> float:
    """ONNX's table for float8_e8m0, in exact arithmetic."""
    if np.isnan(x) or (not saturate and not 2.0**-127 <= x <= 2.0**127):
        return np.nan
    if x >= 2.0**127:
        return 2.0**127
    exponent = int(np.floor(np.log2(max(x, 2.0**-127))))
    low = 2.0**exponent
    up = {"up": x > low, "down": False, "nearest": x >= 1.5 * low}[round_mode]
    return low * (2 if up else 1)


@pytest.mark.parametrize("saturate", [0, 1])
@pytest.mark.parametrize("round_mode", ["up", "down", "nearest"])
def test_powers_of_two_follow_the_table_of_onnx(round_mode: str, saturate: int) -> None:
    x = [0, 2.0**-130, 2.0**-127, 1.2 * 2.0**-127, 1.7 * 2.0**-127, 1.1, 1.5, 3, 4, 2.0**127]
    given = np.array([*x, np.inf, np.nan], np.float32)

    @jax.jit
    def convert(x: jax.Array) -> jax.Array:
        return cast.cast(x, to=Types.FLOAT8E8M0, saturate=saturate, round_mode=round_mode)

    got = np.asarray(convert(given)).astype(float)
    expected = [_power(float(x), saturate, round_mode) for x in given.astype(float)]
    np.testing.assert_array_equal(got, expected)


def test_text_and_unknown_types_are_refused() -> None:
    with pytest.raises(ModelError, match="text"):
        cast.cast(jnp.ones(1), to=Types.STRING)
    with pytest.raises(ModelError, match="element type 99"):
        cast.cast(jnp.ones(1), to=99)
