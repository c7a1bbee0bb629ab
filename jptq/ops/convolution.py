"""Convolutions, and how XLA:CPU likes them computed.

The functions follow ONNX's axis order. The lowerings for CPUs keep features channels-last and
never hand groups to `lax.conv`, which XLA:CPU computes seven to fifteen times slower than a sum
of shifted products (``tools/bench lowerings``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jptq.ops import windows
from jptq.ops.depthwise import sliding_product
from jptq.ops.precision import widened
from jptq.ops.registry import lowering, op
from jptq.ops.sliding import convolve
from jptq.ops.traits import Cost, Ints, Traits
from jptq.ops.words import choose

MOST_TAPS = 64
"""Unrolled taps beyond this cost more compile time than they save in running."""

_MOST_SPLITS = 32
"""Groups beyond this are not worth a convolution each."""


def _conv_cost(x: Ints, w: Ints, *rest: Ints, **_: object) -> Cost:
    """Count one product per output, input channel of its group, and tap."""
    return Cost(macs=math.prod(rest[-1]) * math.prod(w[1:]))


@op(
    "Conv",
    since=(1, 11, 22),
    traits=Traits.compute(features=(0,), weights={1: 0}, exact=(2,)),
    cost=_conv_cost,
)
def conv(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Array:
    """Convolve over the spatial axes.

    Args:
      x: Features, ``[N, C, *spatial]``.
      w: Kernel, ``[M, C / group, *kernel]``.
      b: Bias, ``[M]``.

    Returns:
      ``[N, M, *spatial_out]`` in the dtype of ``x``.

    Source: ONNX operator specification, Conv-22.
    """
    windows.check_kernel(kernel_shape, w.shape[2:])
    ones = (1,) * (x.ndim - 2)
    strides, dilations = strides or ones, dilations or ones
    padding = windows.resolve_pads(auto_pad, pads, x.shape[2:], w.shape[2:], strides, dilations)
    y = convolve(x, w, strides=strides, padding=padding, dilations=dilations, groups=group)
    return y if b is None else y + b.reshape(-1, *ones)


def last_dimension_numbers(rank: int) -> lax.ConvDimensionNumbers:
    """Return the axis roles of ``[N, *spatial, C]`` features and ``[*kernel, I, O]`` kernels."""
    features = (0, rank - 1, *range(1, rank - 1))
    return lax.ConvDimensionNumbers(features, (rank - 1, rank - 2, *range(rank - 2)), features)


def to_taps_in_out(w: Array) -> Array:
    """Reorder a kernel ``[O, I, *kernel]`` to ``[*kernel, I, O]``."""
    return jnp.moveaxis(w, (1, 0), (-2, -1))


def to_in_out(w: Array) -> Array:
    """Reorder a kernel ``[O, I, 1, ...]`` to a matrix ``[I, O]``."""
    return w.reshape(w.shape[:2]).T


def to_taps_channels(w: Array) -> Array:
    """Reorder a depthwise kernel ``[M, 1, *kernel]`` to ``[*kernel, M]``."""
    return jnp.moveaxis(w[:, 0], 0, -1)


def add_bias(y: Array, b: Array | None) -> Array:
    """Add ``[M]`` to ``[..., M]``, if there is one."""
    return y if b is None else y + b


def _is_pointwise(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    group: int = 1,
    pads: Ints | None = None,
    **_: object,
) -> bool:
    """Tell whether a convolution mixes channels only; strides may still drop positions."""
    one_tap = math.prod(w.shape[2:]) == 1
    return one_tap and group == 1 and (auto_pad.startswith("SAME") or not any(pads or ()))


@lowering(
    conv,
    "pointwise",
    platform="cpu",
    when=_is_pointwise,
    channels_last=True,
    pack={1: to_in_out},
)
def conv_pointwise(
    x: Array, w: Array, b: Array | None = None, *, strides: Ints | None = None, **_: object
) -> Array:
    """Compute a 1x1 convolution as a matrix product over the last axis.

    Args:
      x: ``[N, *spatial, C]``.
      w: ``[C, M]``.
      b: ``[M]``.

    Returns:
      ``[N, *spatial_out, M]``.
    """
    if strides and max(strides) > 1:
        x = lax.slice(x, (0,) * x.ndim, x.shape, (1, *strides, 1))
    return add_bias(lax.dot_general(x, w, (((x.ndim - 1,), (0,)), ((), ()))), b)


def shift_and_add(
    x: Array, w: Array, strides: Sequence[int], dilations: Sequence[int], group: int
) -> Array:
    """Slide a depthwise kernel as a sum of shifted, weighted copies.

    Args:
      x: Padded features, ``[N, *spatial, C]``.
      w: ``[*kernel, C * multiplier]``.
      strides: Step per spatial axis.
      dilations: Distance between taps per spatial axis.
      group: C.

    Returns:
      ``[N, *spatial_out, C * multiplier]``; sums are at least float32.
    """
    multiplier = w.shape[-1] // group
    repeated = x if multiplier == 1 else jnp.repeat(x, multiplier, axis=-1)
    return sliding_product(widened(repeated), widened(w), strides, dilations).astype(x.dtype)


def _is_depthwise(
    x: Array, w: Array, b: Array | None = None, *, group: int = 1, **_: object
) -> bool:
    """Tell whether every output channel reads one input channel through a small kernel."""
    return group > 1 and w.shape[1] == 1 and math.prod(w.shape[2:]) <= MOST_TAPS


@lowering(
    conv,
    "depthwise",
    platform="cpu",
    when=_is_depthwise,
    channels_last=True,
    pack={1: to_taps_channels},
)
def conv_depthwise(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    pads: Ints | None = None,
    strides: Ints | None = None,
    **_: object,
) -> Array:
    """Compute a depthwise convolution as a sum of shifted products.

    Args:
      x: ``[N, *spatial, C]``.
      w: ``[*kernel, M]``.
      b: ``[M]``.

    Returns:
      ``[N, *spatial_out, M]``.
    """
    ones = (1,) * (x.ndim - 2)
    strides, dilations = strides or ones, dilations or ones
    padding = windows.resolve_pads(auto_pad, pads, x.shape[1:-1], w.shape[:-1], strides, dilations)
    padded = pad_spatial(x, padding)
    return add_bias(shift_and_add(padded, w, strides, dilations, group), b)


def pad_spatial(x: Array, padding: windows.Pads, interior: Sequence[int] | None = None) -> Array:
    """Pad the inner axes of ``[N, *spatial, C]`` with zeros, and between positions."""
    between = interior or (0,) * len(padding)
    config = [(*ends, gap) for ends, gap in zip(padding, between, strict=True)]
    return lax.pad(x, np.zeros((), x.dtype), [(0, 0, 0), *config, (0, 0, 0)])


def _is_dense(x: Array, w: Array, b: Array | None = None, *, group: int = 1, **_: object) -> bool:
    """Tell whether a convolution is dense, or has few enough groups to take them one by one."""
    return group == 1 or (group <= _MOST_SPLITS and w.shape[1] > 1)


@lowering(
    conv, "dense", platform="cpu", when=_is_dense, channels_last=True, pack={1: to_taps_in_out}
)
def conv_dense(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    pads: Ints | None = None,
    strides: Ints | None = None,
    **_: object,
) -> Array:
    """Compute a convolution channels-last, a grouped one as that many dense ones.

    Args:
      x: ``[N, *spatial, C]``.
      w: ``[*kernel, C / group, M]``.
      b: ``[M]``.

    Returns:
      ``[N, *spatial_out, M]``.
    """
    ones = (1,) * (x.ndim - 2)
    strides, dilations = strides or ones, dilations or ones
    padding = windows.resolve_pads(auto_pad, pads, x.shape[1:-1], w.shape[:-2], strides, dilations)
    parts = [
        convolve(
            part,
            kernel,
            strides=strides,
            padding=padding,
            dilations=dilations,
            numbers=last_dimension_numbers(x.ndim),
        )
        for part, kernel in zip(
            jnp.split(x, group, axis=-1) if group > 1 else [x],
            jnp.split(w, group, axis=-1) if group > 1 else [w],
            strict=True,
        )
    ]
    return add_bias(parts[0] if group == 1 else jnp.concatenate(parts, axis=-1), b)


_ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "none": lambda y: y,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
}


@op("CausalConvWithState", since=(27,), traits=Traits.float_only())
def causal_conv_with_state(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    past_state: Array | None = None,
    *,
    activation: str = "none",
) -> tuple[Array, Array]:
    """Convolve every channel by itself with the positions up to its own.

    Args:
      input: ``[N, C, T]``.
      weight: ``[C, 1, K]``.
      bias: ``[C]``.
      past_state: The K - 1 positions before the first, ``[N, C, K - 1]``; zeros if absent.

    Returns:
      ``[N, C, T]``, and the last K - 1 positions as the next call needs them.

    Source: ONNX operator specification, CausalConvWithState-27.
    """
    activate = choose(_ACTIVATIONS, activation, "activation")
    before = weight.shape[2] - 1
    past = jnp.zeros((*input.shape[:2], before), input.dtype) if past_state is None else past_state
    padded = jnp.concatenate((past, input), axis=2)
    features, kernel = jnp.swapaxes(padded, 1, 2), to_taps_channels(weight)
    y = jnp.swapaxes(shift_and_add(features, kernel, (1,), (1,), input.shape[1]), 1, 2)
    if bias is not None:
        y = y + bias[:, None]
    return activate(widened(y)).astype(input.dtype), padded[:, :, padded.shape[2] - before :]
