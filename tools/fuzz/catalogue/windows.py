"""Convolutions and pools: pads, strides, dilations, groups, rounding up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tools.fuzz.builder import FLOAT, Builder, Rejected, Value
from tools.fuzz.catalogue.registry import FLOAT16, FLOAT64, operator

_SPATIAL = (3, 4, 4, 4, 5)
_AUTO = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


def windows(b: Builder, lengths: Sequence[int], *, dilations: bool = True) -> dict[str, Any]:
    """Return kernel, strides, dilations and pads that fit some lengths."""
    draw, rank = b.draw, len(lengths)
    kernel = [draw.integer(1, min(3, length)) for length in lengths]
    found: dict[str, Any] = {"kernel_shape": kernel}
    if draw.chance(0.6):
        found["strides"] = (
            draw.ints(rank, 1, 3) if draw.chance(0.5) else [draw.integer(1, 2)] * rank
        )
    if dilations and draw.chance(0.3):
        found["dilations"] = [
            draw.integer(1, 2) if (k - 1) * 2 < length else 1
            for k, length in zip(kernel, lengths, strict=True)
        ]
    auto = draw.weighted(_AUTO, (6, 1, 1, 1))
    if auto.startswith("SAME") and not _reaches(found, lengths):
        auto = "NOTSET"
    if auto != "NOTSET" or draw.chance(0.1):
        found["auto_pad"] = auto
    if auto == "NOTSET" and draw.chance(0.6):
        reach = [
            min((k - 1) * d, 2)
            for k, d in zip(kernel, found.get("dilations", [1] * rank), strict=True)
        ]
        half = [min(k // 2, r) for k, r in zip(kernel, reach, strict=True)]
        found["pads"] = (
            half * 2 if draw.chance(0.5) else [draw.integer(0, r) for r in (*reach, *reach)]
        )
    return found


def _reaches(given: dict[str, Any], lengths: Sequence[int]) -> bool:
    """Tell whether SAME pads nowhere by less than nothing.

    ONNX does not say what that means: onnxruntime refuses it in a MaxPool, begins an AveragePool
    later and takes it for no pads in a Conv.
    """
    ones = [1] * len(lengths)
    axes = zip(
        lengths,
        given["kernel_shape"],
        given.get("strides", ones),
        given.get("dilations", ones),
        strict=True,
    )
    return all((-(-n // s) - 1) * s + (k - 1) * d + 1 >= n for n, k, s, d in axes)


@operator("Conv", ranks=_SPATIAL, dtypes=(FLOAT, FLOAT, FLOAT, FLOAT, FLOAT64, FLOAT16),
          lengths=(1, 6), weight=8.0)  # fmt: skip
def conv(b: Builder, x: Value) -> Sequence[Value]:
    """Add a convolution: dense, grouped or depthwise."""
    draw, channels = b.draw, x.shape[1]
    group = draw.pick([1, 1, 1, channels, draw.pick([g for g in (1, 2, 3) if channels % g == 0])])
    out = group * draw.integer(1, 3 if group == 1 else 2)
    given = windows(b, x.shape[2:])
    shape = (out, channels // group, *given["kernel_shape"])
    if x.dtype != FLOAT:
        weight = b.constant(draw.array(shape, x.dtype, (-1.0, 1.0)))
    elif draw.chance(0.1):
        weight = b.operand(shape, FLOAT, (-1.0, 1.0))
    else:
        weight = b.weight(shape)
    bias = b.constant(draw.array((out,), x.dtype, (-1.0, 1.0))) if draw.chance(0.6) else None
    if draw.chance(0.3):
        del given["kernel_shape"]
    y = b.node("Conv", x, weight, bias, group=group if draw.chance(0.9) or group > 1 else None,
               **given)  # fmt: skip
    if x.dtype == FLOAT and draw.chance(0.25):
        return b.node(draw.pick(["Relu", "Sigmoid", "LeakyRelu"]), *y)
    return y


@operator("ConvTranspose", ranks=_SPATIAL, lengths=(1, 4), weight=2.5)
def conv_transpose(b: Builder, x: Value) -> Sequence[Value]:
    """Add a transposed convolution."""
    draw, channels, rank = b.draw, x.shape[1], x.rank - 2
    group = draw.pick([1, 1, channels, draw.pick([g for g in (1, 2) if channels % g == 0])])
    out = draw.integer(1, 3)
    kernel = draw.ints(rank, 1, 3)
    strides = draw.ints(rank, 1, 3) if draw.chance(0.7) else [1] * rank
    dilations = draw.ints(rank, 1, 2) if draw.chance(0.2) else [1] * rank
    given: dict[str, Any] = {"kernel_shape": kernel if draw.chance(0.7) else None}
    given["strides"] = strides if max(strides) > 1 or draw.chance(0.3) else None
    given["dilations"] = dilations if max(dilations) > 1 else None
    auto = draw.weighted(_AUTO, (6, 1, 1, 1))
    given["auto_pad"] = auto if auto != "NOTSET" else None
    if auto == "NOTSET" and draw.chance(0.5):
        reach = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
        given["pads"] = [min(draw.integer(0, 2), r) for r in (*reach, *reach)]
    if draw.chance(0.3) and auto == "NOTSET":  # inference and kernels disagree on it under SAME
        given["output_padding"] = [draw.integer(0, max(s - 1, 0)) for s in strides]
    shape = (channels, out, *kernel)
    weight = b.weight(shape) if draw.chance(0.9) else b.operand(shape, FLOAT, (-1.0, 1.0))
    bias = b.weight((out * group,)) if draw.chance(0.6) else None
    return b.node("ConvTranspose", x, weight, bias, group=group, **given)


@operator("MaxPool", "AveragePool", "LpPool", ranks=_SPATIAL, lengths=(1, 7), weight=4.0)
def pool(b: Builder, x: Value) -> Sequence[Value]:
    """Add a pool."""
    op = b.draw.pick(["MaxPool", "MaxPool", "AveragePool", "AveragePool", "LpPool"])
    given = windows(b, x.shape[2:])
    given["ceil_mode"] = b.draw.pick([0, 1, None, None])
    if op == "MaxPool" and b.opset >= 8 and b.draw.chance(0.2) and not b.tame:
        given["storage_order"] = b.draw.pick([0, 1, None])
        return b.node(op, x, outputs=2, **given)
    if op == "AveragePool":
        given["count_include_pad"] = b.draw.pick([0, 1, None])
    if op == "LpPool":
        given["p"] = b.draw.pick([1, 2, 3, None])
    return b.node(op, x, **given)


@operator("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", ranks=_SPATIAL, weight=1.5)
def global_pool(b: Builder, x: Value) -> Sequence[Value]:
    """Add a pool over all places."""
    op = b.draw.pick(["GlobalAveragePool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
    return b.node(op, x, p=b.draw.pick([1, 2, 3, None]))


@operator("MaxUnpool", ranks=(4,), lengths=(4, 6), weight=0.3)
def unpool(b: Builder, x: Value) -> Sequence[Value]:
    """Add a MaxPool and what undoes it."""
    size = b.draw.integer(2, 3)
    if any(length % size for length in x.shape[2:]):  # places count in the tensor they came from
        x = b.operand((*x.shape[:2], 2 * size, size * b.draw.integer(1, 2)))
    given: dict[str, Any] = {"kernel_shape": [size, size], "strides": [size, size]}
    values, places = b.node("MaxPool", x, outputs=2, **given)
    if b.draw.chance(0.5):
        return b.node("MaxUnpool", values, places, b.constant(list(x.shape)), **given)
    return b.node("MaxUnpool", values, places, **given)


@operator("DeformConv", ranks=(4,), lengths=(3, 5), weight=0.3)
def deformable(b: Builder, x: Value) -> Sequence[Value]:
    """Add a convolution that samples at other places."""
    draw, (n, channels, *lengths) = b.draw, x.shape
    kernel = [draw.integer(1, min(2, length)) for length in lengths]
    pad = draw.integer(0, 1)
    out = [length + 2 * pad - k + 1 for length, k in zip(lengths, kernel, strict=True)]
    taps = int(np.prod(kernel))
    offset = b.operand((n, 2 * taps, *out), FLOAT, (-1.4, 1.4))
    mask = b.operand((n, taps, *out), FLOAT, (0.0, 1.0)) if draw.chance(0.5) else None
    bias = b.weight((2,)) if draw.chance(0.5) else None
    weight = b.weight((2, channels, *kernel))
    return b.node("DeformConv", x, weight, offset, bias, mask, kernel_shape=kernel, pads=[pad] * 4)


@operator("Col2Im", ranks=(3,), weight=0.3)
def col2im(b: Builder, x: Value) -> Sequence[Value]:
    """Add what joins overlapping blocks."""
    draw = b.draw
    image, block = (
        [draw.integer(3, 5), draw.integer(3, 5)],
        [draw.integer(1, 2), draw.integer(1, 3)],
    )
    strides = draw.ints(2, 1, 2)
    blocks = int(np.prod([(i - k) // s + 1 for i, k, s in zip(image, block, strides, strict=True)]))
    if b.opset < 18:
        raise Rejected("came with opset 18")
    rows = b.operand((x.shape[0], 2 * int(np.prod(block)), blocks))
    return b.node("Col2Im", rows, b.constant(image), b.constant(block), strides=strides)
