"""Poolings that select: maxima over windows or over all positions, and their undoing."""

from __future__ import annotations

import functools
import math

import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax import Array, lax

from jptq.ops import windows
from jptq.ops.integers import to_index
from jptq.ops.reach import LARGEST
from jptq.ops.registry import lowering, op
from jptq.ops.traits import Ints, Traits


def _lowest(dtype: np.dtype) -> np.ndarray:
    """Return the neutral element of the maximum."""
    if jnp.issubdtype(dtype, jnp.floating):
        return np.array(-np.inf, dtype)
    return np.array(ml_dtypes.iinfo(dtype).min, dtype)


def _max_over_windows(
    x: Array,
    axes: range,
    kernel: Ints,
    strides: Ints,
    dilations: Ints,
    pads: windows.Pads,
) -> Array:
    """Return window maxima.

    Dilated windows are maxima of shifted slices, axis by axis, because the gradient of XLA's
    window maximum does not know dilations.
    """
    x, pads = windows.cropped(x, axes, pads)
    if max(dilations, default=1) == 1:
        return lax.reduce_window(
            x,
            _lowest(x.dtype),
            lax.max,
            windows.embed(kernel, axes, x.ndim),
            windows.embed(strides, axes, x.ndim),
            windows.embed_pads(pads, axes, x.ndim),
        )
    padded = lax.pad(
        x, _lowest(x.dtype), [(*ends, 0) for ends in windows.embed_pads(pads, axes, x.ndim)]
    )
    outputs = windows.output_lengths(windows.lengths_of(x, axes), kernel, strides, dilations, pads)
    for axis, taps, stride, dilation, length in zip(
        axes, kernel, strides, dilations, outputs, strict=True
    ):
        slices = [
            lax.slice_in_dim(padded, *_places(tap, dilation, length, stride), axis)
            for tap in range(taps)
        ]
        padded = functools.reduce(jnp.maximum, slices)
    return padded


def _places(tap: int, dilation: int, length: int, stride: int) -> tuple[int, int, int]:
    """Return start, stop and step of what one tap reads in ``length`` windows."""
    if length == 0:
        return 0, 0, 1
    start = tap * dilation
    return start, start + (length - 1) * stride + 1, stride


def _padded(array: np.ndarray, ends: windows.Pads) -> np.ndarray:
    """Pad with zeros; negative numbers crop."""
    inside = tuple(
        slice(max(0, -begin), length - max(0, -end))
        for (begin, end), length in zip(ends, array.shape, strict=True)
    )
    return np.pad(array[inside], [(max(0, begin), max(0, end)) for begin, end in ends])


def _max_indices(
    x: Array,
    kernel: Ints,
    strides: Ints,
    dilations: Ints,
    pads: windows.Pads,
    *,
    column_major: bool,
) -> Array:
    """Return where each window's first maximum lies in the flattened ``[N, C, *spatial]``."""
    axes = windows.spatial(x, channels_last=False)
    lengths = windows.lengths_of(x, axes)
    planes = np.arange(math.prod(x.shape[:2])).reshape(*x.shape[:2], *(1,) * len(axes))
    order = np.arange(math.prod(lengths)).reshape(lengths, order="F" if column_major else "C")
    index = planes * math.prod(lengths) + order
    ends = windows.embed_pads(pads, axes, x.ndim)
    padded = lax.pad(x, _lowest(x.dtype), [(*end, 0) for end in ends])
    padded_index = _padded(index, ends)
    inside = _padded(np.ones(x.shape, bool), ends)
    outputs = windows.output_lengths(lengths, kernel, strides, dilations, pads)

    def tap_slices(tap: Ints) -> tuple[slice, ...]:
        spatial = [
            slice(*_places(t, d, n, s))
            for t, d, n, s in zip(tap, dilations, outputs, strides, strict=True)
        ]
        return slice(None), slice(None), *spatial

    taps = [tap_slices(tap) for tap in np.ndindex(*kernel)]
    candidates = jnp.stack([padded[tap] for tap in taps])
    # A pad never wins, not even against the lowest value of an integer dtype.
    valid = np.stack([inside[tap] for tap in taps])
    best = candidates.max(axis=0, where=valid, initial=_lowest(x.dtype))
    first = jnp.argmax((candidates == best) & valid, axis=0)
    found = jnp.take_along_axis(
        to_index(np.stack([padded_index[tap] for tap in taps])), first[None], axis=0
    )
    return found[0]


