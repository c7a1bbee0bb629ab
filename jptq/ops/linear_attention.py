"""Linear attention: a state per head that every position updates and every query reads.

Source of every function here: ONNX operator specification, the version last in ``since``.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import Array, lax

from jptq.errors import ShapeError
from jptq.ops.registry import op
from jptq.ops.traits import Traits
from jptq.ops.words import choose

_RULES = {
    "linear": (False, False),
    "gated": (True, False),
    "delta": (False, True),
    "gated_delta": (True, True),
}
"""``update_rule``: whether the state decays, and whether what it already holds is taken off."""


def _heads(x: Array, heads: int) -> Array:
    """Return ``[B, T, H * D]`` as float32 ``[T, B, H, D]``."""
    return jnp.moveaxis(x.reshape(*x.shape[:2], heads, -1).astype(jnp.float32), 1, 0)


@op("LinearAttention", since=(27,), traits=Traits.float_only())
def linear_attention(
    query: Array,
    key: Array,
    value: Array,
    past_state: Array | None = None,
    decay: Array | None = None,
    beta: Array | None = None,
    *,
    chunk_size: int = 64,
    kv_num_heads: int,
    q_num_heads: int,
    scale: float = 0.0,
    update_rule: str = "gated_delta",
) -> tuple[Array, Array]:
    """Write outer products of keys and values into a state and read it with queries, in order.

    Args:
      query: ``[B, T, H * D]``.
      key: ``[B, T, G * D]``; G divides H.
      value: ``[B, T, G * E]``.
      past_state: ``[B, G, D, E]``; zeros if absent.
      decay: Logarithm of the factor of the state, ``[B, T, G]`` or ``[B, T, G * D]``; of the gated
        rules.
      beta: Share of a value that is written, ``[B, T, G]`` or ``[B, T, 1]``; of the delta rules.
      chunk_size: A hint for other implementations, without effect on values.
      scale: Of the queries; ``1 / sqrt(D)`` if zero.

    Returns:
      ``[B, T, H * E]`` in the dtype of ``query``; the last state in that of ``past_state``. Sums
      are float32.

    Raises:
      ShapeError: The rule is unknown, or takes another set of inputs.

    Source: ONNX operator specification, LinearAttention-27.
    """
    del chunk_size
    decays, corrects = choose(_RULES, update_rule, "update_rule")
    if decays != (decay is not None) or corrects != (beta is not None):
        raise ShapeError(
            f"LinearAttention with update_rule {update_rule!r} and another set of inputs",
            why="'decay' belongs to the gated rules and 'beta' to the delta rules",
        )
    queries, keys, values = (
        _heads(query, q_num_heads),
        _heads(key, kv_num_heads),
        _heads(value, kv_num_heads),
    )
    depth = queries.shape[-1]
    batch, length = query.shape[:2]
    initial = (
        jnp.zeros((batch, kv_num_heads, depth, values.shape[-1]), jnp.float32)
        if past_state is None
        else past_state.astype(jnp.float32)
    )
    gates = None if decay is None else jnp.exp(_heads(decay, kv_num_heads))[..., None]
    shares = None if beta is None else _heads(beta, beta.shape[-1])
    grouped = queries.reshape(length, batch, kv_num_heads, -1, depth)

    def step(
        state: Array, at: tuple[Array, Array, Array, Array | None, Array | None]
    ) -> tuple[Array, Array]:
        q, k, v, gate, share = at
        if gate is not None:
            state = state * gate
        if share is not None:
            v = share * (v - jnp.einsum("bgde,bgd->bge", state, k))
        state = state + k[..., :, None] * v[..., None, :]
        return state, jnp.einsum("bghd,bgde->bghe", q, state)

    state, read = lax.scan(step, initial, (grouped, keys, values, gates, shares))
    factor = scale or 1 / math.sqrt(depth)
    y = jnp.moveaxis(read * factor, 0, 1).reshape(batch, length, -1)
    return y.astype(query.dtype), state.astype(
        query.dtype if past_state is None else past_state.dtype
    )
