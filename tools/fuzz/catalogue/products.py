"""Matrix products, attention."""

from __future__ import annotations

from collections.abc import Sequence

from tools.fuzz.builder import FLOAT, Builder, Value
from tools.fuzz.catalogue.registry import FLOAT16, FLOAT64, INT32, operator


@operator(
    "MatMul",
    ranks=(1, 2, 2, 3, 3, 4, 5),
    dtypes=(*(FLOAT,) * 5, FLOAT64, FLOAT16, INT32),
    weight=6.0,
)
def matmul(b: Builder, x: Value) -> Sequence[Value]:
    """Add a product of stacks of matrices, or of vectors."""
    draw = b.draw
    if draw.chance(0.25) and x.rank >= 2:  # the known operand comes first
        return b.node("MatMul", _other(b, (draw.integer(1, 4), x.shape[-2]), x), x)
    stack: tuple[int, ...] = ()
    if x.rank >= 3 and draw.chance(0.4):
        stack = tuple(length if draw.chance(0.7) else 1 for length in x.shape[:-2])
    shape: tuple[int, ...] = (*stack, x.shape[-1], draw.integer(1, 5))
    if draw.chance(0.1):
        shape = (x.shape[-1],)
    elif draw.chance(0.1) and x.rank >= 2 and not stack:
        shape = (2, *(1,) * (x.rank - 2), *shape[-2:])[-4:] if x.rank < 4 else shape
    product = b.node("MatMul", x, _other(b, shape, x))
    if x.dtype == FLOAT and draw.chance(0.3) and product[0].rank:
        return b.node("Add", *product, b.weight((product[0].shape[-1],)))
    return product


def _other(b: Builder, shape: tuple[int, ...], x: Value) -> Value:
    if x.dtype != FLOAT:
        return b.constant(b.draw.array(shape, x.dtype, (-2.0, 2.0)))
    return b.weight(shape) if b.draw.chance(0.7) else b.operand(shape, FLOAT, (-1.5, 1.5))


@operator("Gemm", ranks=(2,), weight=3.0)
def gemm(b: Builder, x: Value) -> Sequence[Value]:
    """Add a product with transposes, factors and an addend that broadcasts."""
    draw = b.draw
    turned, turned_weight = draw.chance(0.3), draw.chance(0.5)
    rows, depth = x.shape[::-1] if turned else x.shape
    columns = draw.integer(1, 5)
    shape = (columns, depth) if turned_weight else (depth, columns)
    weight = b.weight(shape) if draw.chance(0.8) else b.operand(shape, FLOAT, (-1.5, 1.5))
    addend = None
    if draw.chance(0.7) or b.opset < 11:
        beside: list[tuple[int, ...]] = [(columns,), (columns,), (1,)]
        chosen = draw.pick([*beside, (1, columns), (rows, 1), (rows, columns)])
        addend = b.operand(chosen) if draw.chance(0.2) else b.weight(chosen)
    return b.node(
        "Gemm", x, weight, addend,
        transA=int(turned) if turned or draw.chance(0.5) else None,
        transB=int(turned_weight) if turned_weight or draw.chance(0.5) else None,
        alpha=draw.pick([None, None, 0.5, 2.0, -1.0]),
        beta=draw.pick([None, None, 0.5, 3.0]),
    )  # fmt: skip


@operator("MatMul", ranks=(3, 4), weight=1.0)
def self_attention(b: Builder, x: Value) -> Sequence[Value]:
    """Add softmax(x x') x in elementary operators."""
    order = [*range(x.rank - 2), x.rank - 1, x.rank - 2]
    (turned,) = b.node("Transpose", x, perm=order)
    (scores,) = b.node("MatMul", x, turned)
    (scaled,) = b.node("Mul", scores, b.scalar(0.25))
    if b.opset < 13:
        (weights,) = b.node("Softmax", scaled, axis=x.rank - 1)
    else:
        (weights,) = b.node("Softmax", scaled, axis=-1)
    return b.node("MatMul", weights, x)


@operator("Attention", ranks=(4,), weight=0.5)
def attention(b: Builder, x: Value) -> Sequence[Value]:
    """Add the operator of opset 23."""
    draw, (n, heads, queries, width) = b.draw, x.shape
    keys = draw.integer(1, 4)
    shared = draw.pick([h for h in (1, 2, 3, 4, 5) if heads % h == 0])
    key = b.operand((n, shared, keys, width))
    value = b.operand((n, shared, keys, draw.integer(1, 4)))
    causal = draw.chance(0.3)
    mask = b.operand((queries, keys)) if draw.chance(0.3) and not causal else None
    return b.node(
        "Attention", x, key, value, mask,
        is_causal=int(causal),
        scale=draw.pick([None, 0.5]),
        softcap=draw.pick([None, None, 2.0]),
    )  # fmt: skip


@operator("RotaryEmbedding", ranks=(4,), lengths=(1, 4), weight=0.3)
def rotary(b: Builder, x: Value) -> Sequence[Value]:
    """Add the rotation of pairs of features by their place."""
    draw, (n, heads, places, _) = b.draw, x.shape
    width = 2 * draw.integer(1, 3)
    x = b.operand((n, heads, places, width))
    shape = (n, places, width // 2)
    cosines, sines = (b.operand(shape, FLOAT, (-1.0, 1.0)) for _ in range(2))
    return b.node("RotaryEmbedding", x, cosines, sines, interleaved=draw.pick([0, 1, None]))
