"""Poolings: maxima, means and norms over windows or over all positions.

Over 400 lines: one family of ten operators whose windows, pads and lowerings are shared.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax import Array, lax

from jptq.ops import slopes, windows
from jptq.ops.integers import to_index
from jptq.ops.precision import widened
from jptq.ops.registry import lowering, op
from jptq.ops.traits import Cost, Ints, Traits


def _window_cost(x: Ints, *rest: Ints, kernel_shape: Ints, **_: object) -> Cost:
    """Count one elementary operation per output and tap."""
    return Cost(vector=math.prod(rest[-1]) * math.prod(kernel_shape))


def _global_cost(x: Ints, *_: Ints, **__: object) -> Cost:
    """Count one elementary operation per input value."""
    return Cost(vector=math.prod(x))


def _spatial(x: Array, channels_last: bool) -> range:
    """Return the spatial axes of features."""
    return range(1, x.ndim - 1) if channels_last else range(2, x.ndim)


def _lengths(x: Array, axes: range) -> Ints:
    return tuple(x.shape[axis] for axis in axes)


def _embed(values: Sequence[int], axes: range, rank: int) -> Ints:
    """Return ``values`` at the spatial axes and ones elsewhere."""
    full = np.ones(rank, int)
    full[list(axes)] = values
    return tuple(full.tolist())


def _embed_pads(pads: windows.Pads, axes: range, rank: int) -> windows.Pads:
    full = [(0, 0)] * rank
    full[axes.start : axes.stop] = pads
    return tuple(full)


def _lowest(dtype: np.dtype) -> np.ndarray:
    """Return the neutral element of the maximum."""
    if jnp.issubdtype(dtype, jnp.floating):
        return np.array(-np.inf, dtype)
    return np.array(ml_dtypes.iinfo(dtype).min, dtype)


def _cropped(x: Array, axes: range, pads: windows.Pads) -> tuple[Array, windows.Pads]:
    """Return features without what negative pads cut off, and the pads that are left.

    JAX has no gradient of a window maximum with negative pads.
    """
    if all(end >= 0 for pair in pads for end in pair):
        return x, pads
    negative = tuple((min(0, begin), min(0, end)) for begin, end in pads)
    ends = [(*pair, 0) for pair in _embed_pads(negative, axes, x.ndim)]
    left = tuple((max(0, begin), max(0, end)) for begin, end in pads)
    return lax.pad(x, np.zeros((), x.dtype), ends), left


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
    x, pads = _cropped(x, axes, pads)
    if max(dilations, default=1) == 1:
        return lax.reduce_window(
            x,
            _lowest(x.dtype),
            lax.max,
            _embed(kernel, axes, x.ndim),
            _embed(strides, axes, x.ndim),
            _embed_pads(pads, axes, x.ndim),
        )
    padded = lax.pad(x, _lowest(x.dtype), [(*ends, 0) for ends in _embed_pads(pads, axes, x.ndim)])
    outputs = windows.output_lengths(_lengths(x, axes), kernel, strides, dilations, pads)
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
    axes = _spatial(x, channels_last=False)
    lengths = _lengths(x, axes)
    planes = np.arange(math.prod(x.shape[:2])).reshape(*x.shape[:2], *(1,) * len(axes))
    order = np.arange(math.prod(lengths)).reshape(lengths, order="F" if column_major else "C")
    index = planes * math.prod(lengths) + order
    ends = _embed_pads(pads, axes, x.ndim)
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
    traits=Traits.view(look_through=True),
    cost=_window_cost,
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
    axes = _spatial(x, channels_last=False)
    ones = (1,) * len(axes)
    strides, dilations = strides or ones, dilations or ones
    resolved = windows.resolve_pads(
        auto_pad,
        pads,
        _lengths(x, axes),
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
    axes = _spatial(x, channels_last=True)
    ones = (1,) * len(axes)
    strides, dilations = strides or ones, dilations or ones
    resolved = windows.resolve_pads(
        auto_pad,
        pads,
        _lengths(x, axes),
        kernel_shape,
        strides,
        dilations,
        ceil_mode=bool(ceil_mode),
    )
    return _max_over_windows(x, axes, kernel_shape, strides, dilations, resolved)


def _sum_over_windows(
    x: Array,
    axes: range,
    kernel: Ints,
    strides: Ints,
    dilations: Ints,
    pads: windows.Pads,
) -> Array:
    """Return window sums, at least float32."""
    wide, pads = _cropped(widened(x), axes, pads)
    return lax.reduce_window(
        wide,
        np.zeros((), wide.dtype),
        lax.add,
        _embed(kernel, axes, x.ndim),
        _embed(strides, axes, x.ndim),
        _embed_pads(pads, axes, x.ndim),
        window_dilation=_embed(dilations, axes, x.ndim),
    )


def _counts(
    length: int,
    pads: tuple[int, int],
    whole: tuple[int, int],
    taps: int,
    stride: int,
    dilation: int,
) -> np.ndarray:
    """Return how many taps of each window fall on the input or the pads that count."""
    begin, end = whole
    outputs = (length + begin + end - windows.extent(taps, dilation)) // stride + 1
    places = np.arange(outputs)[:, None] * stride + np.arange(taps) * dilation - begin
    return ((places >= -pads[0]) & (places < length + pads[1])).sum(axis=1)


def _average(
    x: Array,
    axes: range,
    *,
    kernel_shape: Ints,
    auto_pad: str,
    ceil_mode: int,
    count_include_pad: int,
    dilations: Ints | None,
    pads: Ints | None,
    strides: Ints | None,
) -> Array:
    ones = (1,) * len(axes)
    lengths = _lengths(x, axes)
    strides, dilations = strides or ones, dilations or ones
    explicit = windows.given_pads(auto_pad, pads, lengths, kernel_shape, strides, dilations)
    whole = windows.resolve_pads(
        auto_pad, pads, lengths, kernel_shape, strides, dilations, ceil_mode=bool(ceil_mode)
    )
    # What only ceil_mode adds never counts, even if the pads of the attribute do.
    counted = explicit if count_include_pad else ((0, 0),) * len(axes)
    per_axis = [
        _counts(*window)
        for window in zip(lengths, counted, whole, kernel_shape, strides, dilations, strict=True)
    ]
    counts = functools.reduce(np.multiply.outer, per_axis, np.ones((), int))
    shape = _embed(counts.shape, axes, x.ndim)
    sums = _sum_over_windows(x, axes, kernel_shape, strides, dilations, whole)
    return (sums / counts.reshape(shape).astype(sums.dtype)).astype(x.dtype)


@op(
    "AveragePool",
    since=(1, 7, 10, 11, 19, 22),
    traits=Traits.compute(features=(0,)),
    cost=_window_cost,
)
def average_pool(
    x: Array,
    *,
    kernel_shape: Ints,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Array:
    """Take the mean of each window.

    Args:
      x: ``[N, C, *spatial]``.

    Returns:
      ``[N, C, *spatial_out]``.

    Source: ONNX operator specification, AveragePool-22.
    """
    return _average(
        x,
        _spatial(x, channels_last=False),
        kernel_shape=kernel_shape,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        dilations=dilations,
        pads=pads,
        strides=strides,
    )


@lowering(average_pool, "channels last", channels_last=True)
def average_pool_last(
    x: Array,
    *,
    kernel_shape: Ints,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Array:
    """Take the mean of each window of ``[N, *spatial, C]``."""
    return _average(
        x,
        _spatial(x, channels_last=True),
        kernel_shape=kernel_shape,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        dilations=dilations,
        pads=pads,
        strides=strides,
    )


@op("LpPool", since=(1, 2, 11, 18, 22), traits=Traits.compute(features=(0,)), cost=_window_cost)
def lp_pool(
    x: Array,
    *,
    kernel_shape: Ints,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Ints | None = None,
    p: float = 2,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Array:
    """Take the p-norm of each window of ``[N, C, *spatial]``.

    Source: ONNX operator specification, LpPool-22.
    """
    axes = _spatial(x, channels_last=False)
    ones = (1,) * len(axes)
    strides, dilations = strides or ones, dilations or ones
    resolved = windows.resolve_pads(
        auto_pad,
        pads,
        _lengths(x, axes),
        kernel_shape,
        strides,
        dilations,
        ceil_mode=bool(ceil_mode),
    )
    powers = slopes.power(jnp.abs(widened(x)), p)
    sums = _sum_over_windows(powers, axes, kernel_shape, strides, dilations, resolved)
    return slopes.power(sums, 1 / p).astype(x.dtype)


@op(
    "GlobalAveragePool",
    since=(1, 22),
    traits=Traits.compute(features=(0,)),
    cost=_global_cost,
)
def global_average_pool(x: Array) -> Array:
    """Take the mean over all positions: ``[N, C, *spatial]`` to ``[N, C, 1, ...]``."""
    return x.mean(axis=tuple(range(2, x.ndim)), keepdims=True)


@lowering(global_average_pool, "channels last", channels_last=True)
def global_average_pool_last(x: Array) -> Array:
    """Take the mean over all positions: ``[N, *spatial, C]`` to ``[N, 1, ..., C]``."""
    return x.mean(axis=tuple(range(1, x.ndim - 1)), keepdims=True)


@op("GlobalMaxPool", since=(1, 22), traits=Traits.view(look_through=True), cost=_global_cost)
def global_max_pool(x: Array) -> Array:
    """Take the maximum over all positions: ``[N, C, *spatial]`` to ``[N, C, 1, ...]``."""
    return x.max(axis=tuple(range(2, x.ndim)), keepdims=True)


@lowering(global_max_pool, "channels last", channels_last=True)
def global_max_pool_last(x: Array) -> Array:
    """Take the maximum over all positions: ``[N, *spatial, C]`` to ``[N, 1, ..., C]``."""
    return x.max(axis=tuple(range(1, x.ndim - 1)), keepdims=True)


@op("GlobalLpPool", since=(1, 2, 22), traits=Traits.compute(features=(0,)), cost=_global_cost)
def global_lp_pool(x: Array, *, p: float = 2) -> Array:
    """Take the p-norm over all positions: ``[N, C, *spatial]`` to ``[N, C, 1, ...]``."""
    powers = slopes.power(jnp.abs(widened(x)), p)
    sums = powers.sum(axis=tuple(range(2, x.ndim)), keepdims=True)
    return slopes.power(sums, 1 / p).astype(x.dtype)


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
