"""Normalizations: shift and scale by statistics, stored or of the input itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jptq.errors import UnsupportedOpError
from jptq.ops import slopes
from jptq.ops.cast import element_type
from jptq.ops.precision import widened
from jptq.ops.registry import lowering, op
from jptq.ops.traits import Cost, Ints, Traits

_FLOAT32 = 1
"""``stash_type``: ONNX's code of float32."""


def _vector_cost(x: Ints, *_: Ints, **__: object) -> Cost:
    """Count the passes of mean, variance and scaling over the input."""
    return Cost(vector=4 * math.prod(x))


def _affine_cost(x: Ints, *_: Ints, **__: object) -> Cost:
    """Count a product and a sum per value."""
    return Cost(vector=2 * math.prod(x))


def _inference_only(asked: bool) -> None:
    if asked:
        raise UnsupportedOpError(
            "BatchNormalization in training mode",
            why="its statistics would depend on the batch",
            hint="export the network in inference mode",
        )


def _scale_and_shift(
    x: Array, scale: Array, b: Array, mean: Array, var: Array, epsilon: float
) -> Array:
    """Normalize with statistics that broadcast to ``x``."""
    factor = scale * slopes.rsqrt(var + epsilon).astype(scale.dtype)
    return x * factor.astype(x.dtype) + (b - mean.astype(b.dtype) * factor).astype(x.dtype)


_BATCH_NORM = Traits.compute(features=(0,), exact=(1, 2, 3, 4))


