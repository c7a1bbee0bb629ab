"""Transposed convolution: each input position spreads its kernel over the output."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array, lax

from jptq.ops import windows
from jptq.ops.convolution import (
    MOST_TAPS,
    add_bias,
    last_dimension_numbers,
    pad_spatial,
    shift_and_add,
)
from jptq.ops.registry import lowering, op
from jptq.ops.sliding import convolve
from jptq.ops.traits import Cost, Ints, Traits


def _spread_pads(
    lengths: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    *,
    auto_pad: str,
    output_padding: Ints | None,
    output_shape: Ints | None,
    pads: Ints | None,
) -> windows.Pads:
    """Return the pads of the plain convolution that runs over the spread-out input.

    ``SAME`` asks for the input's lengths times the strides. Where kernels smaller than the stride
    do not reach that far the result ends with the last kernel, as in ONNX's shape inference and
    onnxruntime. An explicit ``output_shape`` beyond the kernels adds zeros at the end.

    Source: ONNX operator specification, ConvTranspose-22, the formulas of ``output_shape``.
    """
    rank = len(lengths)
    extra = output_padding or (0,) * rank
    spans = [
        windows.extent(taps, dilation) for taps, dilation in zip(kernel, dilations, strict=True)
    ]
    full = [
        stride * (length - 1) + more + span
        for stride, length, more, span in zip(strides, lengths, extra, spans, strict=True)
    ]
    if output_shape is not None:
        totals = [most - out for most, out in zip(full, output_shape[-rank:], strict=True)]
    elif windows.is_same_padded(auto_pad):
        totals = [
            max(0, most - length * stride)
            for most, length, stride in zip(full, lengths, strides, strict=True)
        ]
    else:
        totals = None
    if totals is None:
        cut = windows.given_pads(auto_pad, pads, lengths, kernel, strides, dilations)
    else:
        begins = [(max(0, total) + (auto_pad != "SAME_UPPER")) // 2 for total in totals]
        cut = tuple((begin, total - begin) for begin, total in zip(begins, totals, strict=True))
    return tuple(
        (span - 1 - begin, span - 1 - end + more)
        for span, (begin, end), more in zip(spans, cut, extra, strict=True)
    )


def _conv_transpose_cost(x: Ints, w: Ints, *_: Ints, **__: object) -> Cost:
    """Count one product per input, output channel of its group, and tap."""
    return Cost(macs=math.prod(x) * math.prod(w[1:]))


@op(
    "ConvTranspose",
    since=(1, 11, 22),
    traits=Traits.compute(features=(0,), weights={1: 1}, exact=(2,)),
    cost=_conv_transpose_cost,
)
def conv_transpose(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    output_padding: Ints | None = None,
    output_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Array:
    """Convolve with the input spread out by the strides.

    Args:
      x: Features, ``[N, C, *spatial]``.
      w: Kernel, ``[C, M / group, *kernel]``.
      b: Bias, ``[M]``.

    Returns:
      ``[N, M, *spatial_out]`` in the dtype of ``x``.

    Source: ONNX operator specification, ConvTranspose-22.
    """
    windows.check_kernel(kernel_shape, w.shape[2:])
    rank = x.ndim - 2
    ones = (1,) * rank
    strides, dilations = strides or ones, dilations or ones
    padding = _spread_pads(
        x.shape[2:],
        w.shape[2:],
        strides,
        dilations,
        auto_pad=auto_pad,
        output_padding=output_padding,
        output_shape=output_shape,
        pads=pads,
    )
    kernel = w.shape[2:]
    grouped = w.reshape(group, w.shape[0] // group, w.shape[1], *kernel).swapaxes(1, 2)
    y = convolve(
        x,
        jnp.flip(grouped.reshape(-1, w.shape[0] // group, *kernel), range(2, rank + 2)),
        strides=ones,
        padding=padding,
        dilations=dilations,
        spread=strides,
        groups=group,
    )
    return y if b is None else y + b.reshape(-1, *ones)


def to_in_taps_out(w: Array) -> Array:
    """Reorder a kernel ``[I, O, *kernel]`` to ``[I, *kernel, O]``."""
    return jnp.moveaxis(w, 1, -1)


def to_flipped_taps_in_out(w: Array) -> Array:
    """Reorder a kernel ``[I, O, *kernel]`` to ``[*kernel, I, O]``, last tap first."""
    rank = w.ndim - 2
    return jnp.flip(jnp.moveaxis(w, (0, 1), (-2, -1)), range(rank))


def to_flipped_taps_channels(w: Array) -> Array:
    """Reorder a depthwise kernel ``[C, M / C, *kernel]`` to ``[*kernel, M]``, last tap first."""
    flat = jnp.moveaxis(w.reshape(-1, *w.shape[2:]), 0, -1)
    return jnp.flip(flat, range(flat.ndim - 1))


def _is_tiling(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    output_padding: Ints | None = None,
    output_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
    **_: object,
) -> bool:
    """Tell whether the spread kernels lie side by side without gap, overlap or cut."""
    kernel = tuple(w.shape[2:])
    return (
        group == 1
        and kernel == (strides or (1,) * len(kernel))
        and max(dilations or (1,)) == 1
        and windows.is_unpadded(auto_pad, pads)
        and not any(output_padding or ())
        and output_shape is None
    )


@lowering(
    conv_transpose,
    "tiling",
    platform="cpu",
    when=_is_tiling,
    channels_last=True,
    pack={1: to_in_taps_out},
)
def conv_transpose_tiling(x: Array, w: Array, b: Array | None = None, **_: object) -> Array:
    """Compute one matrix product, then lay each position's block in its place.

    Args:
      x: ``[N, *spatial, C]``.
      w: ``[C, *kernel, M]``.
      b: ``[M]``.

    Returns:
      ``[N, *(spatial * kernel), M]``.
    """
    rank = x.ndim - 2
    blocks = lax.dot_general(x, w, (((x.ndim - 1,), (0,)), ((), ())))
    paired = [axis for i in range(rank) for axis in (1 + i, 1 + rank + i)]
    lengths = [n * k for n, k in zip(x.shape[1:-1], w.shape[1:-1], strict=True)]
    tiled = blocks.transpose(0, *paired, 2 * rank + 1)
    return add_bias(tiled.reshape(x.shape[0], *lengths, w.shape[-1]), b)


def _is_depthwise(
    x: Array, w: Array, b: Array | None = None, *, group: int = 1, **_: object
) -> bool:
    """Tell whether every output channel comes from one input channel by a small kernel."""
    return group > 1 and group == w.shape[0] and math.prod(w.shape[2:]) <= MOST_TAPS


@lowering(
    conv_transpose,
    "depthwise",
    platform="cpu",
    when=_is_depthwise,
    channels_last=True,
    pack={1: to_flipped_taps_channels},
)
def conv_transpose_depthwise(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    output_padding: Ints | None = None,
    output_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Array:
    """Compute a depthwise transposed convolution as a sum of shifted products.

    Args:
      x: ``[N, *spatial, C]``.
      w: ``[*kernel, M]``, flipped.
      b: ``[M]``.

    Returns:
      ``[N, *spatial_out, M]``.
    """
    del kernel_shape  # repeats w.shape[:-1]
    ones = (1,) * (x.ndim - 2)
    strides, dilations = strides or ones, dilations or ones
    padding = _spread_pads(
        x.shape[1:-1],
        w.shape[:-1],
        strides,
        dilations,
        auto_pad=auto_pad,
        output_padding=output_padding,
        output_shape=output_shape,
        pads=pads,
    )
    spread = pad_spatial(x, padding, [stride - 1 for stride in strides])
    return add_bias(shift_and_add(spread, w, ones, dilations, group), b)


def _is_dense(x: Array, w: Array, b: Array | None = None, *, group: int = 1, **_: object) -> bool:
    """Tell whether there is one group."""
    return group == 1


@lowering(
    conv_transpose,
    "dense",
    platform="cpu",
    when=_is_dense,
    channels_last=True,
    pack={1: to_flipped_taps_in_out},
)
def conv_transpose_dense(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    output_padding: Ints | None = None,
    output_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Array:
    """Compute a transposed convolution channels-last.

    Args:
      x: ``[N, *spatial, C]``.
      w: ``[*kernel, C, M]``, flipped.
      b: ``[M]``.

    Returns:
      ``[N, *spatial_out, M]``.
    """
    del kernel_shape, group  # repeats w.shape[:-2]; is one
    ones = (1,) * (x.ndim - 2)
    strides, dilations = strides or ones, dilations or ones
    padding = _spread_pads(
        x.shape[1:-1],
        w.shape[:-2],
        strides,
        dilations,
        auto_pad=auto_pad,
        output_padding=output_padding,
        output_shape=output_shape,
        pads=pads,
    )
    y = convolve(
        x,
        w,
        strides=ones,
        padding=padding,
        dilations=dilations,
        spread=strides,
        numbers=last_dimension_numbers(x.ndim),
    )
    return add_bias(y, b)
