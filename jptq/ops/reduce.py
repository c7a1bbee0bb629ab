"""Reductions over axes, cumulative sums, and the largest elements.

Source of every function here: ONNX operator specification, the version last in ``since``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jptq.ops import reach, slopes
from jptq.ops.integers import to_index
from jptq.ops.intervals import Reach
from jptq.ops.precision import widened
from jptq.ops.registry import op
from jptq.ops.traits import Cost, Ints, Layout, Traits

Reduction = Callable[[Array, Ints | None, bool], Array]
"""``reduce(data, axes, keepdims)``; ``axes`` None means all of them."""

_ALONG_AXIS = Traits.compute(features=(0,), layout=Layout.AXES, axes=("axis",))


def _reduction_cost(data: Ints, *_: Ints, **__: object) -> Cost:
    return Cost(vector=math.prod(data))


def _reduction(
    name: str,
    *,
    attribute: Sequence[int],
    input: Sequence[int],
    look_through: bool = False,
    reached: Reach | None = None,
) -> Callable[[Reduction], Reduction]:
    """Register a reduction under both of its schemas.

    Args:
      name: Operator name.
      attribute: Versions in which the axes are an attribute.
      input: Versions in which they are an input.
      look_through: See `Traits`.
      reached: `Traits.reach`.
    """

    def register(reduce: Reduction) -> Reduction:
        def by_attribute(data: Array, *, axes: Ints | None = None, keepdims: int = 1) -> Array:
            return reduce(data, axes or None, bool(keepdims))  # an empty list names all of them

        def by_input(
            data: Array,
            axes: np.ndarray | None = None,
            *,
            keepdims: int = 1,
            noop_with_empty_axes: int = 0,
        ) -> Array:
            chosen = () if axes is None else tuple(axes.tolist())
            everything = not chosen and not noop_with_empty_axes
            return reduce(data, None if everything else chosen, bool(keepdims))

        traits = dataclasses.replace(
            Traits.compute(features=(0,), reach=reached, layout=Layout.AXES, axes=("axes",)),
            look_through=look_through,
        )
        op(name, since=attribute, traits=traits, cost=_reduction_cost)(by_attribute)
        op(name, since=input, traits=traits, cost=_reduction_cost, static=("axes",))(by_input)
        return reduce

    return register


@_reduction("ReduceSum", attribute=(1, 11), input=(13,))
def reduce_sum(data: Array, axes: Ints | None, keepdims: bool) -> Array:
    """Add up."""
    return jnp.sum(data, axes, keepdims=keepdims, dtype=data.dtype)


@_reduction("ReduceMean", attribute=(1, 11, 13), input=(18,))
def reduce_mean(data: Array, axes: Ints | None, keepdims: bool) -> Array:
    """Average; the mean of integers is truncated towards zero."""
    if jnp.issubdtype(data.dtype, jnp.floating):
        return jnp.mean(data, axes, keepdims=keepdims)
    total = reduce_sum(data, axes, keepdims)
    return lax.div(total, jnp.full_like(total, data.size // max(total.size, 1)))


@_reduction(
    "ReduceMax",
    attribute=(1, 11, 12, 13),
    input=(18, 20),
    look_through=True,
    reached=reach.LARGEST,
)
def reduce_max(data: Array, axes: Ints | None, keepdims: bool) -> Array:
    """Take the largest; minus infinity, or the least integer, of nothing."""
    lowest = _limits(data.dtype)[0] if data.size == 0 else None
    return jnp.max(data, axes, keepdims=keepdims, initial=lowest)


@_reduction("ReduceMin", attribute=(1, 11, 12, 13), input=(18, 20), reached=reach.SMALLEST)
def reduce_min(data: Array, axes: Ints | None, keepdims: bool) -> Array:
    """Take the smallest; infinity, or the greatest integer, of nothing."""
    highest = _limits(data.dtype)[1] if data.size == 0 else None
    return jnp.min(data, axes, keepdims=keepdims, initial=highest)


def _limits(dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Return the neutral elements of maximum and minimum."""
    if dtype == np.bool_:
        return np.asarray(False), np.asarray(True)
    if jnp.issubdtype(dtype, jnp.integer):
        info = np.iinfo(dtype)
        return np.asarray(info.min, dtype), np.asarray(info.max, dtype)
    return np.asarray(-np.inf, dtype), np.asarray(np.inf, dtype)


@_reduction("ReduceProd", attribute=(1, 11, 13), input=(18,))
def reduce_prod(data: Array, axes: Ints | None, keepdims: bool) -> Array:
    """Multiply."""
    return jnp.prod(data, axes, keepdims=keepdims, dtype=data.dtype)


@_reduction("ReduceL1", attribute=(1, 11, 13), input=(18,))
def reduce_l1(data: Array, axes: Ints | None, keepdims: bool) -> Array:
    """Add up absolute values."""
    return reduce_sum(jnp.abs(data), axes, keepdims)


@_reduction("ReduceSumSquare", attribute=(1, 11, 13), input=(18,))
def reduce_sum_square(data: Array, axes: Ints | None, keepdims: bool) -> Array:
    """Add up squares."""
    return reduce_sum(jnp.square(widened(data)), axes, keepdims).astype(data.dtype)


@_reduction("ReduceL2", attribute=(1, 11, 13), input=(18,))
def reduce_l2(data: Array, axes: Ints | None, keepdims: bool) -> Array:
    """Euclidean norm; its gradient at the zero vector is zero, not NaN."""
    return slopes.sqrt(reduce_sum_square(_as_float(data), axes, keepdims)).astype(data.dtype)


