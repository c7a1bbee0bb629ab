"""Arithmetic and mathematical functions, element by element with NumPy's broadcasting.

Source of every function here: ONNX operator specification, the version last in ``since``. What
counts as a derivative where there is no finite one: `jptq.ops.slopes`.
"""

from __future__ import annotations

import functools
import math

import jax.numpy as jnp
from jax import Array, lax

from jptq.ops import reach, slopes
from jptq.ops.registry import op
from jptq.ops.traits import Traits


@op("Add", since=(7, 13, 14), traits=Traits.elementwise(reach=reach.ADDS))
def add(a: Array, b: Array) -> Array:
    """Add two tensors."""
    return jnp.add(a, b)


@op("Sub", since=(7, 13, 14), traits=Traits.elementwise(reach=reach.SUBTRACTS))
def sub(a: Array, b: Array) -> Array:
    """Subtract ``b`` from ``a``."""
    return jnp.subtract(a, b)


@op("Mul", since=(7, 13, 14), traits=Traits.elementwise(reach=reach.MULTIPLIES))
def mul(a: Array, b: Array) -> Array:
    """Multiply two tensors."""
    return jnp.multiply(a, b)


@op("Div", since=(7, 13, 14), traits=Traits.elementwise(reach=reach.DIVIDES))
def div(a: Array, b: Array) -> Array:
    """Divide ``a`` by ``b``; integers are truncated towards zero, as in C."""
    if jnp.issubdtype(a.dtype, jnp.integer):
        return lax.div(*jnp.broadcast_arrays(a, b))
    return slopes.divide(a, b)


