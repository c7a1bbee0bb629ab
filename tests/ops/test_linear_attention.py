"""Linear attention and causal convolution: one call over a text equals calls on its parts."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jptq.errors import ShapeError
from jptq.ops import convolution, linear_attention
from tests.ops.agreement import normal

HEADS = {"q_num_heads": 4, "kv_num_heads": 2}
RULES = {"linear": (), "gated": ("decay",), "delta": ("beta",), "gated_delta": ("decay", "beta")}


def _inputs(rule: str) -> dict[str, jax.Array]:
    every = {
        "query": normal(2, 6, 12, seed=1),
        "key": normal(2, 6, 6, seed=2) / 2,
        "value": normal(2, 6, 10, seed=3),
        "decay": -np.abs(normal(2, 6, 2, seed=4)),
        "beta": np.abs(normal(2, 6, 1, seed=5)).clip(0, 1),
    }
    names = ("query", "key", "value", *RULES[rule])
    return {name: jnp.asarray(every[name]) for name in names}


@pytest.mark.parametrize("rule", RULES)
def test_a_state_carries_over_from_part_to_part(rule: str) -> None:
    given = _inputs(rule)
    run = jax.jit(
        lambda state, parts: linear_attention.linear_attention(
            **parts, past_state=state, update_rule=rule, **HEADS
        )
    )
    state, parts = np.zeros((2, 2, 3, 5), np.float32), []
    whole, last = run(state, given)
    for t in range(6):
        y, state = run(state, {name: x[:, t : t + 1] for name, x in given.items()})
        parts.append(y)
    np.testing.assert_allclose(np.asarray(whole), np.concatenate(parts, 1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.asarray(last), np.asarray(state), rtol=1e-5, atol=1e-6)


def test_without_gates_it_is_causal_attention_without_a_softmax() -> None:
    q, k, v = (np.asarray(x, np.float64) for x in _inputs("linear").values())
    y, _ = linear_attention.linear_attention(**_inputs("linear"), update_rule="linear", **HEADS)
    heads = [x.reshape(2, 6, -1, size) for x, size in ((q, 3), (k, 3), (v, 5))]
    queries, keys, values = heads[0], *(np.repeat(x, 2, axis=2) for x in heads[1:])
    products = np.tril(np.einsum("bthd,bshd->bhts", queries, keys)) / np.sqrt(3)
    expected = np.einsum("bhts,bshe->bthe", products, values).reshape(2, 6, 20)
    np.testing.assert_allclose(np.asarray(y), expected, rtol=1e-4, atol=1e-5)


def test_inputs_that_a_rule_does_not_know_are_refused() -> None:
    with pytest.raises(ShapeError, match="another set of inputs"):
        linear_attention.linear_attention(**_inputs("gated"), update_rule="linear", **HEADS)


@pytest.mark.parametrize("activation", ["none", "silu"])
def test_a_causal_convolution_carries_its_past(activation: str) -> None:
    run = jax.jit(functools.partial(convolution.causal_conv_with_state, activation=activation))
    x, w, b = normal(2, 3, 7), normal(3, 1, 4), normal(3)
    whole, last = run(x, w, b)
    expected = np.zeros((2, 3, 7))
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (0, 0), (3, 0)))
    for t in range(7):
        expected[..., t] = (padded[..., t : t + 4] * np.asarray(w)[:, 0]).sum(-1) + np.asarray(b)
    if activation == "silu":
        expected = expected / (1 + np.exp(-expected))
    np.testing.assert_allclose(np.asarray(whole), expected, rtol=1e-5, atol=1e-5)
    first, state = run(x[..., :2], w, b)
    rest, end = run(x[..., 2:], w, b, state)
    np.testing.assert_allclose(np.concatenate((first, rest), 2), np.asarray(whole), rtol=1e-5)
    np.testing.assert_array_equal(np.asarray(end), np.asarray(last))
