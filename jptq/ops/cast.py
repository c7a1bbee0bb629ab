"""Conversions between element types.

Source of every function here: ONNX operator specification, the version last in ``since``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jptq.errors import ModelError
from jptq.numerics import dtypes
from jptq.ops.registry import op
from jptq.ops.traits import Layout, Traits
from jptq.ops.words import choose

_GREATEST = {
    np.dtype(jnp.float8_e4m3fn): 448.0,
    np.dtype(jnp.float8_e4m3fnuz): 240.0,
    np.dtype(jnp.float8_e5m2): 57344.0,
    np.dtype(jnp.float8_e5m2fnuz): 57344.0,
}
"""Types that saturate, with their greatest finite values."""
_PARTS_OF_BYTES = tuple(map(np.dtype, (jnp.int4, jnp.uint4, jnp.int2, jnp.uint2)))
_POWER = np.dtype(jnp.float8_e8m0fnu)
_RECAST = Traits.view(layout=Layout.ELEMENTWISE)


def element_type(code: int) -> np.dtype:
    """Return the dtype that JAX uses for an ONNX element type.

    Args:
      code: ``TensorProto.DataType``.

    Returns:
      Its NumPy dtype; the 32-bit one in place of 64 bits where these are off.

    Raises:
      ModelError: The type is text, or unknown to jptq.
    """
    try:
        dtype = dtypes.from_onnx(code)
    except KeyError:
        raise ModelError(
            f"element type {code} is not supported", why="it is none that jptq has numbers for"
        ) from None
    if dtype == np.object_:
        raise ModelError("text is not supported", why="networks are computed with numbers alone")
    return jax.dtypes.canonicalize_dtype(dtype)


def _to_power_of_two(x: Array, *, saturate: bool, round_mode: str) -> Array:
    """Return positive numbers as ``float8_e8m0``, which holds powers of two from -127 to 127.

    Args:
      x: ``float32``; its sign is ignored (ONNX leaves the result for negative numbers open).
      saturate: Whether what lies beyond the range becomes its nearest end; NaN otherwise.
      round_mode: ``up``, ``down``, or ``nearest`` with halves up.

    Source: ONNX operator specification, Cast-25, the table of special values.
    """
    bits = lax.bitcast_convert_type(x, jnp.uint32) & np.uint32(0x7FFFFFFF)
    least, exponent = np.uint32(0x400000), bits >> 23
    # 2 ** -127, the least, is subnormal in float32: its leading one is a bit of the fraction.
    subnormal = (jnp.maximum(bits, least) - least) << 1
    fraction = jnp.where(exponent == 0, subnormal, bits & np.uint32(0x7FFFFF))
    goes_up = choose(
        {"up": fraction > 0, "down": fraction < 0, "nearest": fraction >= least},
        round_mode,
        "round_mode",
    )
    rounded = exponent + goes_up.astype(jnp.uint32)
    nothing, most = np.uint32(0xFF), np.uint32(0xFE)
    if saturate:
        rounded = jnp.minimum(rounded, most)
    else:
        rounded = jnp.where((bits < least) | (rounded > most), nothing, rounded)
    rounded = jnp.where(jnp.isnan(x), nothing, rounded)
    return lax.bitcast_convert_type(rounded.astype(jnp.uint8), _POWER)


def convert(x: Array, dtype: np.dtype, *, saturate: bool = True, round_mode: str = "up") -> Array:
    """Convert numbers as ONNX prescribes.

    Args:
      x: Any shape and dtype.
      dtype: Of the result. Floats become integers by truncation, booleans by ``x != 0``; what
        exceeds two or four bits wraps.
      saturate: Whether what exceeds an 8-bit float becomes its greatest finite value; infinity
        or NaN otherwise.
      round_mode: To powers of two (``float8_e8m0``): ``up``, ``down`` or ``nearest``.

    Returns:
      ``x`` as ``dtype``, in its own shape.

    Source: ONNX operator specification, Cast-25.
    """
    if dtype == _POWER and x.dtype != dtype:
        wide = x.astype(jnp.float32)
        return _to_power_of_two(wide, saturate=saturate, round_mode=round_mode)
    if dtype in _PARTS_OF_BYTES and jnp.issubdtype(x.dtype, jnp.floating):
        x = x.astype(jnp.int32)  # so that what exceeds the bits wraps, as among integers
    if dtype not in _GREATEST or x.dtype == dtype:
        return x.astype(dtype)
    wide = x if x.dtype == jnp.float64 else x.astype(jnp.float32)
    limit = _GREATEST[dtype]
    return (jnp.clip(wide, -limit, limit) if saturate else wide).astype(dtype)


@op("Cast", since=(6, 9, 13), traits=_RECAST)
def cast_6(input: Array, *, to: int) -> Array:
    """Convert to the element type ``to``."""
    return convert(input, element_type(to))


@op("Cast", since=(19, 21, 23, 24, 25, 28), traits=_RECAST)
def cast(input: Array, *, to: int, saturate: int = 1, round_mode: str = "up") -> Array:
    """Convert to the element type ``to``; ``saturate`` matters for 8-bit floats only."""
    return convert(input, element_type(to), saturate=bool(saturate), round_mode=round_mode)


@op("CastLike", since=(15, 19, 21, 23, 24, 25), traits=_RECAST)
def cast_like(
    input: Array, target_type: Array, *, saturate: int = 1, round_mode: str = "up"
) -> Array:
    """Convert to the element type of ``target_type``."""
    dtype = np.dtype(target_type.dtype)
    return convert(input, dtype, saturate=bool(saturate), round_mode=round_mode)


@op("BitCast", since=(26,), traits=Traits.float_only(layout=Layout.ELEMENTWISE))
def bit_cast(input: Array, *, to: int) -> Array:
    """Read the same bits as the element type ``to``, which must be as wide."""
    bits = input.astype(jnp.uint8) if input.dtype == jnp.bool_ else input
    dtype = element_type(to)
    if dtype == np.bool_:  # a byte in memory, which XLA does not let anyone reinterpret
        return lax.bitcast_convert_type(bits, jnp.uint8).astype(dtype)
    return lax.bitcast_convert_type(bits, dtype)
