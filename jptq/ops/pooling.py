"""Poolings that compute: means and norms over windows or over all positions."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jptq.ops import slopes, windows
from jptq.ops.precision import widened
from jptq.ops.registry import lowering, op
from jptq.ops.traits import Ints, Traits


def _sum_over_windows(
    x: Array,
    axes: range,
    kernel: Ints,
    strides: Ints,
    dilations: Ints,
    pads: windows.Pads,
) -> Array:
    """Return window sums, at least float32."""
    wide, pads = windows.cropped(widened(x), axes, pads)
    return lax.reduce_window(
        wide,
        np.zeros((), wide.dtype),
        lax.add,
        windows.embed(kernel, axes, x.ndim),
        windows.embed(strides, axes, x.ndim),
        windows.embed_pads(pads, axes, x.ndim),
        window_dilation=windows.embed(dilations, axes, x.ndim),
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
    lengths = windows.lengths_of(x, axes)
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
    shape = windows.embed(counts.shape, axes, x.ndim)
    sums = _sum_over_windows(x, axes, kernel_shape, strides, dilations, whole)
    return (sums / counts.reshape(shape).astype(sums.dtype)).astype(x.dtype)


@op(
    "AveragePool",
    since=(1, 7, 10, 11, 19, 22),
    traits=Traits.compute(features=(0,)),
    cost=windows.window_cost,
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
        windows.spatial(x, channels_last=False),
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
        windows.spatial(x, channels_last=True),
        kernel_shape=kernel_shape,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        dilations=dilations,
        pads=pads,
        strides=strides,
    )


@op(
    "LpPool",
    since=(1, 2, 11, 18, 22),
    traits=Traits.compute(features=(0,)),
    cost=windows.window_cost,
)
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
    powers = slopes.power(jnp.abs(widened(x)), p)
    sums = _sum_over_windows(powers, axes, kernel_shape, strides, dilations, resolved)
    return slopes.power(sums, 1 / p).astype(x.dtype)


@op(
    "GlobalAveragePool",
    since=(1, 22),
    traits=Traits.compute(features=(0,)),
    cost=windows.global_cost,
)
def global_average_pool(x: Array) -> Array:
    """Take the mean over all positions: ``[N, C, *spatial]`` to ``[N, C, 1, ...]``."""
    return x.mean(axis=tuple(range(2, x.ndim)), keepdims=True)


@lowering(global_average_pool, "channels last", channels_last=True)
def global_average_pool_last(x: Array) -> Array:
    """Take the mean over all positions: ``[N, *spatial, C]`` to ``[N, 1, ..., C]``."""
    return x.mean(axis=tuple(range(1, x.ndim - 1)), keepdims=True)


@op(
    "GlobalLpPool", since=(1, 2, 22), traits=Traits.compute(features=(0,)), cost=windows.global_cost
)
def global_lp_pool(x: Array, *, p: float = 2) -> Array:
    """Take the p-norm over all positions: ``[N, C, *spatial]`` to ``[N, C, 1, ...]``."""
    powers = slopes.power(jnp.abs(widened(x)), p)
    sums = powers.sum(axis=tuple(range(2, x.ndim)), keepdims=True)
    return slopes.power(sums, 1 / p).astype(x.dtype)
