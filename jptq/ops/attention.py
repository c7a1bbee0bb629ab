"""Attention and rotary position embedding."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jax import Array

from jptq.numerics import dtypes
from jptq.ops.registry import op
from jptq.ops.traits import Cost, Ints, Traits


def _split_heads(x: Array, heads: int | None) -> Array:
    """Return ``[B, H, S, D]`` for that, or for ``[B, S, H * D]``."""
    if x.ndim == 4 or heads is None:
        return x
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def _allowed(
    queries: int,
    keys: int,
    offset: int | Array,
    nonpad: Array | None,
    *,
    is_causal: int,
    left: int,
    right: int,
) -> Array:
    """Return which keys each query may see, ``bool`` broadcast to ``[B, H, S, T]``."""
    ages = np.arange(queries)[:, None] - np.arange(keys)  # of a key, seen from a query
    age = (
        jnp.asarray(ages + offset)
        if isinstance(offset, int)
        else ages.astype(np.int32) + offset[:, None, None, None]
    )
    seen = jnp.ones_like(age, dtype=bool)
    if is_causal:
        seen &= age >= 0
    if left >= 0:
        seen &= age <= left
    if right >= 0:
        seen &= age >= -right
    if nonpad is not None:
        seen = seen & (np.arange(keys, dtype=np.int32) < nonpad[:, None, None, None])
    return seen


def _attention_cost(q: Ints, k: Ints, v: Ints, *rest: Ints, **attributes: object) -> Cost:
    """Count the products of queries with keys and of weights with values."""
    hidden = q[1] * q[3] if len(q) == 4 else q[2]
    queries, keys = q[-2], k[-2]
    heads = attributes.get("q_num_heads")
    kv_heads = attributes.get("kv_num_heads")
    if len(q) == 4:
        values = q[1] * v[3]
    else:
        ratio = heads // kv_heads if isinstance(heads, int) and isinstance(kv_heads, int) else 1
        values = v[2] * ratio
    return Cost(macs=q[0] * queries * keys * (hidden + values))


_ATTENTION = Traits.compute(features=(0, 1, 2), exact=(3, 4, 5, 6))


@op("Attention", since=(25,), traits=_ATTENTION, cost=_attention_cost)
def attention(
    q: Array,
    k: Array,
    v: Array,
    attn_mask: Array | None = None,
    past_key: Array | None = None,
    past_value: Array | None = None,
    nonpad_kv_seqlen: Array | None = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    left_window_size: int = -1,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
) -> tuple[Array, Array, Array, Array]:
    """Average values by the softmax of scaled products of queries and keys.

    Args:
      q: ``[B, H, S, D]`` or ``[B, S, H * D]``.
      k: ``[B, G, T, D]`` or ``[B, T, G * D]``; G divides H.
      v: ``[B, G, T, E]`` or ``[B, T, G * E]``.
      attn_mask: ``bool``, or floats to add; broadcast to ``[B, H, S, P + T]``, its last axis
        may be shorter: what it lacks is masked.
      past_key: ``[B, G, P, D]``, put before ``k``.
      past_value: ``[B, G, P, E]``, put before ``v``.
      nonpad_kv_seqlen: ``int64[B]``: keys that are not padding.

    Returns:
      The averages, in the form of ``q``; keys and values with the past; the products after the
      stage that ``qk_matmul_output_mode`` names. A query that may see no key gets zeros.

    Source: ONNX operator specification, Attention-25.
    """
    queries = _split_heads(q, q_num_heads)
    keys, values = _split_heads(k, kv_num_heads), _split_heads(v, kv_num_heads)
    if past_key is not None and past_value is not None:
        keys = jnp.concatenate((past_key, keys), axis=2)
        values = jnp.concatenate((past_value, values), axis=2)
    batch, heads, length, depth = queries.shape
    groups, total = keys.shape[1], keys.shape[2]

    root = math.sqrt(1 / math.sqrt(depth) if scale is None else scale)
    grouped = (queries * root).reshape(batch, groups, heads // groups, length, depth)
    raw = jnp.einsum("bghsd,bgtd->bghst", grouped, keys * root)
    raw = raw.reshape(batch, heads, length, total)
    capped = softcap * jnp.tanh(raw / softcap) if softcap > 0 else raw

    nonpad = None if nonpad_kv_seqlen is None else nonpad_kv_seqlen.astype(jnp.int32)
    past = 0 if past_key is None else past_key.shape[2]
    seen = _allowed(
        length,
        total,
        past if nonpad is None else nonpad - length,
        nonpad,
        is_causal=is_causal,
        left=left_window_size,
        right=right_window_size,
    )
    biased = capped
    if attn_mask is not None:
        missing = [(0, 0)] * (attn_mask.ndim - 1) + [(0, total - attn_mask.shape[-1])]
        if attn_mask.dtype == jnp.bool_:
            seen = seen & jnp.pad(attn_mask, missing)
        else:
            lowest = np.array(-np.inf, attn_mask.dtype)
            biased = capped + jnp.pad(attn_mask, missing, constant_values=lowest)
    biased = jnp.where(seen, biased, -jnp.inf)

    wide = biased.astype(dtypes.from_onnx(softmax_precision)) if softmax_precision else biased
    highest = wide.max(axis=-1, keepdims=True)
    powers = jnp.exp(wide - jnp.where(jnp.isfinite(highest), highest, 0))
    sums = powers.sum(axis=-1, keepdims=True)
    weights = (powers / jnp.where(sums == 0, 1, sums)).astype(q.dtype)

    shared = weights.reshape(batch, groups, heads // groups, length, total)
    y = jnp.einsum("bghst,bgte->bghse", shared, values).reshape(batch, heads, length, -1)
    if q.ndim == 3:
        y = y.swapaxes(1, 2).reshape(batch, length, -1)
    return y, keys, values, (raw, capped, biased, weights)[qk_matmul_output_mode]


@op("Attention", since=(24,), traits=_ATTENTION, cost=_attention_cost)
def attention_24(
    q: Array,
    k: Array,
    v: Array,
    attn_mask: Array | None = None,
    past_key: Array | None = None,
    past_value: Array | None = None,
    nonpad_kv_seqlen: Array | None = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
) -> tuple[Array, Array, Array, Array]:
    """Attend as `attention` does; before opset 25 without sliding windows."""
    return attention(
        q,
        k,
        v,
        attn_mask,
        past_key,
        past_value,
        nonpad_kv_seqlen,
        is_causal=is_causal,
        kv_num_heads=kv_num_heads,
        q_num_heads=q_num_heads,
        qk_matmul_output_mode=qk_matmul_output_mode,
        scale=scale,
        softcap=softcap,
        softmax_precision=softmax_precision,
    )


@op("Attention", since=(23,), traits=_ATTENTION, cost=_attention_cost)
def attention_23(
    q: Array,
    k: Array,
    v: Array,
    attn_mask: Array | None = None,
    past_key: Array | None = None,
    past_value: Array | None = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
) -> tuple[Array, Array, Array, Array]:
    """Attend as `attention` does; before opset 24 without padded caches."""
    return attention(
        q,
        k,
        v,
        attn_mask,
        past_key,
        past_value,
        is_causal=is_causal,
        kv_num_heads=kv_num_heads,
        q_num_heads=q_num_heads,
        qk_matmul_output_mode=qk_matmul_output_mode,
        scale=scale,
        softcap=softcap,
        softmax_precision=softmax_precision,
    )


@op("RotaryEmbedding", since=(23,), traits=Traits.compute(features=(0,), exact=(1, 2, 3)))
def rotary_embedding(
    x: Array,
    cos_cache: Array,
    sin_cache: Array,
    position_ids: Array | None = None,
    *,
    interleaved: int = 0,
    num_heads: int | None = None,
    rotary_embedding_dim: int = 0,
) -> Array:
    """Rotate pairs of features by angles that grow with the position.

    Args:
      x: ``[B, H, S, D]`` or ``[B, S, H * D]``.
      cos_cache: ``[positions, R / 2]`` with ``position_ids``, else ``[B, S, R / 2]``.
      sin_cache: As ``cos_cache``.
      position_ids: ``int64[B, S]``.

    Returns:
      As ``x``; only the first R features of each head are rotated, all if
      ``rotary_embedding_dim`` is zero.

    Source: ONNX operator specification, RotaryEmbedding-23.
    """
    heads_first = _split_heads(x, num_heads)
    size = rotary_embedding_dim or heads_first.shape[-1]
    rotated, rest = heads_first[..., :size], heads_first[..., size:]
    cos, sin = cos_cache, sin_cache
    if position_ids is not None:
        cos = jnp.take(cos, position_ids, axis=0, mode="clip")
        sin = jnp.take(sin, position_ids, axis=0, mode="clip")
    cos, sin = cos[:, None], sin[:, None]
    if interleaved:
        first, second = rotated[..., 0::2], rotated[..., 1::2]
    else:
        first, second = jnp.split(rotated, 2, axis=-1)
    real, imaginary = cos * first - sin * second, sin * first + cos * second
    if interleaved:
        turned = jnp.stack((real, imaginary), axis=-1).reshape(rotated.shape)
    else:
        turned = jnp.concatenate((real, imaginary), axis=-1)
    y = jnp.concatenate((turned, rest), axis=-1)
    return y if x.ndim == 4 else y.swapaxes(1, 2).reshape(x.shape)
