from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from jptq.ops import Cost, attention
from tests.ops.agreement import normal


def _reference(inputs: list[np.ndarray | None], attributes: dict[str, Any]) -> list[np.ndarray]:
    names = [f"i{k}" if x is not None else "" for k, x in enumerate(inputs)]
    node = onnx.helper.make_node("Attention", names, ["y", "k", "v", "qk"], **attributes)
    return ReferenceEvaluator(node).run(
        None, {name: x for name, x in zip(names, inputs, strict=True) if name}
    )


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"is_causal": 1},
        {"softcap": 2.0, "qk_matmul_output_mode": 1},
        {"scale": 0.3, "qk_matmul_output_mode": 3},
    ],
)
@pytest.mark.parametrize("past", [False, True])
def test_grouped_heads_agree_with_the_reference(attributes: dict[str, Any], past: bool) -> None:
    inputs: list[np.ndarray | None] = [
        normal(2, 6, 4, 8),
        normal(2, 3, 5, 8, seed=1),
        normal(2, 3, 5, 7, seed=2),
    ]
    if past:
        inputs += [None, normal(2, 3, 2, 8, seed=3), normal(2, 3, 2, 7, seed=4)]
    got = jax.jit(functools.partial(attention.attention, **attributes))(*inputs)
    for ours, theirs in zip(got, _reference(inputs, attributes), strict=True):
        if theirs is not None:
            np.testing.assert_allclose(np.asarray(ours), theirs, rtol=1e-4, atol=1e-5)


def test_a_query_that_sees_no_key_gets_zeros_and_a_finite_gradient() -> None:
    q, k, v = (jnp.asarray(normal(1, 1, 2, 4, seed=s)) for s in range(3))
    mask = jnp.array([[True, True], [False, False]])

    def total(q: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = attention.attention(q, k, v, mask)[0]
        return y.sum(), y

    slope, y = jax.jit(jax.grad(total, has_aux=True))(q)
    assert not np.asarray(y)[0, 0, 1].any()
    assert np.isfinite(np.asarray(slope)).all()


def test_flat_heads_equal_separate_heads() -> None:
    q, k, v = (jnp.asarray(normal(2, 3, 4, 8, seed=s)) for s in range(3))
    flat = [x.swapaxes(1, 2).reshape(2, 4, 24) for x in (q, k, v)]
    y = attention.attention(*flat, q_num_heads=3, kv_num_heads=3)[0]
    want = attention.attention(q, k, v)[0].swapaxes(1, 2).reshape(2, 4, 24)
    np.testing.assert_allclose(np.asarray(y), np.asarray(want), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("interleaved", [0, 1])
def test_rotation_keeps_lengths(interleaved: int) -> None:
    x = jnp.asarray(normal(1, 2, 3, 8))
    angles = normal(1, 3, 4, seed=1)
    y = attention.rotary_embedding(x, jnp.cos(angles), jnp.sin(angles), interleaved=interleaved)
    lengths = [np.linalg.norm(np.asarray(array), axis=-1) for array in (x, y)]
    np.testing.assert_allclose(*lengths, rtol=1e-5)


def test_products_are_counted_for_keys_and_values() -> None:
    cost = attention._attention_cost((1, 6, 4, 8), (1, 3, 5, 8), (1, 3, 5, 7), (1, 6, 4, 7))
    assert cost == Cost(macs=6 * 4 * 5 * (8 + 7))
