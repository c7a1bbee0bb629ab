"""Selecting elements by position, and writing them.

A negative index counts from the end. Which index is out of range is only known when running: it is
clamped when reading and ignored when writing, where ONNX leaves the result undefined.
Source of every function here: ONNX operator specification, the version last in ``since``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jptq.ops.intervals import ALL
from jptq.ops.reach import MOVES
from jptq.ops.registry import op
from jptq.ops.traits import Ints, Traits
from jptq.ops.words import choose

_FOLLOWED = Traits.view(look_through=True)

_WRITES = dataclasses.replace(
    MOVES,
    interval=lambda asked: (
        asked.output if asked.attributes.get("reduction", "none") == "none" else ALL
    ),
    told="as the readers, unless it reduces",
    inputs=(0, 2),
)
_WRITTEN = Traits.view(reach=_WRITES)


@op("Gather", since=(1, 11, 13), traits=_FOLLOWED)
def gather(data: Array, indices: Array, *, axis: int = 0) -> Array:
    """Replace ``axis`` of ``data`` by the axes of ``indices``, which choose along it."""
    return jnp.take(data, _wrap(indices, data.shape[axis]), axis, mode="clip")


@op("GatherElements", since=(11, 13), traits=Traits.view())
def gather_elements(data: Array, indices: Array, *, axis: int = 0) -> Array:
    """Choose one element along ``axis`` per element of ``indices``, at its other coordinates."""
    places = _places(indices, axis % data.ndim)
    return jnp.asarray(data).at[places].get(mode="clip")


@op("GatherND", since=(11, 12, 13), traits=Traits.view())
def gather_nd(data: Array, indices: Array, *, batch_dims: int = 0) -> Array:
    """Choose slices of ``data`` by the coordinates in the last axis of ``indices``.

    Args:
      data: ``[*batch, *axes]``.
      indices: ``[*batch, *chosen, K]``: K coordinates, of the first K of ``axes``.
      batch_dims: Number of leading axes that the two share.

    Returns:
      ``[*batch, *chosen, *axes[K:]]``.
    """
    choose: Callable[[Array, Array], Array] = _at_coordinates
    for _ in range(batch_dims):
        choose = jax.vmap(choose)
    return choose(jnp.asarray(data), jnp.asarray(indices))


def _at_coordinates(data: Array, indices: Array) -> Array:
    return data.at[tuple(jnp.moveaxis(indices, -1, 0))].get(mode="clip")


def _wrap(indices: Array, length: int) -> Array:
    return jnp.where(indices < 0, indices + length, indices)


def _places(indices: Array, axis: int) -> tuple[Array, ...]:
    """Return coordinates of each element of ``indices``, its value in place of that of ``axis``."""
    return tuple(
        jnp.asarray(indices)
        if position == axis
        else lax.broadcasted_iota(indices.dtype, indices.shape, position)
        for position in range(indices.ndim)
    )


@op("Slice", since=(1,), traits=_FOLLOWED)
def slice_1(data: Array, *, axes: Ints | None = None, ends: Ints, starts: Ints) -> Array:
    """Cut ranges out of axes; in opset 9 the bounds are attributes."""
    chosen = range(len(starts)) if axes is None else axes
    return cut(data, zip(chosen, starts, ends, (1,) * len(starts), strict=True))


@op(
    "Slice",
    since=(10, 11, 13),
    static=("starts", "ends", "axes", "steps"),
    traits=_FOLLOWED,
)
def slice_(
    data: Array,
    starts: np.ndarray,
    ends: np.ndarray,
    axes: np.ndarray | None = None,
    steps: np.ndarray | None = None,
) -> Array:
    """Cut ranges out of axes.

    Args:
      data: Any shape.
      starts: First position per range.
      ends: Position after the last, not included; beyond the axis it is clamped.
      axes: Axis of each range; the first ones if absent.
      steps: Distance between positions, negative to go backwards; one if absent.

    Returns:
      ``data`` with the chosen positions only.
    """
    chosen = range(starts.size) if axes is None else axes.tolist()
    strides = [1] * starts.size if steps is None else steps.tolist()
    return cut(data, zip(chosen, starts.tolist(), ends.tolist(), strides, strict=True))


def cut(data: Array, ranges: Iterable[tuple[int, int, int, int]]) -> Array:
    """Keep of each named axis the positions from ``start`` to before ``end``, by ``step``.

    A negative bound counts from the end, and bounds beyond the axis are clamped: a start to its
    first or last position, where Python would keep nothing of an axis that is left backwards.

    Args:
      data: Any shape.
      ranges: ``(axis, start, end, step)``; each axis at most once.

    Returns:
      A strided slice, reversed along the axes with a negative step.

    Source: ONNX operator specification, Slice-13.
    """
    starts, ends, strides = [0] * data.ndim, list(data.shape), [1] * data.ndim
    backwards = []
    for axis, start, end, step in ranges:
        axis %= data.ndim
        if step < 0:
            start = max(start, -data.shape[axis])
        kept = range(data.shape[axis])[start:end:step]
        if step < 0:
            kept = kept[::-1]
            backwards.append(axis)
        starts[axis], ends[axis] = (kept[0], kept[-1] + 1) if kept else (0, 0)
        strides[axis] = kept.step
    return lax.rev(lax.slice(data, starts, ends, strides), backwards)


@op("Scatter", since=(9,), traits=_WRITTEN)
def scatter_9(data: Array, indices: Array, updates: Array, *, axis: int = 0) -> Array:
    """Older name of ScatterElements."""
    return scatter_elements(data, indices, updates, axis=axis)


@op("Scatter", since=(11,), traits=_WRITTEN)
def scatter(data: Array, indices: Array, updates: Array, *, axis: int = 0) -> Array:
    """Deprecated name of ScatterElements."""
    return scatter_elements(data, indices, updates, axis=axis)


@op("ScatterElements", since=(11, 13, 16, 18), traits=_WRITTEN)
def scatter_elements(
    data: Array, indices: Array, updates: Array, *, axis: int = 0, reduction: str = "none"
) -> Array:
    """Write each update at its own coordinates, its index in place of that of ``axis``."""
    return _write(data, _places(indices, axis % data.ndim), updates, reduction)


@op(
    "ScatterND",
    since=(11, 13, 16, 18),
    traits=Traits.view(look_through=True, reach=_WRITES),
)
def scatter_nd(data: Array, indices: Array, updates: Array, *, reduction: str = "none") -> Array:
    """Write slices at the coordinates in the last axis of ``indices``.

    Args:
      data: Any shape.
      indices: ``[*chosen, K]``: K coordinates, of the first K axes of ``data``.
      updates: ``[*chosen, *data.shape[K:]]``.
      reduction: How an update meets what stands there: "none" replaces it.

    Returns:
      ``data`` with the updates.
    """
    places = tuple(jnp.moveaxis(jnp.asarray(indices), -1, 0))
    return _write(data, places, updates, reduction)


def _write(data: Array, places: Sequence[Array], updates: Array, reduction: str) -> Array:
    target = jnp.asarray(data).at[tuple(places)]
    writers: dict[str, Callable[[Array], Array]] = {
        "none": target.set,
        "add": target.add,
        "mul": target.multiply,
        "max": target.max,
        "min": target.min,
    }
    return choose(writers, reduction, "reduction")(updates)


@op(
    "TensorScatter",
    since=(24,),
    traits=Traits.view(reach=dataclasses.replace(MOVES, inputs=(0, 1))),
)
def tensor_scatter(
    past_cache: Array,
    update: Array,
    write_indices: Array | None = None,
    *,
    axis: int = -2,
    mode: str = "linear",
) -> Array:
    """Write a stretch of a sequence into a cache, at a position per sample.

    Args:
      past_cache: ``[N, ..., length, ...]``, the sequence at ``axis``.
      update: The same but for a shorter sequence.
      write_indices: First position per sample, ``[N]``; zero if absent.
      axis: Of the sequence, not the first.
      mode: "circular" wraps positions around the end of the cache.

    Returns:
      The cache with the update.
    """
    along = axis % past_cache.ndim - 1
    length = past_cache.shape[axis]
    wraps = choose({"linear": False, "circular": True}, mode, "mode")

    def write(cache: Array, update: Array, first: Array) -> Array:
        steps = jnp.arange(update.shape[along]).astype(first.dtype) + first
        places = steps % length if wraps else steps
        rows = jnp.moveaxis(cache, along, 0).at[places].set(jnp.moveaxis(update, along, 0))
        return jnp.moveaxis(rows, 0, along)

    if write_indices is None:
        write_indices = jnp.zeros(past_cache.shape[0], jnp.int32)
    return jax.vmap(write)(past_cache, update, write_indices)


@op("Compress", since=(9, 11, 28), static=("condition",), traits=Traits.view())
def compress(input: Array, condition: np.ndarray, *, axis: int | None = None) -> Array:
    """Keep the positions where ``condition`` holds; of the flattened input without ``axis``."""
    data = input.reshape(-1) if axis is None else input
    return jnp.take(data, np.flatnonzero(condition), 0 if axis is None else axis)


@op("Trilu", since=(14,), static=("k",), traits=Traits.view())
def trilu(input: Array, k: np.ndarray | None = None, *, upper: int = 1) -> Array:
    """Keep one triangle of the last two axes, from the ``k``-th diagonal on; zeros elsewhere."""
    diagonal = 0 if k is None else int(k.item())
    return jnp.triu(input, diagonal) if upper else jnp.tril(input, diagonal)


@op("ReverseSequence", since=(10, 28), traits=Traits.view())
def reverse_sequence(
    input: Array, sequence_lens: Array, *, batch_axis: int = 1, time_axis: int = 0
) -> Array:
    """Reverse the first ``sequence_lens[i]`` steps of sample ``i``; leave the others in place."""
    rows = jnp.moveaxis(input, (batch_axis, time_axis), (0, 1))
    steps = jnp.arange(rows.shape[1]).astype(sequence_lens.dtype)
    lengths = sequence_lens[:, None]
    sources = jnp.where(steps < lengths, lengths - 1 - steps, steps)
    reversed_rows = jax.vmap(lambda row, source: jnp.take(row, source, 0))(rows, sources)
    return jnp.moveaxis(reversed_rows, (0, 1), (batch_axis, time_axis))
