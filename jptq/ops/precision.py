"""The precision that sums are computed in."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array


def widened(x: Array) -> Array:
    """Return floats of less than 32 bits as float32; all else unchanged.

    Squares and sums of float16 overflow long before their root or mean does. Runtimes add in
    float32, whatever ``stash_type`` a node has.
    """
    narrow = jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize < 4
    return x.astype(jnp.float32) if narrow else x
