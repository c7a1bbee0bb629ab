"""Activation functions, written to stay finite in value and gradient over the whole range.

Source of every function here: ONNX operator specification, the version last in ``since``.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

from jptq.ops import reach
from jptq.ops.intervals import Asked, Interval
from jptq.ops.registry import op
from jptq.ops.traits import Cost, Ints, Layout, Traits
from jptq.ops.words import choose

_IS_BY_TANH = {"none": False, "tanh": True}
"""``approximate`` of Gelu."""

_FLOAT32_MAX = 3.4028234663852886e38

_ANYWHERE = math.inf
"""A tail that a function has from one end to the other: it rises or falls throughout."""


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _swish(x: float, *, alpha: float = 1.0) -> float:
    return x * _logistic(alpha * x)


def _gelu(x: float, *, approximate: str = "none") -> float:
    if approximate == "tanh":
        return x * _logistic(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    return 0.5 * x * math.erfc(-x / math.sqrt(2))


def _elu(x: float, *, alpha: float = 1.0) -> float:
    return x if x > 0 else alpha * math.expm1(x)


RELU = reach.clips(lambda asked: Interval(low=0.0), "from 0")
SWISH = reach.saturates(
    _swish,
    left=lambda attributes: -1.3 / alpha if (alpha := attributes.get("alpha", 1.0)) > 0 else None,
    told="from about -12",
)
MISH = reach.saturates(lambda x: x * math.tanh(_softplus(x)), left=-1.2, told="from about -12")
GELU = reach.saturates(_gelu, left=-0.8, told="from about -4")
HARD_SWISH = reach.saturates(
    lambda x: x * min(max(x / 6 + 0.5, 0.0), 1.0), left=-1.5, told="from -3"
)


def _limits(asked: Asked) -> Interval:
    """Return the limits of a Clip, if they are constants or attributes."""
    low, high = asked.attributes.get("min"), asked.attributes.get("max")
    least, most = (*asked.operands, None, None)[1:3]
    if least is not None:
        low = least.low
    if most is not None:
        high = most.high
    ends = (-math.inf if low is None else low, math.inf if high is None else high)
    return Interval(min(ends), ends[1])


_CLIP = reach.clips(_limits, "from `min` to `max`")


@op("Relu", since=(6, 13, 14), traits=Traits.fusable(RELU))
def relu(x: Array) -> Array:
    """Replace what is negative by zero; the gradient at zero is zero."""
    return jax.nn.relu(x)


@op("Clip", since=(6,), traits=Traits.fusable(_CLIP))
def clip_6(input: Array, *, max: float = _FLOAT32_MAX, min: float = -_FLOAT32_MAX) -> Array:
    """Limit the values; up to opset 10 the limits are attributes."""
    # In the dtype of the input the default limits may overflow to infinity, which is meant.
    low, high = (jnp.float32(limit).astype(input.dtype) for limit in (min, max))
    return clip(input, low, high)


@op("Clip", since=(11, 12, 13), traits=Traits.fusable(_CLIP))
def clip(input: Array, min: Array | None = None, max: Array | None = None) -> Array:
    """Limit the values to ``[min, max]``, scalars; ``max`` wins where they cross."""
    raised = input if min is None else jnp.maximum(input, min)
    return raised if max is None else jnp.minimum(raised, max)


@op("LeakyRelu", since=(6, 16), traits=Traits.elementwise())
def leaky_relu(x: Array, *, alpha: float = 0.01) -> Array:
    """Scale what is negative by ``alpha``."""
    return jnp.where(x < 0, alpha * x, x)


@op("PRelu", since=(6,), traits=Traits.compute(features=(0,), exact=(1,)))
def prelu_6(x: Array, slope: Array) -> Array:
    """Scale what is negative; up to opset 6 ``slope`` is one value or one per channel (axis 1)."""
    per_channel = slope.reshape((-1,) + (1,) * (x.ndim - 2)) if slope.size > 1 else slope
    return prelu(x, per_channel)


@op("PRelu", since=(7, 9, 16), traits=Traits.elementwise(exact=(1,)))
def prelu(x: Array, slope: Array) -> Array:
    """Scale what is negative by ``slope``, which broadcasts to the shape of ``x``."""
    return jnp.where(x < 0, slope * x, x)


@op(
    "Elu",
    since=(6, 22),
    traits=Traits.elementwise(reach=reach.saturates(_elu, left=0.0, told="from about -11")),
)
def elu(x: Array, *, alpha: float = 1.0) -> Array:
    """Bend what is negative to ``alpha * (exp(x) - 1)``."""
    return jnp.where(x > 0, x, alpha * jnp.expm1(jnp.minimum(x, 0)))


@op(
    "Selu",
    since=(6, 22),
    traits=Traits.elementwise(
        reach=reach.saturates(
            lambda x, *, alpha, gamma: gamma * _elu(x, alpha=alpha), left=0.0, told="from about -11"
        )
    ),
)
def selu(
    x: Array, *, alpha: float = 1.6732631921768188, gamma: float = 1.0507010221481323
) -> Array:
    """Scaled exponential linear unit: ``gamma * elu(x, alpha)``."""
    return gamma * elu(x, alpha=alpha)


@op(
    "Celu",
    since=(12, 28),
    traits=Traits.elementwise(
        reach=reach.saturates(
            lambda x, *, alpha: x if x > 0 else alpha * math.expm1(x / alpha),
            left=lambda attributes: 0.0 if attributes["alpha"] > 0 else None,
            told="from about -11 alpha",
        )
    ),
)
def celu(x: Array, *, alpha: float = 1.0) -> Array:
    """Bend what is negative to ``alpha * (exp(x / alpha) - 1)``, smooth at zero."""
    return jnp.where(x > 0, x, alpha * jnp.expm1(jnp.minimum(x, 0) / alpha))


@op(
    "ThresholdedRelu",
    since=(10, 22),
    traits=Traits.elementwise(
        reach=reach.saturates(
            lambda x, *, alpha: x if x > alpha else 0.0,
            left=lambda attributes: attributes["alpha"],
            told="from `alpha`",
        )
    ),
)
def thresholded_relu(x: Array, *, alpha: float = 1.0) -> Array:
    """Replace what is not above ``alpha`` by zero."""
    return jnp.where(x > alpha, x, 0)


@op("Shrink", since=(9,), traits=Traits.elementwise())
def shrink(input: Array, *, bias: float = 0.0, lambd: float = 0.5) -> Array:
    """Move values outside ``[-lambd, lambd]`` by ``bias`` towards zero, and the others to zero."""
    # Of unsigned integers the lower limit has no dtype, and a bias may be half a step.
    x = input if jnp.issubdtype(input.dtype, jnp.floating) else input.astype(jnp.float32)
    outer = jnp.where(x > lambd, x - bias, 0)
    return jnp.where(x < -lambd, x + bias, outer).astype(input.dtype)


@op(
    "Sigmoid",
    since=(6, 13),
    traits=Traits.elementwise(
        bounds=(0.0, 1.0),
        reach=reach.saturates(
            _logistic, left=_ANYWHERE, right=-_ANYWHERE, told="from -11.1 to 11.1"
        ),
    ),
)
def sigmoid(x: Array) -> Array:
    """Logistic function."""
    return jax.nn.sigmoid(x)


@op(
    "HardSigmoid",
    since=(6, 22),
    traits=Traits.elementwise(
        bounds=(0.0, 1.0),
        reach=reach.saturates(
            lambda x, *, alpha, beta: min(max(alpha * x + beta, 0.0), 1.0),
            left=_ANYWHERE,
            right=-_ANYWHERE,
            told="where it is neither 0 nor 1",
        ),
    ),
)
def hard_sigmoid(x: Array, *, alpha: float = 0.2, beta: float = 0.5) -> Array:
    """Clip ``alpha * x + beta`` to the unit interval."""
    return jnp.clip(alpha * x + beta, 0, 1)


@op(
    "HardSwish",
    since=(14, 22),
    traits=Traits.elementwise(reach=HARD_SWISH),
)
def hard_swish(x: Array) -> Array:
    """Weight ``x`` by a hard sigmoid of slope 1/6."""
    return x * hard_sigmoid(x, alpha=1 / 6, beta=0.5)


@op(
    "Swish",
    since=(24,),
    traits=Traits.elementwise(reach=SWISH),
)
def swish(x: Array, *, alpha: float = 1.0) -> Array:
    """Weight ``x`` by ``sigmoid(alpha * x)``."""
    return x * jax.nn.sigmoid(alpha * x)


@op("SwiGLU", since=(28,), traits=Traits.elementwise())
def swiglu(a: Array, b: Array, *, alpha: float = 1.0) -> Array:
    """Let the gate ``a`` pass through Swish and weight ``b`` with it."""
    return swish(a, alpha=alpha) * b


@op(
    "Softplus",
    since=(1, 22),
    traits=Traits.elementwise(
        reach=reach.saturates(_softplus, left=_ANYWHERE, told="from about -11")
    ),
)
def softplus(x: Array) -> Array:
    """Return ``log(1 + exp(x))`` without overflow."""
    return jax.nn.softplus(x)


@op(
    "Softsign",
    since=(1, 22),
    traits=Traits.elementwise(
        bounds=(-1.0, 1.0),
        reach=reach.saturates(
            lambda x: x / (1 + abs(x)),
            left=_ANYWHERE,
            right=-_ANYWHERE,
            told="from -65533 to 65533",
        ),
    ),
)
def softsign(input: Array) -> Array:
    """Return ``x / (1 + |x|)``."""
    return input / (1 + jnp.abs(input))


@op(
    "Mish",
    since=(18, 22),
    traits=Traits.elementwise(reach=MISH),
)
def mish(x: Array) -> Array:
    """Weight ``x`` by the tanh of its softplus."""
    return x * jnp.tanh(jax.nn.softplus(x))


@op(
    "Gelu",
    since=(20,),
    traits=Traits.elementwise(reach=GELU),
)
def gelu(x: Array, *, approximate: str = "none") -> Array:
    """Weight ``x`` by the normal distribution function, or by its approximation with ``tanh``."""
    return jax.nn.gelu(x, approximate=choose(_IS_BY_TANH, approximate, "approximate"))


def _softmax_cost(input: Ints, output: Ints, **_: object) -> Cost:
    return Cost(vector=5 * math.prod(input))  # maximum, difference, exponential, sum, quotient


def _trailing(x: Array, axis: int) -> Ints:
    """Return all axes from ``axis`` on: one row of the matrix that opset 12 coerces to."""
    return tuple(range(axis % x.ndim if axis < 0 else axis, x.ndim))


@op(
    "Softmax",
    since=(1, 11),
    traits=Traits.bounded(0.0, 1.0, reach=reach.softmax(reach.trailing)),
    cost=_softmax_cost,
)
def softmax_1(input: Array, *, axis: int = 1) -> Array:
    """Normalize exponentials; up to opset 12 over all axes from ``axis`` on."""
    return jax.nn.softmax(input, _trailing(input, axis))


@op(
    "Softmax",
    since=(13,),
    traits=Traits.bounded(
        0.0, 1.0, reach=reach.softmax(reach.along()), layout=Layout.AXES, axes=("axis",)
    ),
    cost=_softmax_cost,
)
def softmax(input: Array, *, axis: int = -1) -> Array:
    """Normalize exponentials along ``axis``."""
    return jax.nn.softmax(input, axis)


@op("LogSoftmax", since=(1, 11), traits=Traits.compute(), cost=_softmax_cost)
def log_softmax_1(input: Array, *, axis: int = 1) -> Array:
    """Logarithm of `softmax_1`; up to opset 12 over all axes from ``axis`` on."""
    return jax.nn.log_softmax(input, _trailing(input, axis))


@op(
    "LogSoftmax",
    since=(13,),
    traits=Traits.compute(layout=Layout.AXES, axes=("axis",)),
    cost=_softmax_cost,
)
def log_softmax(input: Array, *, axis: int = -1) -> Array:
    """Logarithm of `softmax` along ``axis``, finite where the softmax underflows."""
    return jax.nn.log_softmax(input, axis)


@op(
    "Hardmax",
    since=(1, 11),
    traits=Traits.bounded(0.0, 1.0, reach=reach.ranked(reach.trailing)),
)
def hardmax_1(input: Array, *, axis: int = 1) -> Array:
    """Mark the first maximum; up to opset 12 over all axes from ``axis`` on."""
    rows = input.reshape((*input.shape[: _trailing(input, axis)[0]], -1))
    return hardmax(rows, axis=-1).reshape(input.shape)


@op(
    "Hardmax",
    since=(13,),
    traits=Traits.bounded(
        0.0, 1.0, reach=reach.ranked(reach.along()), layout=Layout.AXES, axes=("axis",)
    ),
)
def hardmax(input: Array, *, axis: int = -1) -> Array:
    """Put 1 at the first maximum along ``axis``, 0 elsewhere."""
    first = jnp.argmax(input, axis)
    return jax.nn.one_hot(first, input.shape[axis], dtype=input.dtype, axis=axis % input.ndim)