@op("Pow", since=(7, 12, 13, 15), traits=Traits.elementwise())
def power(x: Array, y: Array) -> Array:
    """Raise ``x`` to the power ``y``; the two may differ in dtype, the result has that of ``x``."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return slopes.power(x, y.astype(x.dtype))
    if jnp.issubdtype(y.dtype, jnp.floating):
        return jnp.power(x.astype(y.dtype), y).astype(x.dtype)
    return jnp.power(x, y.astype(x.dtype))


@op("Mod", since=(10, 13, 28), traits=Traits.elementwise())
def mod(a: Array, b: Array, *, fmod: int = 0) -> Array:
    """Return the remainder with the sign of ``b``, or with that of ``a`` if ``fmod`` is 1."""
    return jnp.fmod(a, b) if fmod else jnp.mod(a, b)


@op("Max", since=(6, 8, 12, 13), traits=Traits.elementwise(reach=reach.GREATEST))
def maximum(*data_0: Array) -> Array:
    """Take the largest of the inputs at each position."""
    return functools.reduce(jnp.maximum, data_0)


@op("Min", since=(6, 8, 12, 13), traits=Traits.elementwise(reach=reach.LEAST))
def minimum(*data_0: Array) -> Array:
    """Take the smallest of the inputs at each position."""
    return functools.reduce(jnp.minimum, data_0)


@op("Sum", since=(6, 8, 13), traits=Traits.elementwise(reach=reach.ADDS))
def add_all(*data_0: Array) -> Array:
    """Add all inputs."""
    return functools.reduce(jnp.add, data_0)


@op("Mean", since=(6, 8, 13), traits=Traits.elementwise())
def mean_of_all(*data_0: Array) -> Array:
    """Average the inputs position by position."""
    return functools.reduce(jnp.add, data_0) / len(data_0)


@op("Where", since=(9, 16), traits=Traits.elementwise(exact=(0,), reach=reach.CHOOSES))
def where(condition: Array, x: Array, y: Array) -> Array:
    """Choose ``x`` where ``condition`` holds, ``y`` elsewhere."""
    return jnp.where(condition, x, y)


@op("Neg", since=(6, 13), traits=Traits.elementwise(reach=reach.NEGATES))
def neg(x: Array) -> Array:
    """Change the sign."""
    return jnp.negative(x)


@op("Abs", since=(6, 13), traits=Traits.elementwise())
def absolute(x: Array) -> Array:
    """Absolute value."""
    return jnp.abs(x)


@op("Sign", since=(9, 13), traits=Traits.elementwise(bounds=(-1.0, 1.0)))
def sign(input: Array) -> Array:
    """Return -1, 0 or 1."""
    return jnp.sign(input)


@op("Reciprocal", since=(6, 13), traits=Traits.elementwise())
def reciprocal(x: Array) -> Array:
    """Return ``1 / x``."""
    return slopes.reciprocal(x)


@op("Sqrt", since=(6, 13), traits=Traits.elementwise())
def sqrt(x: Array) -> Array:
    """Square root; NaN below zero."""
    return slopes.sqrt(x)


@op(
    "Exp",
    since=(6, 13),
    traits=Traits.elementwise(
        reach=reach.saturates(math.exp, left=math.inf, told="from 11.1 below the largest")
    ),
)
def exp(input: Array) -> Array:
    """Exponential."""
    return slopes.exp(input)


@op("Log", since=(6, 13), traits=Traits.elementwise())
def log(input: Array) -> Array:
    """Natural logarithm."""
    return slopes.log(input)


@op(
    "Erf",
    since=(9, 13),
    traits=Traits.elementwise(
        bounds=(-1.0, 1.0),
        reach=reach.saturates(math.erf, left=math.inf, right=-math.inf, told="from -3.06 to 3.06"),
    ),
)
def erf(input: Array) -> Array:
    """Error function."""
    return lax.erf(input)


@op("Floor", since=(6, 13), traits=Traits.elementwise())
def floor(x: Array) -> Array:
    """Round down."""
    return jnp.floor(x)


@op("Ceil", since=(6, 13), traits=Traits.elementwise())
def ceil(x: Array) -> Array:
    """Round up."""
    return jnp.ceil(x)


@op("Round", since=(11, 22), traits=Traits.elementwise())
def round_half_to_even(x: Array) -> Array:
    """Round to the nearest whole number, halves to the even one."""
    return jnp.round(x)


@op("Sin", since=(7, 22), traits=Traits.elementwise(bounds=(-1.0, 1.0)))
def sin(input: Array) -> Array:
    """Sine of an angle in radians."""
    return jnp.sin(input)


@op("Cos", since=(7, 22), traits=Traits.elementwise(bounds=(-1.0, 1.0)))
def cos(input: Array) -> Array:
    """Cosine of an angle in radians."""
    return jnp.cos(input)


@op("Tan", since=(7, 22), traits=Traits.elementwise())
def tan(input: Array) -> Array:
    """Tangent of an angle in radians."""
    return slopes.tan(input)


@op("Asin", since=(7, 22), traits=Traits.elementwise())
def asin(input: Array) -> Array:
    """Inverse sine, in radians."""
    return slopes.arcsin(input)


@op("Acos", since=(7, 22), traits=Traits.elementwise())
def acos(input: Array) -> Array:
    """Inverse cosine, in radians."""
    return slopes.arccos(input)


@op(
    "Atan",
    since=(7, 22),
    traits=Traits.elementwise(
        reach=reach.saturates(
            math.atan, left=math.inf, right=-math.inf, told="from -41720 to 41720"
        )
    ),
)
def atan(input: Array) -> Array:
    """Inverse tangent, in radians."""
    return jnp.arctan(input)


@op("Sinh", since=(9, 22), traits=Traits.elementwise())
def sinh(input: Array) -> Array:
    """Hyperbolic sine."""
    return slopes.sinh(input)


@op("Cosh", since=(9, 22), traits=Traits.elementwise())
def cosh(input: Array) -> Array:
    """Hyperbolic cosine."""
    return slopes.cosh(input)


@op(
    "Tanh",
    since=(6, 13),
    traits=Traits.elementwise(
        bounds=(-1.0, 1.0),
        reach=reach.saturates(math.tanh, left=math.inf, right=-math.inf, told="from -5.9 to 5.9"),
    ),
)
def tanh(input: Array) -> Array:
    """Hyperbolic tangent."""
    return jnp.tanh(input)


@op("Asinh", since=(9, 22), traits=Traits.elementwise())
def asinh(input: Array) -> Array:
    """Inverse hyperbolic sine."""
    return jnp.arcsinh(input)


@op("Acosh", since=(9, 22), traits=Traits.elementwise())
def acosh(input: Array) -> Array:
    """Inverse hyperbolic cosine."""
    return slopes.arccosh(input)


@op("Atanh", since=(9, 22), traits=Traits.elementwise())
def atanh(input: Array) -> Array:
    """Inverse hyperbolic tangent."""
    return slopes.arctanh(input)
