"""Normalisations."""

from __future__ import annotations

from collections.abc import Sequence

from tools.fuzz.builder import FLOAT, Builder, Value
from tools.fuzz.catalogue.registry import operator


@operator("BatchNormalization", ranks=(2, 3, 4, 4, 5), weight=2.5)
def batch_norm(b: Builder, x: Value) -> Sequence[Value]:
    """Add a normalisation with stored statistics."""
    channels = (x.shape[1],)
    scale, shift, mean = b.weight(channels, (0.5, 2.0)), b.weight(channels), b.weight(channels)
    variance = b.weight(channels, (0.2, 2.0))
    epsilon = b.draw.pick([None, 1e-3, 0.1])
    return b.node("BatchNormalization", x, scale, shift, mean, variance, epsilon=epsilon)


@operator("InstanceNormalization", ranks=(3, 4, 5), lengths=(2, 5))
def instance_norm(b: Builder, x: Value) -> Sequence[Value]:
    """Add a normalisation of every channel of every sample."""
    channels = (x.shape[1],)
    given = b.weight(channels, (0.5, 2.0)), b.weight(channels)
    return b.node("InstanceNormalization", x, *given, epsilon=b.draw.pick([None, 1e-2]))


@operator("LayerNormalization", ranks=(2, 3, 4), weight=2.0)
def layer_norm(b: Builder, x: Value) -> Sequence[Value]:
    """Add a normalisation over the last axes."""
    axis = b.draw.integer(0, x.rank - 1)
    shape = x.shape[axis:]
    bias = b.weight(shape) if b.draw.chance(0.7) else None
    signed = b.draw.signed_axis(axis, x.rank)
    given = None if axis == x.rank - 1 and b.draw.chance(0.5) else signed
    scale = b.weight(shape, (0.5, 2.0))
    epsilon = b.draw.pick([None, 1e-2])
    outputs = 1 if b.tame else b.draw.pick([1, 1, 3])
    return b.node("LayerNormalization", x, scale, bias, outputs=outputs, axis=given,
                  epsilon=epsilon)  # fmt: skip


@operator("GroupNormalization", ranks=(3, 4), lengths=(2, 5))
def group_norm(b: Builder, x: Value) -> Sequence[Value]:
    """Add a normalisation of groups of channels."""
    channels = x.shape[1]
    groups = b.draw.pick([g for g in (1, 2, 3, 4, 5) if channels % g == 0])
    shape = (groups,) if b.since("GroupNormalization") < 21 else (channels,)
    given = b.weight(shape, (0.5, 2.0)), b.weight(shape)
    return b.node("GroupNormalization", x, *given, num_groups=groups,
                  epsilon=b.draw.pick([None, 1e-2]))  # fmt: skip


@operator("RMSNormalization", ranks=(2, 3, 4), weight=0.5)
def rms_norm(b: Builder, x: Value) -> Sequence[Value]:
    """Add a division by the root of the mean square."""
    axis = b.draw.integer(0, x.rank - 1)
    scale = b.weight(x.shape[axis:], (0.5, 2.0))
    return b.node("RMSNormalization", x, scale, axis=b.draw.signed_axis(axis, x.rank))


@operator("LRN", ranks=(4,))
def lrn(b: Builder, x: Value) -> Sequence[Value]:
    """Add a normalisation over neighbouring channels."""
    size = b.draw.pick([1, 3, 5])
    return b.node("LRN", x, size=size, alpha=b.draw.pick([None, 0.5]),
                  beta=b.draw.pick([None, 0.5]), bias=b.draw.pick([None, 2.0]))  # fmt: skip


@operator("MeanVarianceNormalization", ranks=(4,), lengths=(2, 5), weight=0.5)
def mean_variance(b: Builder, x: Value) -> Sequence[Value]:
    """Add a normalisation over some axes."""
    axes = b.draw.some(range(4), least=2) if b.draw.chance(0.6) else None
    return b.node("MeanVarianceNormalization", x, axes=axes)


@operator("Sqrt", ranks=(2, 3), weight=1.0)
def written_out(b: Builder, x: Value) -> Sequence[Value]:
    """Add a normalisation in elementary operators, as exporters write it."""
    width = (x.shape[-1],)
    if b.opset >= 18:
        (mean,) = b.node("ReduceMean", x, b.constant([-1]))
    else:
        (mean,) = b.node("ReduceMean", x, axes=[x.rank - 1])
    (centred,) = b.node("Sub", x, mean)
    (square,) = b.node("Pow", centred, b.scalar(2.0))
    if b.opset >= 18:
        (variance,) = b.node("ReduceMean", square, b.constant([-1]))
    else:
        (variance,) = b.node("ReduceMean", square, axes=[x.rank - 1])
    (shifted,) = b.node("Add", variance, b.scalar(1e-2))
    (root,) = b.node("Sqrt", shifted)
    (normal,) = b.node("Div", centred, root)
    (scaled,) = b.node("Mul", normal, b.constant(b.draw.array(width, FLOAT, (0.5, 2.0))))
    return b.node("Add", scaled, b.weight(width))