@op(
    "MaxPool",
    since=(1, 8, 10, 11, 12, 22),
    traits=Traits.view(look_through=True, reach=LARGEST),
    cost=windows.window_cost,
)
def max_pool(
    x: Array,
    *,
    kernel_shape: Ints,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Ints | None = None,
    pads: Ints | None = None,
    storage_order: int = 0,
    strides: Ints | None = None,
    n_outputs: int = 1,
) -> Array | tuple[Array, Array]:
    """Take the maximum of each window.

    Args:
      x: ``[N, C, *spatial]``.

    Returns:
      ``[N, C, *spatial_out]``; with two outputs also the maxima's places in the flattened input,
      rows first or, for ``storage_order=1``, columns first.

    Source: ONNX operator specification, MaxPool-22.
    """
    axes = windows.spatial(x, channels_last=False)
    ones = (1,) * len(axes)
    strides, dilations = strides or ones, dilations or ones
    resolved = windows.resolve_pads(
        auto_pad,
        pads,
        windows.lengths_of(x, axes),
        kernel_shape,
        strides,
        dilations,
        ceil_mode=bool(ceil_mode),
    )
    y = _max_over_windows(x, axes, kernel_shape, strides, dilations, resolved)
    if n_outputs == 1:
        return y
    return y, _max_indices(
        x, kernel_shape, strides, dilations, resolved, column_major=bool(storage_order)
    )


def _has_one_output(*_: object, n_outputs: int = 1, **__: object) -> bool:
    return n_outputs == 1


@lowering(max_pool, "channels last", when=_has_one_output, channels_last=True)
def max_pool_last(
    x: Array,
    *,
    kernel_shape: Ints,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
    **_: object,
) -> Array:
    """Take the maximum of each window of ``[N, *spatial, C]``."""
    axes = windows.spatial(x, channels_last=True)
    ones = (1,) * len(axes)
    strides, dilations = strides or ones, dilations or ones
    resolved = windows.resolve_pads(
        auto_pad,
        pads,
        windows.lengths_of(x, axes),
        kernel_shape,
        strides,
        dilations,
        ceil_mode=bool(ceil_mode),
    )
    return _max_over_windows(x, axes, kernel_shape, strides, dilations, resolved)


@op(
    "GlobalMaxPool",
    since=(1, 22),
    traits=Traits.view(look_through=True, reach=LARGEST),
    cost=windows.global_cost,
)
def global_max_pool(x: Array) -> Array:
    """Take the maximum over all positions: ``[N, C, *spatial]`` to ``[N, C, 1, ...]``."""
    return x.max(axis=tuple(range(2, x.ndim)), keepdims=True)


@lowering(global_max_pool, "channels last", channels_last=True)
def global_max_pool_last(x: Array) -> Array:
    """Take the maximum over all positions: ``[N, *spatial, C]`` to ``[N, 1, ..., C]``."""
    return x.max(axis=tuple(range(1, x.ndim - 1)), keepdims=True)


@op("MaxUnpool", since=(9, 11, 22), static=("output_shape",), traits=Traits.float_only())
def max_unpool(
    x: Array,
    i: Array,
    output_shape: np.ndarray | None = None,
    *,
    kernel_shape: Ints,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Array:
    """Put each maximum back to its place, with zeros elsewhere.

    Args:
      x: Pooled features, ``[N, C, *spatial]``.
      i: The places, as `max_pool` gives them for the unpadded, inferred output shape.
      output_shape: ``int64[rank]``: a larger output; the values keep their coordinates.

    Source: ONNX operator specification, MaxUnpool-22.
    """
    spatial = x.ndim - 2
    steps, begins_ends = strides or (1,) * spatial, pads or (0,) * (2 * spatial)
    inferred = tuple(
        (n - 1) * stride + taps - begin - end
        for n, stride, taps, begin, end in zip(
            x.shape[2:],
            steps,
            kernel_shape,
            begins_ends[:spatial],
            begins_ends[spatial:],
            strict=True,
        )
    )
    shape = (*x.shape[:2], *inferred)
    y = jnp.zeros(math.prod(shape), x.dtype).at[i.reshape(-1)].set(x.reshape(-1)).reshape(shape)
    if output_shape is None:
        return y
    return jnp.pad(y, [(0, int(n) - m) for n, m in zip(output_shape, shape, strict=True)])
