"""Operators that make tensors from attributes, shapes and host values.

What they return is known while tracing, so most of them return NumPy arrays.
Source of every function here: ONNX operator specification, the version last in ``since``.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jax import Array

from jptq.errors import ModelError, ShapeError
from jptq.ops.cast import element_type
from jptq.ops.registry import op
from jptq.ops.traits import Ints, Layout, Traits


@op("Constant", since=(1, 9, 11, 12, 13, 19, 21, 23, 24, 25), traits=Traits.shape_only())
def constant(
    *,
    value: np.ndarray | None = None,
    sparse_value: np.ndarray | None = None,
    value_float: float | None = None,
    value_floats: tuple[float, ...] | None = None,
    value_int: int | None = None,
    value_ints: Ints | None = None,
    value_string: str | None = None,
    value_strings: tuple[str, ...] | None = None,
) -> np.ndarray:
    """Return the one attribute that is given."""
    del sparse_value  # a file that has one is refused when it is loaded
    given: tuple[tuple[object, type | None], ...] = (
        (value, None),
        (value_float, np.float32),
        (value_floats, np.float32),
        (value_int, np.int64),
        (value_ints, np.int64),
        (value_string, np.object_),
        (value_strings, np.object_),
    )
    for content, dtype in given:
        if content is not None:
            return np.asarray(content, dtype)
    raise ModelError("Constant has no value")


@op("ConstantOfShape", since=(9, 20, 21, 23, 24, 25), static=("input",), traits=Traits.shape_only())
def constant_of_shape(input: np.ndarray, *, value: np.ndarray | None = None) -> np.ndarray:
    """Repeat the one element of ``value`` (``float32`` zero if absent) in shape ``input``."""
    element = np.zeros(1, np.float32) if value is None else np.asarray(value)
    return np.broadcast_to(element.reshape(()), tuple(input.tolist()))


_MOST_STEPS = 2**29
"""Of a Range, which is computed while tracing."""


@op("Range", since=(11, 27), static=("start", "limit", "delta"), traits=Traits.shape_only())
def arange(
    start: np.ndarray, limit: np.ndarray, delta: np.ndarray, *, stash_type: int = 1
) -> np.ndarray:
    """Count from ``start`` to before ``limit`` by ``delta``; all three are scalars."""
    dtype = start.dtype
    first, last, step = (np.asarray(bound).item() for bound in (start, limit, delta))
    count = max(math.ceil((last - first) / step), 0)
    if count > _MOST_STEPS:
        raise ShapeError(f"its result has {count} elements", why=f"its shape is ({count},)")
    is_narrow = jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4
    wide = element_type(stash_type) if is_narrow else dtype
    return (np.arange(count).astype(wide) * wide.type(step) + wide.type(first)).astype(dtype)


@op("EyeLike", since=(9, 22), traits=Traits.shape_only())
def eye_like(input: Array, *, dtype: int | None = None, k: int = 0) -> np.ndarray:
    """Return ones on the ``k``-th diagonal of a matrix in the shape of ``input``."""
    kind = np.dtype(input.dtype) if dtype is None else element_type(dtype)
    rows, columns = input.shape
    return np.eye(rows, columns, k).astype(kind)


@op("Shape", since=(1, 13, 15, 19, 21, 23, 24, 25), traits=Traits.shape_only())
def shape(data: Array, *, start: int = 0, end: int | None = None) -> np.ndarray:
    """Return the lengths of the axes ``start`` to before ``end`` as ``int64``."""
    return np.asarray(data.shape[start:end], np.int64)


@op("Size", since=(1, 13, 19, 21, 23, 24, 25), traits=Traits.shape_only())
def size(data: Array) -> np.ndarray:
    """Return the number of elements as an ``int64`` scalar."""
    return np.asarray(math.prod(data.shape), np.int64)


@op(
    "Identity",
    since=(1, 13, 14, 16, 19, 21, 23, 24, 25),
    traits=Traits.view(layout=Layout.ELEMENTWISE),
)
def identity(
    input: Array | tuple[Array, ...] | None,
) -> Array | tuple[Array | tuple[Array, ...] | None]:
    """Return the input, be it a tensor, a sequence or an optional."""
    return (input,) if input is None or isinstance(input, tuple) else input


@op("NonZero", since=(9, 13), static=("x",), traits=Traits.shape_only())
def non_zero(x: np.ndarray) -> np.ndarray:
    """Return where ``x`` is not zero, ``int64[rank, N]``; N depends on the values of ``x``."""
    return np.argwhere(x).T.astype(np.int64)


@op("OneHot", since=(9, 11, 28), static=("depth",), traits=Traits.shape_only())
def one_hot(indices: Array, depth: np.ndarray, values: Array, *, axis: int = -1) -> Array:
    """Write ``values[1]`` at each index along a new axis, ``values[0]`` elsewhere.

    Args:
      indices: Whole numbers of any dtype in ``[-depth, depth)``; others give no mark.
      depth: Length of the new axis, one element.
      values: ``[off, on]``.
      axis: Of the result, where the new axis stands.

    Returns:
      One axis more than ``indices``, in the dtype of ``values``.
    """
    length = int(depth.item())
    position = axis % (indices.ndim + 1)
    places = jnp.arange(length).astype(indices.dtype)
    places = places.reshape((-1,) + (1,) * (indices.ndim - position))
    wrapped = jnp.where(indices < 0, indices + length, indices)
    return jnp.where(jnp.expand_dims(wrapped, position) == places, values[1], values[0])
