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

_GREATEST = {
    np.dtype(jnp.float8_e4m3fn): 448.0,
    np.dtype(jnp.float8_e4m3fnuz): 240.0,
    np.dtype(jnp.float8_e5m2): 57344.0,
    np.dtype(jnp.float8_e5m2fnuz): 57344.0,
}
"""Types that saturate, with their greatest finite values."""
_NIBBLES = (np.dtype(jnp.int4), np.dtype(jnp.uint4))
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
        dtype = np.dtype(np.object_)
    if dtype == np.object_:
        raise ModelError(
            f"element type {code} is not supported",
            why="it is text, or a type that JAX has no numbers for",
        )
    return jax.dtypes.canonicalize_dtype(dtype)


def convert(x: Array, dtype: np.dtype, *, saturate: bool = True) -> Array:
    """Convert numbers as ONNX prescribes.

    Args:
      x: Any shape and dtype.
      dtype: Of the result. Floats become integers by truncation, booleans by ``x != 0``.
      saturate: Whether what exceeds an 8-bit float becomes its greatest finite value; infinity
        or NaN otherwise.

    Returns:
      ``x`` as ``dtype``, in its own shape.

    Source: ONNX operator specification, Cast-25.
    """
    if dtype in _NIBBLES and jnp.issubdtype(x.dtype, jnp.floating):
        x = x.astype(jnp.int32)  # so that what exceeds four bits wraps, as among integers
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
    del round_mode  # concerns powers of two (float8_e8m0) alone, which `element_type` refuses
    return convert(input, element_type(to), saturate=bool(saturate))


@op("CastLike", since=(15, 19, 21, 23, 24, 25), traits=_RECAST)
def cast_like(
    input: Array, target_type: Array, *, saturate: int = 1, round_mode: str = "up"
) -> Array:
    """Convert to the element type of ``target_type``."""
    del round_mode  # see `cast`
    return convert(input, np.dtype(target_type.dtype), saturate=bool(saturate))


@op("BitCast", since=(26,), traits=Traits.float_only(layout=Layout.ELEMENTWISE))
def bit_cast(input: Array, *, to: int) -> Array:
    """Read the same bits as the element type ``to``, which must be as wide."""
    bits = input.astype(jnp.uint8) if input.dtype == jnp.bool_ else input
    dtype = element_type(to)
    if dtype == np.bool_:  # a byte in memory, which XLA does not let anyone reinterpret
        return lax.bitcast_convert_type(bits, jnp.uint8).astype(dtype)
    return lax.bitcast_convert_type(bits, dtype)