@_reduction("ReduceLogSum", attribute=(1, 11, 13), input=(18, 28))
def reduce_log_sum(data: Array, axes: Ints | None, keepdims: bool) -> Array:
    """Logarithm of the sum."""
    return slopes.log(reduce_sum(_as_float(data), axes, keepdims)).astype(data.dtype)


@_reduction("ReduceLogSumExp", attribute=(1, 11, 13), input=(18, 28))
def reduce_log_sum_exp(data: Array, axes: Ints | None, keepdims: bool) -> Array:
    """Logarithm of the sum of exponentials, without overflow."""
    x = _as_float(data)
    if x.size == 0:  # there is no maximum to subtract
        return reduce_log_sum(jnp.exp(x), axes, keepdims).astype(data.dtype)
    return jax.nn.logsumexp(x, axes, keepdims=keepdims).astype(data.dtype)


def _as_float(data: Array) -> Array:
    is_float = jnp.issubdtype(data.dtype, jnp.floating)
    return widened(data) if is_float else data.astype(jnp.float32)


@op("Det", since=(11, 22), traits=Traits.float_only())
def det(x: Array) -> Array:
    """Determinants of square matrices, the last two axes."""
    return jnp.linalg.det(x)


@op(
    "ArgMax",
    since=(1, 11, 12, 13),
    traits=dataclasses.replace(_ALONG_AXIS, reach=reach.ranked(reach.along(0))),
    cost=_reduction_cost,
)
def arg_max(data: Array, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Array:
    """Return where the largest element stands along ``axis``, the first one unless told."""
    return _arg(jnp.argmax, data, axis, bool(keepdims), bool(select_last_index))


@op("ArgMin", since=(1, 11, 12, 13), traits=_ALONG_AXIS, cost=_reduction_cost)
def arg_min(data: Array, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Array:
    """Return where the smallest element stands along ``axis``, the first one unless told."""
    return _arg(jnp.argmin, data, axis, bool(keepdims), bool(select_last_index))


def _arg(find: Callable[..., Array], data: Array, axis: int, keepdims: bool, last: bool) -> Array:
    if not last:
        return to_index(find(data, axis=axis, keepdims=keepdims))
    from_end = find(jnp.flip(data, axis), axis=axis, keepdims=keepdims)
    return to_index(data.shape[axis] - 1 - from_end)


@op(
    "CumSum",
    since=(11, 14),
    static=("axis",),
    traits=_ALONG_AXIS,
    cost=_reduction_cost,
)
def cum_sum(x: Array, axis: np.ndarray, *, exclusive: int = 0, reverse: int = 0) -> Array:
    """Sum up to each position along ``axis``, from the end if ``reverse``."""
    return _cumulate(lax.cumsum, 0, x, axis, exclusive=bool(exclusive), reverse=bool(reverse))


@op(
    "CumProd",
    since=(26,),
    static=("axis",),
    traits=_ALONG_AXIS,
    cost=_reduction_cost,
)
def cum_prod(x: Array, axis: np.ndarray, *, exclusive: int = 0, reverse: int = 0) -> Array:
    """Multiply up to each position along ``axis``, from the end if ``reverse``."""
    return _cumulate(lax.cumprod, 1, x, axis, exclusive=bool(exclusive), reverse=bool(reverse))


def _cumulate(
    function: Callable[..., Array],
    neutral: int,
    x: Array,
    axis: np.ndarray,
    *,
    exclusive: bool,
    reverse: bool,
) -> Array:
    along = int(axis.item()) % x.ndim
    if exclusive:  # shift by one, so that each position sees only those before it
        edges = [(0, 0, 0)] * x.ndim
        edges[along] = (-1, 1, 0) if reverse else (1, -1, 0)
        x = lax.pad(x, np.asarray(neutral, x.dtype), edges)
    return function(x, axis=along, reverse=reverse)


_TOP = dataclasses.replace(
    _ALONG_AXIS,
    reach=dataclasses.replace(
        reach.LARGEST,
        interval=lambda asked: (
            reach.LARGEST if asked.attributes.get("largest", 1) else reach.SMALLEST
        ).interval(asked),
    ),
)


@op("TopK", since=(1,), traits=_TOP, cost=_reduction_cost)
def top_k_1(x: Array, *, axis: int = -1, k: int) -> tuple[Array, Array]:
    """Return the ``k`` largest elements and where they stand; in opset 9 ``k`` is an attribute."""
    return top_k(x, np.asarray(k), axis=axis)


@op(
    "TopK",
    since=(10, 11, 24),
    static=("k",),
    traits=_TOP,
    cost=_reduction_cost,
)
def top_k(
    x: Array, k: np.ndarray, *, axis: int = -1, largest: int = 1, sorted: int = 1
) -> tuple[Array, Array]:
    """Return the ``k`` first elements in order and where they stand; ties in order of position."""
    del sorted  # any order is right where none is asked for
    count = int(k.item())
    rows = jnp.moveaxis(x, axis, -1)
    if largest:
        # To `lax.top_k` 0 is larger than -0: a tie as any other.
        _, indices = lax.top_k(jnp.where(rows == 0, jnp.zeros_like(rows), rows), count)
    else:
        indices = jnp.argsort(rows, axis=-1, stable=True)[..., :count]
    values = jnp.take_along_axis(rows, indices, axis=-1)
    return jnp.moveaxis(values, -1, axis), to_index(jnp.moveaxis(indices, -1, axis))
