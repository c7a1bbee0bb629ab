"""The vendor's own operators, by their float meaning.

Only those whose meaning is published stand here; ``HzCalibration`` is no operator but a quantizer,
and is read by the engine. Source of every function: hmct-spec 1.4.
"""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp
from jax import Array

from jptq.ops import activation, joining, normalization, reach, shape, slopes
from jptq.ops.intervals import Interval
from jptq.ops.registry import op
from jptq.ops.traits import Cost, Ints, Layout, Traits
from jptq.ops.words import choose

_DOMAIN = "horizon"


@op("HzSwish", domain=_DOMAIN, since=(1,), traits=Traits.elementwise(reach=activation.SWISH))
def hz_swish(x: Array) -> Array:
    """Weight ``x`` by its sigmoid."""
    return activation.swish(x)


@op(
    "HzHardSwish",
    domain=_DOMAIN,
    since=(1,),
    traits=Traits.elementwise(reach=activation.HARD_SWISH),
)
def hz_hard_swish(x: Array) -> Array:
    """Weight ``x`` by ``clip(x + 3, 0, 6) / 6``."""
    return activation.hard_swish(x)


@op("HzMish", domain=_DOMAIN, since=(1,), traits=Traits.elementwise(reach=activation.MISH))
def hz_mish(x: Array) -> Array:
    """Weight ``x`` by the tanh of its softplus."""
    return activation.mish(x)


@op("HzGelu", domain=_DOMAIN, since=(1,), traits=Traits.elementwise(reach=activation.GELU))
def hz_gelu(x: Array, *, approximate: str = "none") -> Array:
    """Weight ``x`` by the normal distribution function, or by its approximation with ``tanh``."""
    return activation.gelu(x, approximate=approximate)


@op("HzRsqrt", domain=_DOMAIN, since=(1,), traits=Traits.elementwise())
def hz_rsqrt(x: Array, *, epsilon: float = 0.0, is_sqrt_add_reciprocal: int = 0) -> Array:
    """Return ``1 / sqrt(x + epsilon)``, or ``1 / (sqrt(x) + epsilon)`` if told."""
    if is_sqrt_add_reciprocal:
        return slopes.reciprocal(slopes.sqrt(x) + epsilon)
    return slopes.rsqrt(x + epsilon)


@op("HzRequantize", domain=_DOMAIN, since=(1,), traits=Traits.elementwise())
def hz_requantize(x: Array) -> Array:
    """Give the values out on another grid; in float they stay."""
    return x


@op(
    "HzReluX",
    domain=_DOMAIN,
    since=(1,),
    traits=dataclasses.replace(
        Traits.fusable(
            reach.clips(
                lambda asked: Interval(0.0, max(asked.attributes["clip_value"], 0.0)),
                "from 0 to `clip_value`",
            )
        ),
        look_through=False,
    ),
)
def hz_relu_x(x: Array, *, clip_value: float) -> Array:
    """Limit the values to ``[0, clip_value]``."""
    return jnp.minimum(jnp.maximum(x, 0), clip_value)


def _normalization_cost(x: Ints, *_: Ints, **__: object) -> Cost:
    return Cost(vector=5 * math.prod(x))


@op(
    "HzSoftmax",
    domain=_DOMAIN,
    since=(1,),
    traits=Traits.bounded(
        0.0, 1.0, reach=reach.softmax(reach.along()), layout=Layout.AXES, axes=("axis",)
    ),
    cost=_normalization_cost,
)
def hz_softmax(x: Array, *, axis: int = -1) -> Array:
    """Normalize exponentials along ``axis``."""
    return activation.softmax(x, axis=axis)


@op(
    "HzLayerNorm",
    domain=_DOMAIN,
    since=(1,),
    traits=Traits.compute(features=(0,), exact=(1, 2)),
    cost=_normalization_cost,
)
def hz_layer_norm(
    x: Array,
    scale: Array | None = None,
    bias: Array | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
) -> Array:
    """Bring the axes from ``axis`` on to mean zero and variance one, then scale and shift.

    Args:
      x: Any shape.
      scale: The shape of the normalized axes; one if absent.
      bias: The same; zero if absent.
      axis: First normalized axis.
      epsilon: Added to the variance.

    Returns:
      The shape and dtype of ``x``.
    """
    y, *_ = normalization.standardize(x, range(axis % x.ndim, x.ndim), epsilon)
    scaled = y if scale is None else y * scale
    return scaled if bias is None else scaled + bias


@op("HzPad", domain=_DOMAIN, since=(1,), traits=Traits.view())
def hz_pad(x: Array, *, pads: Ints, mode: str = "constant") -> Array:
    """Add zeros (``constant``) or repeat the border (``edge``); ``pads`` as in ONNX Pad-2.

    Raises:
      ShapeError: Another mode.
    """
    known = choose({"constant": "constant", "edge": "edge"}, mode, "mode")
    return joining.pad_2(x, pads=pads, mode=known)


@op("HzSpaceToDepth", domain=_DOMAIN, since=(1,), traits=Traits.view())
def hz_space_to_depth(x: Array, *, blocksize: int) -> Array:
    """Move blocks of pixels into channels: ``[N, C, H, W]`` to ``[N, B * B * C, H / B, W / B]``."""
    return shape.space_to_depth(x, blocksize=blocksize)


@op("HzDepthToSpace", domain=_DOMAIN, since=(1,), traits=Traits.view())
def hz_depth_to_space(x: Array, *, blocksize: int) -> Array:
    """Move channels into blocks of pixels: ``[N, B * B * C, H, W]`` to ``[N, C, B * H, B * W]``."""
    return shape.depth_to_space(x, blocksize=blocksize)
