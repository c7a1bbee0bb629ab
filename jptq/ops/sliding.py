"""The convolution that others are made of, with a way round a fault of XLA."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jax import Array, lax

from jptq.ops.traits import Ints
from jptq.ops.windows import Pads


def convolve(
    x: Array,
    w: Array,
    *,
    strides: Ints,
    padding: Pads,
    dilations: Ints,
    spread: Ints | None = None,
    numbers: lax.ConvDimensionNumbers | None = None,
    groups: int = 1,
) -> Array:
    """Return ``lax.conv_general_dilated`` of any lengths.

    XLA swaps the operands of a convolution whose kernel is the longer one. It takes an axis of two
    taps, spread by two and without pads, for one that stays as it is, and ends the process where
    the input is not of length two. So the result gets one place more there, which is cut off. A
    derivative spreads what a stride skipped: there pads that would vanish from it are explicit.

    Args:
      x: Features.
      w: Kernel.
      strides: Per spatial axis.
      padding: Per spatial axis.
      dilations: Distance of taps, per spatial axis.
      spread: Distance of the input's places, per spatial axis.
      numbers: Roles of the axes; ONNX's if absent.
      groups: Of channels.
    """
    roles = numbers or lax.conv_dimension_numbers(x.shape, w.shape, None)
    places, taps = roles.lhs_spec[2:], [w.shape[axis] for axis in roles.rhs_spec[2:]]
    apart = spread or (1,) * len(taps)
    longer = [
        two == by == 2 and far == 1 and pads == (0, 0)
        for two, by, far, pads in zip(taps, apart, dilations, padding, strict=True)
    ]
    before = [
        pads if two == step == 2 and far == 1 and pads[0] == 1 else (0, 0)
        for two, step, far, pads in zip(taps, strides, dilations, padding, strict=True)
    ]
    y = lax.conv_general_dilated(
        _padded(x, places, before),
        w,
        strides,
        [
            (0, 1) if more else (begin - done[0], end - done[1])
            for (begin, end), more, done in zip(padding, longer, before, strict=True)
        ],
        lhs_dilation=spread,
        rhs_dilation=dilations,
        dimension_numbers=roles,
        feature_group_count=groups,
    )
    for axis, more in zip(places, longer, strict=True):
        if more:
            y = lax.slice_in_dim(y, 0, y.shape[axis] - 1, axis=axis)
    return y


def _padded(x: Array, axes: Sequence[int], padding: Sequence[tuple[int, int]]) -> Array:
    if not any(map(any, padding)):
        return x
    config = [(0, 0, 0)] * x.ndim
    for axis, (begin, end) in zip(axes, padding, strict=True):
        config[axis] = (begin, end, 0)
    return lax.pad(x, np.zeros((), x.dtype), config)
