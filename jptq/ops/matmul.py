"""Matrix products.

The precision of the products is the caller's choice (``jax.default_matmul_precision``).
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import Array

from jptq.ops.registry import op
from jptq.ops.traits import Cost, Ints, Traits


def _matmul_cost(a: Ints, b: Ints, y: Ints, **_: object) -> Cost:
    """Count one product per output and inner position."""
    return Cost(macs=math.prod(y) * a[-1])


@op(
    "MatMul",
    since=(1, 9, 13),
    traits=Traits.compute(features=(0, 1), weights={1: -1}),
    cost=_matmul_cost,
)
def matmul(a: Array, b: Array) -> Array:
    """Multiply matrices as `numpy.matmul` does.

    Args:
      a: ``[..., M, K]`` or ``[K]``.
      b: ``[..., K, N]`` or ``[K]``.

    Returns:
      ``[..., M, N]``, without the axes that a vector lacks.

    Source: ONNX operator specification, MatMul-13.
    """
    return jnp.matmul(a, b)


def _gemm_cost(a: Ints, b: Ints, *rest: Ints, transA: int = 0, **_: object) -> Cost:  # noqa: N803
    """Count one product per output and inner position."""
    return Cost(macs=math.prod(rest[-1]) * a[0 if transA else 1])


# The channels of a constant B are its last axis only without transB; a pass of the importer
# writes such a B transposed, so that the trait holds.
_GEMM = Traits.compute(features=(0, 1), weights={1: -1}, exact=(2,))


@op("Gemm", since=(7, 9, 11, 13), traits=_GEMM, cost=_gemm_cost)
def gemm(
    a: Array,
    b: Array,
    c: Array | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803
    transB: int = 0,  # noqa: N803
) -> Array:
    """Compute ``alpha A B + beta C``.

    Args:
      a: ``[M, K]``, or ``[K, M]`` if ``transA``.
      b: ``[K, N]``, or ``[N, K]`` if ``transB``.
      c: Broadcast to ``[M, N]``.

    Returns:
      ``[M, N]``.

    Source: ONNX operator specification, Gemm-13.
    """
    y = jnp.matmul(a.T if transA else a, b.T if transB else b)
    if alpha != 1:
        y = (alpha * y).astype(a.dtype)
    if c is None or beta == 0:
        return y
    return y + (c if beta == 1 else (beta * c).astype(c.dtype))


@op("Gemm", since=(1, 6), traits=_GEMM, cost=_gemm_cost)
def gemm_1(
    a: Array,
    b: Array,
    c: Array,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    broadcast: int = 0,
    transA: int = 0,  # noqa: N803
    transB: int = 0,  # noqa: N803
) -> Array:
    """Compute ``alpha A B + beta C``; up to opset 6 a flag permits what broadcasts anyway."""
    del broadcast
    return gemm(a, b, c, alpha=alpha, beta=beta, transA=transA, transB=transB)


def _einsum_cost(*shapes: Ints, equation: str, **_: object) -> Cost:
    """Count one product per combination of the labels; labels behind an ellipsis count too."""
    left = equation.replace(" ", "").split("->")[0].split(",")
    lengths: dict[str, int] = {}
    for labels, shape in zip(left, shapes, strict=False):
        head, dots, tail = labels.partition("...")
        middle = shape[len(head) : len(shape) - len(tail)] if dots else ()
        named = [*zip(head, shape, strict=False), *zip(tail[::-1], shape[::-1], strict=False)]
        hidden = [(f"...{depth}", n) for depth, n in enumerate(reversed(middle))]
        for label, n in [*named, *hidden]:
            lengths[label] = max(lengths.get(label, 1), n)
    return Cost(macs=math.prod(lengths.values()))


@op("Einsum", since=(12, 28), traits=Traits.compute(), cost=_einsum_cost)
def einsum(*inputs: Array, equation: str) -> Array:
    """Sum products over the labels of an equation, as `numpy.einsum` does.

    Source: ONNX operator specification, Einsum-12.
    """
    return jnp.einsum(equation.replace(" ", ""), *inputs)
