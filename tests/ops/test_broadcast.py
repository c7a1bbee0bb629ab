"""The broadcasting of opset 6, asked for by attributes."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jptq.ops import find


def _binary(name: str, version: int):
    entry = find("", name, version)
    assert entry is not None
    return entry.function


@pytest.mark.parametrize(
    ("shape", "axis", "aligned"),
    [
        ((), None, ()),
        ((5,), None, (5,)),
        ((4, 5), None, (4, 5)),
        ((3, 4), 1, (3, 4, 1)),
        ((2,), 0, (2, 1, 1, 1)),
        ((3,), -3, (3, 1, 1)),
    ],
)
def test_the_axis_says_where_the_second_shape_begins(shape, axis, aligned) -> None:
    a = np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5)
    b = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    got = _binary("Sub", 6)(jnp.asarray(a), jnp.asarray(b), axis=axis, broadcast=1)
    np.testing.assert_array_equal(got, a - b.reshape(aligned))


def test_the_memory_hint_of_opset_1_is_ignored() -> None:
    x = jnp.ones(3)
    assert _binary("Add", 1)(x, x, consumed_inputs=(0, 1)).tolist() == [2, 2, 2]


def test_a_power_of_opset_1_aligns_its_exponent() -> None:
    x, y = jnp.full((2, 3), 2.0), jnp.asarray([1.0, 3.0])
    got = _binary("Pow", 1)(x, y, axis=0, broadcast=1)
    np.testing.assert_array_equal(got, [[2, 2, 2], [8, 8, 8]])


def test_opset_7_broadcasts_without_attributes() -> None:
    got = _binary("Mul", 7)(jnp.ones((2, 3)), jnp.asarray([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(got, [[1, 2, 3], [1, 2, 3]])
