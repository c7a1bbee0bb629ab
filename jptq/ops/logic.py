"""Comparisons, booleans and bits, element by element with NumPy's broadcasting.

Source of every function here: ONNX operator specification, the version last in ``since``.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from jptq.ops import reach
from jptq.ops.registry import op
from jptq.ops.traits import Kind, Layout, Traits
from jptq.ops.words import choose

_MASK = Traits(kind=Kind.SHAPE_ONLY, features=(), layout=Layout.ELEMENTWISE)
"""Booleans and bits are never quantized, but follow the layout of their neighbours."""

_COMPARED = Traits.elementwise(reach=reach.COMPARES)


@op("Equal", since=(7, 11, 13, 19), traits=_COMPARED)
def equal(a: Array, b: Array) -> Array:
    """Tell where ``a`` equals ``b``."""
    return jnp.equal(a, b)


@op("Greater", since=(7, 9, 13), traits=_COMPARED)
def greater(a: Array, b: Array) -> Array:
    """Tell where ``a`` is greater than ``b``."""
    return jnp.greater(a, b)


@op("GreaterOrEqual", since=(12, 16), traits=_COMPARED)
def greater_or_equal(a: Array, b: Array) -> Array:
    """Tell where ``a`` is not less than ``b``."""
    return jnp.greater_equal(a, b)


@op("Less", since=(7, 9, 13), traits=_COMPARED)
def less(a: Array, b: Array) -> Array:
    """Tell where ``a`` is less than ``b``."""
    return jnp.less(a, b)


@op("LessOrEqual", since=(12, 16), traits=_COMPARED)
def less_or_equal(a: Array, b: Array) -> Array:
    """Tell where ``a`` is not greater than ``b``."""
    return jnp.less_equal(a, b)


@op("IsNaN", since=(9, 13, 20), traits=_MASK)
def is_nan(x: Array) -> Array:
    """Tell which elements are not a number."""
    return jnp.isnan(x)


@op("IsInf", since=(10, 20), traits=_MASK)
def is_inf(x: Array, *, detect_negative: int = 1, detect_positive: int = 1) -> Array:
    """Tell which elements are infinite, of the signs asked for."""
    wanted_sign = ((x < 0) & bool(detect_negative)) | ((x > 0) & bool(detect_positive))
    return jnp.isinf(x) & wanted_sign


@op("And", since=(7,), traits=_MASK)
def logical_and(a: Array, b: Array) -> Array:
    """Tell where both hold."""
    return jnp.logical_and(a, b)


@op("Or", since=(7,), traits=_MASK)
def logical_or(a: Array, b: Array) -> Array:
    """Tell where at least one holds."""
    return jnp.logical_or(a, b)


@op("Xor", since=(7,), traits=_MASK)
def logical_xor(a: Array, b: Array) -> Array:
    """Tell where exactly one holds."""
    return jnp.logical_xor(a, b)


@op("Not", since=(1,), traits=_MASK)
def logical_not(x: Array) -> Array:
    """Tell where ``x`` does not hold."""
    return jnp.logical_not(x)


@op("BitwiseAnd", since=(18,), traits=_MASK)
def bitwise_and(a: Array, b: Array) -> Array:
    """Keep the bits set in both integers."""
    return jnp.bitwise_and(a, b)


@op("BitwiseOr", since=(18,), traits=_MASK)
def bitwise_or(a: Array, b: Array) -> Array:
    """Set the bits set in either integer."""
    return jnp.bitwise_or(a, b)


@op("BitwiseXor", since=(18,), traits=_MASK)
def bitwise_xor(a: Array, b: Array) -> Array:
    """Set the bits set in exactly one integer."""
    return jnp.bitwise_xor(a, b)


@op("BitwiseNot", since=(18,), traits=_MASK)
def bitwise_not(x: Array) -> Array:
    """Flip every bit of an integer."""
    return jnp.bitwise_not(x)


@op("BitShift", since=(11, 28), traits=_MASK)
def bit_shift(x: Array, y: Array, *, direction: str) -> Array:
    """Shift the bits of unsigned ``x`` by ``y`` places, ``LEFT`` or ``RIGHT``."""
    shift = choose({"LEFT": jnp.left_shift, "RIGHT": jnp.right_shift}, direction, "direction")
    return shift(x, y)
