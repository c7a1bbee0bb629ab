"""Functions with points of no finite slope, and what counts as their derivative there.

The root of zero is finite and its slope is not. Backpropagation multiplies slopes: at the zero
vector the norm ``sqrt(sum(x * x))`` has infinity times zero, and in the branch that a Where does
not take a logarithm of zero has zero times infinity. One such NaN reaches every score of a network.
Here the derivative is zero where it is not finite, and so is that of the derivative; everywhere
else, and for every value, the functions are NumPy's. So a quantizer whose error passes through such
a point alone counts as one without effect to the first order.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

Function = Callable[[Array], Array]


def _finite(slope: Callable[..., Array], *regular: float) -> Callable[..., Array]:
    """Return a slope that is zero where it is not finite.

    Args:
      slope: Of arguments of one shape.
      *regular: Arguments where it is finite. They stand in where it is not, so that the slope's
        own derivatives are finite too.
    """

    def call(*at: Array) -> Array:
        sound = jnp.isfinite(slope(*at))
        safe = [
            jnp.where(sound, x, jnp.full((), r, x.dtype)) for x, r in zip(at, regular, strict=True)
        ]
        found = slope(*safe)
        return jnp.where(sound, found, jnp.zeros((), found.dtype))

    return call


def _with_slope(function: Function, slope: Function, regular: float) -> Function:
    """Return a function of one argument whose derivative is `_finite` of a slope."""
    finite = _finite(slope, regular)

    @jax.custom_jvp
    def call(x: Array) -> Array:
        return function(x)

    @call.defjvp
    def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
        return call(*primals), tangents[0] * finite(*primals)

    return call


reciprocal = _with_slope(jnp.reciprocal, lambda x: -jnp.reciprocal(x * x), 1.0)
rsqrt = _with_slope(lax.rsqrt, lambda x: -0.5 * lax.rsqrt(x) / x, 1.0)
sqrt = _with_slope(jnp.sqrt, lambda x: 0.5 * rsqrt(x), 1.0)
log = _with_slope(jnp.log, reciprocal, 1.0)
exp = _with_slope(jnp.exp, jnp.exp, 0.0)
sinh = _with_slope(jnp.sinh, jnp.cosh, 0.0)
cosh = _with_slope(jnp.cosh, jnp.sinh, 0.0)
tan = _with_slope(jnp.tan, lambda x: 1 + jnp.square(jnp.tan(x)), 0.0)
arcsin = _with_slope(jnp.arcsin, lambda x: lax.rsqrt((1 - x) * (1 + x)), 0.0)
arccos = _with_slope(jnp.arccos, lambda x: -lax.rsqrt((1 - x) * (1 + x)), 0.0)
arccosh = _with_slope(jnp.arccosh, lambda x: lax.rsqrt((x - 1) * (x + 1)), 2.0)
arctanh = _with_slope(jnp.arctanh, lambda x: jnp.reciprocal((1 - x) * (1 + x)), 0.0)


@jax.custom_jvp
def divide(a: Array, b: Array) -> Array:
    """Divide floats, which broadcast."""
    return jnp.divide(a, b)


_divide_by_a = _finite(lambda a, b: jnp.reciprocal(b), 0.0, 1.0)
_divide_by_b = _finite(lambda a, b: -a / b / b, 0.0, 1.0)


@divide.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    da, db = tangents
    return divide(*primals), da * _divide_by_a(*primals) + db * _divide_by_b(*primals)


def power(x: Array, y: ArrayLike) -> Array:
    """Raise to a power of the same dtype, or a number; both broadcast."""
    return _power(x, jnp.asarray(y, x.dtype))


@jax.custom_jvp
def _power(x: Array, y: Array) -> Array:
    return jnp.power(x, y)


_power_by_x = _finite(lambda x, y: y * _power(x, y - 1), 1.0, 1.0)
_power_by_y = _finite(lambda x, y: _power(x, y) * log(x), 1.0, 1.0)


@_power.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    dx, dy = tangents
    return _power(*primals), dx * _power_by_x(*primals) + dy * _power_by_y(*primals)
