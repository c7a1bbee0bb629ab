"""The one place that decides which integer dtype stands for ONNX's int64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


def to_index(x: ArrayLike) -> jax.Array:
    """Cast to int64, or to int32 where 64-bit types are off.

    Args:
      x: Whole numbers of any shape and dtype.

    Returns:
      The same numbers in ``jax.dtypes.canonicalize_dtype(np.int64)``.
    """
    return jnp.asarray(x).astype(jax.dtypes.canonicalize_dtype(np.int64))
