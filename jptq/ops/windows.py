"""Sliding windows: the one formula for pads, strides, dilations and output lengths.

Convolutions and poolings slide a window over the spatial axes; what differs between ONNX's
attributes (``auto_pad``, ``pads``, ``ceil_mode``) is settled here, on host integers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jax import Array, lax

from jptq.errors import ShapeError
from jptq.ops.traits import Cost, Ints
from jptq.ops.words import choose

Pads = tuple[tuple[int, int], ...]
"""(begin, end) per spatial axis."""


_IS_SAME = {"NOTSET": False, "VALID": False, "SAME_UPPER": True, "SAME_LOWER": True}


def is_same_padded(auto_pad: str) -> bool:
    """Tell whether the output's lengths are to follow from the input's and the strides alone.

    Raises:
      ShapeError: ``auto_pad`` is unknown.
    """
    return choose(_IS_SAME, auto_pad, "auto_pad")


def check_kernel(kernel_shape: Sequence[int] | None, kernel: Sequence[int]) -> None:
    """Refuse an attribute ``kernel_shape`` that is not the shape of the weight's taps.

    Raises:
      ShapeError: They differ.
    """
    if kernel_shape is not None and tuple(kernel_shape) != tuple(kernel):
        raise ShapeError(
            f"kernel_shape is {list(kernel_shape)}", why=f"the weight has taps {list(kernel)}"
        )


def extent(kernel: int, dilation: int) -> int:
    """Return how many positions a dilated kernel covers from its first to its last tap."""
    return (kernel - 1) * dilation + 1


def given_pads(
    auto_pad: str,
    pads: Sequence[int] | None,
    lengths: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> Pads:
    """Return the pads that the attributes ask for, without what `resolve_pads` adds.

    Raises:
      ShapeError: ``auto_pad`` is unknown, or ``pads`` has not two entries per axis.
    """
    rank = len(lengths)
    if is_same_padded(auto_pad):
        resolved = []
        for length, taps, stride, dilation in zip(lengths, kernel, strides, dilations, strict=True):
            outputs = -(-length // stride)
            total = max(0, (outputs - 1) * stride + extent(taps, dilation) - length)
            small, large = total // 2, total - total // 2
            resolved.append((small, large) if auto_pad == "SAME_UPPER" else (large, small))
        return tuple(resolved)
    flat = tuple(pads) if pads and auto_pad != "VALID" else (0,) * (2 * rank)
    if len(flat) != 2 * rank:
        raise ShapeError(
            f"pads has {len(flat)} entries",
            why=f"{rank} spatial axes need {2 * rank}: all begins, then all ends",
        )
    return tuple(zip(flat[:rank], flat[rank:], strict=True))


def resolve_pads(
    auto_pad: str,
    pads: Sequence[int] | None,
    lengths: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    *,
    ceil_mode: bool | None = None,
) -> Pads:
    """Return the pads of each spatial axis.

    Args:
      auto_pad: ``NOTSET``, ``VALID``, ``SAME_UPPER`` or ``SAME_LOWER``.
      pads: All begins, then all ends; used by ``NOTSET`` only, zeros if absent.
      lengths: Input length per spatial axis.
      kernel: Taps per spatial axis.
      strides: Step per spatial axis.
      dilations: Distance between taps per spatial axis.
      ceil_mode: Of poolings; None for operators without it. Add end padding so that a last, partial
        window is counted. With ``VALID`` too: the text of MaxPool-22 gives
        ``ceil((length - span + 1) / stride)``, which is the number of whole windows, but ONNX's
        shape inference and onnxruntime count the partial one. Files carry shapes by inference, so
        it decides. For the same reason a pooling whose only window is less than one stride too
        long has one output, as inference divides towards zero, though the text rounds down.

    Returns:
      ``(begin, end)`` per axis; windows over the padded length give the output length.

    Raises:
      ShapeError: ``auto_pad`` is unknown, ``pads`` has not two entries per axis, or a window is
        longer than the padded input; that of a pooling by more than a stride.

    Source: ONNX operator specification, Conv-22 and MaxPool-22.
    """
    given = given_pads(auto_pad, pads, lengths, kernel, strides, dilations)
    is_same = is_same_padded(auto_pad)
    resolved = []
    for (begin, end), length, taps, stride, dilation in zip(
        given, lengths, kernel, strides, dilations, strict=True
    ):
        padded = length + begin + end
        lacking = extent(taps, dilation) - padded
        pools = ceil_mode is not None and lacking <= stride
        if lacking > 0 and not pools and not (ceil_mode and lacking < 2 * stride):
            raise ShapeError(
                f"a window of {lacking + padded} positions over an axis of {length}",
                why=f"with its pads the axis has {padded}: no window fits",
                hint="feed a larger input, or make the pads or dilations fit",
            )
        if ceil_mode and not is_same:
            end += _partial(padded, begin + length, taps, stride, dilation)
        elif 0 < lacking < stride:
            end += lacking
        resolved.append((begin, end))
    return tuple(resolved)


def _partial(padded: int, content: int, taps: int, stride: int, dilation: int) -> int:
    """Return the end padding that a last partial window needs; it must not start past the input.

    Negative where explicit pads alone would let a window start past the input.
    """
    span = extent(taps, dilation)
    outputs = -(-(padded - span) // stride) + 1
    if (outputs - 1) * stride >= content:
        outputs -= 1
    return (outputs - 1) * stride + span - padded


def output_lengths(
    lengths: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Pads,
) -> Ints:
    """Return the number of whole windows along each padded spatial axis."""
    return tuple(
        (length + begin + end - extent(taps, dilation)) // stride + 1
        for length, taps, stride, dilation, (begin, end) in zip(
            lengths, kernel, strides, dilations, pads, strict=True
        )
    )


def is_unpadded(auto_pad: str, pads: Sequence[int] | None) -> bool:
    """Tell whether the attributes ask for no padding, whatever the lengths."""
    return auto_pad == "VALID" or (auto_pad == "NOTSET" and not any(pads or ()))


def has_positions(x: Array, *_: object, **__: object) -> bool:
    """Tell whether features have spatial axes, so that channels can be moved behind them."""
    return x.ndim > 2


def window_cost(x: Ints, *rest: Ints, kernel_shape: Ints, **_: object) -> Cost:
    """Count one elementary operation per output and tap."""
    return Cost(vector=math.prod(rest[-1]) * math.prod(kernel_shape))


def global_cost(x: Ints, *_: Ints, **__: object) -> Cost:
    """Count one elementary operation per input value."""
    return Cost(vector=math.prod(x))


def spatial(x: Array, channels_last: bool) -> range:
    """Return the spatial axes of features."""
    return range(1, x.ndim - 1) if channels_last else range(2, x.ndim)


def lengths_of(x: Array, axes: range) -> Ints:
    """Return the lengths of axes."""
    return tuple(x.shape[axis] for axis in axes)


def embed(values: Sequence[int], axes: range, rank: int) -> Ints:
    """Return ``values`` at the spatial axes and ones elsewhere."""
    full = np.ones(rank, int)
    full[list(axes)] = values
    return tuple(full.tolist())


def embed_pads(pads: Pads, axes: range, rank: int) -> Pads:
    """Return ``pads`` at the spatial axes and zeros elsewhere."""
    full = [(0, 0)] * rank
    full[axes.start : axes.stop] = pads
    return tuple(full)


def cropped(x: Array, axes: range, pads: Pads) -> tuple[Array, Pads]:
    """Return features without what negative pads cut off, and the pads that are left.

    JAX has no gradient of a window maximum with negative pads.
    """
    if all(end >= 0 for pair in pads for end in pair):
        return x, pads
    negative = tuple((min(0, begin), min(0, end)) for begin, end in pads)
    ends = [(*pair, 0) for pair in embed_pads(negative, axes, x.ndim)]
    left = tuple((max(0, begin), max(0, end)) for begin, end in pads)
    return lax.pad(x, np.zeros((), x.dtype), ends), left
