"""Operators that draw random numbers in training, as they behave at inference.

Source of every function here: ONNX operator specification, the version last in ``since``.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

from jptq.errors import ModelError
from jptq.ops.registry import op
from jptq.ops.traits import Traits


@op("Dropout", since=(6,), traits=Traits.view())
def dropout_6(data: Array, *, is_test: int = 0, ratio: float = 0.5) -> tuple[Array, Array]:
    """Return the input, whatever ``is_test`` says, and a mask of ones in its dtype."""
    del is_test
    return dropout_7(data, ratio=ratio)


@op("Dropout", since=(7,), traits=Traits.view())
def dropout_7(data: Array, *, ratio: float = 0.5) -> tuple[Array, Array]:
    """Return the input and a mask of ones in its dtype."""
    del ratio
    return data, jnp.ones_like(data)


@op("Dropout", since=(10,), traits=Traits.view())
def dropout_10(data: Array, *, ratio: float = 0.5) -> tuple[Array, Array]:
    """Return the input and a mask that keeps everything."""
    del ratio
    return data, jnp.ones(data.shape, jnp.bool_)


@op("Dropout", since=(12, 13, 22), static=("ratio", "training_mode"), traits=Traits.view())
def dropout(
    data: Array,
    ratio: np.ndarray | None = None,
    training_mode: np.ndarray | None = None,
    *,
    seed: int | None = None,
) -> tuple[Array, Array]:
    """Return the input and a mask that keeps everything.

    Args:
      data: Any shape.
      ratio: Share of elements to drop in training, a scalar; one half if absent.
      training_mode: Whether to drop them, a scalar; no if absent.
      seed: Of the generator; without effect.

    Returns:
      ``data``, and ``bool`` ones in its shape.

    Raises:
      ModelError: Elements would be dropped, so that no two runs could be compared.
    """
    del seed
    drops = ratio is None or ratio.item() > 0
    if drops and training_mode is not None and training_mode.item():
        raise ModelError("Dropout in training mode", hint="export the network for inference")
    return dropout_10(data)