@op("BatchNormalization", since=(14, 15), traits=_BATCH_NORM, cost=_affine_cost)
def batch_normalization(
    x: Array,
    scale: Array,
    b: Array,
    input_mean: Array,
    input_var: Array,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Array:
    """Normalize channels with stored statistics.

    Args:
      x: ``[N, C, *spatial]``.
      scale: ``[C]``.
      b: ``[C]``.
      input_mean: ``[C]``.
      input_var: ``[C]``.

    Returns:
      As ``x``.

    Raises:
      UnsupportedOpError: In training mode.

    Source: ONNX operator specification, BatchNormalization-15.
    """
    del momentum  # moves the statistics in training only
    _inference_only(bool(training_mode))
    shape = (-1, *(1,) * (x.ndim - 2))
    return _scale_and_shift(
        x,
        scale.reshape(shape),
        b.reshape(shape),
        input_mean.reshape(shape),
        input_var.reshape(shape),
        epsilon,
    )


@lowering(batch_normalization, "channels last", channels_last=True)
def batch_normalization_last(
    x: Array,
    scale: Array,
    b: Array,
    input_mean: Array,
    input_var: Array,
    *,
    epsilon: float = 1e-5,
    training_mode: int = 0,
    **_: object,
) -> Array:
    """Normalize channels of ``[N, *spatial, C]`` with stored statistics."""
    _inference_only(bool(training_mode))
    return _scale_and_shift(x, scale, b, input_mean, input_var, epsilon)


@op("BatchNormalization", since=(1, 6, 7, 9), traits=_BATCH_NORM, cost=_affine_cost)
def batch_normalization_1(
    x: Array,
    scale: Array,
    b: Array,
    mean: Array,
    var: Array,
    *,
    consumed_inputs: Ints | None = None,
    epsilon: float = 1e-5,
    is_test: int = 0,
    momentum: float = 0.9,
    spatial: int = 1,
    n_outputs: int = 1,
) -> Array:
    """Normalize with stored statistics; up to opset 13 one named output is inference.

    Args:
      x: ``[N, C, *spatial]``.
      scale: ``[C]``, or ``[C, *spatial]`` if ``spatial`` is zero; so are the other statistics.
      b: See ``scale``.
      mean: See ``scale``.
      var: See ``scale``.

    Source: ONNX operator specification, BatchNormalization-9.
    """
    del consumed_inputs, is_test, momentum  # exporters set is_test as they please
    _inference_only(n_outputs > 1)
    if not spatial:
        return _scale_and_shift(x, scale, b, mean, var, epsilon)
    return batch_normalization(x, scale, b, mean, var, epsilon=epsilon)


def standardize(x: Array, axes: Sequence[int], epsilon: float) -> tuple[Array, Array, Array]:
    """Return ``x`` with mean 0 and variance 1 over ``axes``, the mean and the inverse deviation.

    The first is in the dtype of ``x``, the statistics are at least float32.
    """
    wide = widened(x)
    mean = wide.mean(axis=tuple(axes), keepdims=True)
    centred = wide - mean
    inverse = slopes.rsqrt(jnp.square(centred).mean(axis=tuple(axes), keepdims=True) + epsilon)
    return (centred * inverse).astype(x.dtype), mean, inverse


_NORM = Traits.compute(features=(0,), exact=(1, 2))


@op("InstanceNormalization", since=(1, 6, 22), traits=_NORM, cost=_vector_cost)
def instance_normalization(
    input: Array,
    scale: Array,
    b: Array,
    *,
    consumed_inputs: Ints | None = None,
    epsilon: float = 1e-5,
) -> Array:
    """Normalize each channel of each sample over its positions.

    Args:
      input: ``[N, C, *spatial]``.
      scale: ``[C]``.
      b: ``[C]``.

    Returns:
      As ``input``.

    Source: ONNX operator specification, InstanceNormalization-22.
    """
    del consumed_inputs
    y = standardize(input, range(2, input.ndim), epsilon)[0]
    shape = (-1, *(1,) * (input.ndim - 2))
    return y * scale.reshape(shape) + b.reshape(shape)


@lowering(instance_normalization, "channels last", channels_last=True)
def instance_normalization_last(
    input: Array, scale: Array, b: Array, *, epsilon: float = 1e-5, **_: object
) -> Array:
    """Normalize each channel of ``[N, *spatial, C]`` over its positions."""
    y = standardize(input, range(1, input.ndim - 1), epsilon)[0]
    return y * scale + b


@op("LayerNormalization", since=(17,), traits=_NORM, cost=_vector_cost)
def layer_normalization(
    x: Array,
    scale: Array,
    b: Array | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = _FLOAT32,
    n_outputs: int = 1,
) -> Array | tuple[Array, ...]:
    """Normalize over the axes from ``axis`` on.

    Args:
      x: Any shape.
      scale: Broadcast to ``x``.
      b: Broadcast to ``x``.

    Returns:
      As ``x``; if asked for also the mean and the inverse deviation, with ones for the axes.

    Source: ONNX operator specification, LayerNormalization-17.
    """
    axes = range(axis % x.ndim, x.ndim)
    y, *statistics = standardize(x, axes, epsilon)
    y = y * scale if b is None else y * scale + b
    if n_outputs == 1:
        return y
    return (y, *(s.astype(element_type(stash_type)) for s in statistics))[:n_outputs]


@op("RMSNormalization", since=(23,), traits=_NORM, cost=_vector_cost)
def rms_normalization(
    x: Array, scale: Array, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = _FLOAT32
) -> Array:
    """Divide by the root mean square over the axes from ``axis`` on.

    Source: ONNX operator specification, RMSNormalization-23.
    """
    del stash_type  # see `widened`
    wide = widened(x)
    axes = tuple(range(axis % x.ndim, x.ndim))
    inverse = slopes.rsqrt(jnp.square(wide).mean(axis=axes, keepdims=True) + epsilon)
    return (wide * inverse).astype(x.dtype) * scale


@op("GroupNormalization", since=(21,), traits=_NORM, cost=_vector_cost)
def group_normalization(
    x: Array,
    scale: Array,
    bias: Array,
    *,
    num_groups: int,
    epsilon: float = 1e-5,
    stash_type: int = _FLOAT32,
) -> Array:
    """Normalize each group of channels of each sample.

    Args:
      x: ``[N, C, *spatial]``.
      scale: ``[C]``.
      bias: ``[C]``.

    Returns:
      As ``x``.

    Source: ONNX operator specification, GroupNormalization-21.
    """
    del stash_type  # see `widened`
    shape = (-1, *(1,) * (x.ndim - 2))
    grouped = x.reshape(x.shape[0], num_groups, -1)
    y = standardize(grouped, (2,), epsilon)[0].reshape(x.shape)
    return y * scale.reshape(shape) + bias.reshape(shape)


@op("GroupNormalization", since=(18,), traits=_NORM, cost=_vector_cost)
def group_normalization_18(
    x: Array, scale: Array, bias: Array, *, num_groups: int, epsilon: float = 1e-5
) -> Array:
    """Normalize each group of channels; at opset 18 ``scale`` and ``bias`` are ``[num_groups]``."""
    repeats = x.shape[1] // num_groups
    return group_normalization(
        x,
        jnp.repeat(scale, repeats),
        jnp.repeat(bias, repeats),
        num_groups=num_groups,
        epsilon=epsilon,
    )


@op("LpNormalization", since=(1, 22), traits=Traits.compute(features=(0,)), cost=_vector_cost)
def lp_normalization(input: Array, *, axis: int = -1, p: int = 2) -> Array:
    """Divide by the p-norm along an axis; where that is zero the result is zero.

    Source: ONNX operator specification, LpNormalization-22.
    """
    wide = widened(input)
    powers = jnp.abs(wide) if p == 1 else jnp.square(wide)
    sums = powers.sum(axis=axis, keepdims=True)
    norm = sums if p == 1 else slopes.sqrt(sums)
    return (wide / jnp.where(norm == 0, jnp.ones_like(norm), norm)).astype(input.dtype)


@op("LRN", since=(1, 13), traits=Traits.compute(features=(0,)), cost=_vector_cost)
def lrn(
    x: Array, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Array:
    """Divide by a power of the mean square over neighbouring channels.

    Args:
      x: ``[N, C, *spatial]``.

    Source: ONNX operator specification, LRN-13.
    """
    wide = widened(x)
    sums = lax.reduce_window(
        jnp.square(wide),
        np.zeros((), wide.dtype),
        lax.add,
        (1, size, *(1,) * (x.ndim - 2)),
        (1,) * x.ndim,
        ((0, 0), ((size - 1) // 2, size // 2), *((0, 0),) * (x.ndim - 2)),
    )
    return (wide / slopes.power(bias + alpha / size * sums, beta)).astype(x.dtype)


@op(
    "MeanVarianceNormalization",
    since=(9, 13),
    traits=Traits.compute(features=(0,)),
    cost=_vector_cost,
)
def mean_variance_normalization(x: Array, *, axes: Ints = (0, 2, 3)) -> Array:
    """Subtract the mean and divide by the deviation over ``axes``.

    Source: ONNX operator specification, MeanVarianceNormalization-13, its function body.
    """
    wide = widened(x)
    centred = wide - wide.mean(axis=axes, keepdims=True)
    variance = jnp.square(centred).mean(axis=axes, keepdims=True)
    return (centred / (slopes.sqrt(variance) + 1e-9)).astype(x.dtype)
