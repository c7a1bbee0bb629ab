"""Deformable convolution: every tap reads at its own, computed position."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jax import Array

from jptq.ops import windows
from jptq.ops.registry import op
from jptq.ops.sampling import sample
from jptq.ops.traits import Cost, Ints, Traits


def _deform_conv_cost(x: Ints, w: Ints, *rest: Ints, **_: object) -> Cost:
    """Count a product per output and tap, and the interpolation of every tap's input."""
    corners: int = 2 ** (len(x) - 2)
    y = rest[-1]
    reads = y[0] * x[1] * math.prod(y[2:]) * math.prod(w[2:])
    return Cost(macs=math.prod(y) * math.prod(w[1:]), vector=2 * corners * reads)


@op(
    "DeformConv",
    since=(19, 22),
    traits=Traits.compute(features=(0,), weights={1: 0}, exact=(2, 3, 4)),
    cost=_deform_conv_cost,
)
def deform_conv(
    x: Array,
    w: Array,
    offset: Array,
    b: Array | None = None,
    mask: Array | None = None,
    *,
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    offset_group: int = 1,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Array:
    """Convolve with taps moved by offsets and weighted by a mask.

    Args:
      x: Features, ``[N, C, *spatial]`` with R spatial axes.
      w: Kernel, ``[M, C / group, *kernel]`` with T taps.
      offset: Positions to add, ``[N, offset_group * T * R, *spatial_out]``.
      b: Bias, ``[M]``.
      mask: Factors, ``[N, offset_group * T, *spatial_out]``.

    Returns:
      ``[N, M, *spatial_out]``.

    Source: ONNX operator specification, DeformConv-22.
    """
    windows.check_kernel(kernel_shape, w.shape[2:])
    batch, channels = x.shape[:2]
    lengths, kernel = x.shape[2:], w.shape[2:]
    rank, taps = len(kernel), math.prod(kernel)
    ones = (1,) * rank
    steps, gaps = strides or ones, dilations or ones
    resolved = windows.resolve_pads("NOTSET", pads, lengths, kernel, steps, gaps)
    outputs = windows.output_lengths(lengths, kernel, steps, gaps, resolved)

    moved = offset.reshape(batch, offset_group, taps, rank, *outputs)
    places = np.indices(outputs)
    tap_places = np.indices(kernel).reshape(rank, taps, *ones)
    positions = [
        (tap_places[axis] * gaps[axis] + places[axis] * steps[axis] - resolved[axis][0]).astype(
            x.dtype
        )
        + moved[:, :, :, axis]
        for axis in range(rank)
    ]
    per_group = (batch * offset_group, channels // offset_group)
    read = sample(
        x.reshape(*per_group, *lengths),
        [position.reshape(batch * offset_group, -1) for position in positions],
    ).reshape(*per_group, taps, -1)
    if mask is not None:
        read = read * mask.reshape(batch * offset_group, 1, taps, -1)
    columns = read.reshape(batch, group, channels // group, taps, -1)
    kernels = w.reshape(group, w.shape[0] // group, w.shape[1], taps)
    y = jnp.einsum("ngctp,gmct->ngmp", columns, kernels).reshape(batch, -1, *outputs)
    return y if b is None else y + b.reshape(-1, *ones)
