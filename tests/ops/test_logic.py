"""Comparisons, booleans and bits."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jptq.errors import ModelError
from jptq.ops import logic


def test_infinities_are_found_by_their_sign() -> None:
    x = jnp.asarray([-jnp.inf, 0.0, jnp.inf, jnp.nan])
    assert logic.is_inf(x).tolist() == [True, False, True, False]
    assert logic.is_inf(x, detect_negative=0).tolist() == [False, False, True, False]
    assert logic.is_inf(x, detect_positive=0).tolist() == [True, False, False, False]


def test_nothing_compares_with_nan() -> None:
    x = jnp.asarray([jnp.nan])
    for function in (logic.equal, logic.greater_or_equal, logic.less_or_equal):
        assert not function(x, x).any()


def test_a_right_shift_of_unsigned_bits_brings_in_zeros() -> None:
    x = jnp.asarray([0x80, 0xFF], jnp.uint8)
    shifted = logic.bit_shift(x, jnp.asarray([7, 4], jnp.uint8), direction="RIGHT")
    assert shifted.tolist() == [1, 0x0F]


def test_an_unknown_direction_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match="'UP'"):
        logic.bit_shift(jnp.uint8(1), jnp.uint8(1), direction="UP")


def test_bits_and_booleans_broadcast() -> None:
    rows, columns = jnp.asarray([[True], [False]]), jnp.asarray([True, False])
    expected = np.asarray([[True], [False]]) ^ np.asarray([True, False])
    np.testing.assert_array_equal(logic.logical_xor(rows, columns), expected)
