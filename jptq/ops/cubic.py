"""Keys' cubic convolution kernel, for NumPy and JAX arrays alike.

Source: Keys 1981, Cubic convolution interpolation for digital image processing, eq. 15.
"""

from __future__ import annotations

from typing import Final, TypeVar

import numpy as np
from jax import Array

A = TypeVar("A", np.ndarray, Array)

COEFFICIENT: Final = -0.75
"""The kernel's slope at distance one that ONNX prescribes where no attribute does."""


def near(distance: A, a: float = COEFFICIENT) -> A:
    """Return the weight at distances from 0 to 1."""
    return ((a + 2) * distance - (a + 3)) * distance * distance + 1


def far(distance: A, a: float = COEFFICIENT) -> A:
    """Return the weight at distances from 1 to 2; beyond there is none."""
    return ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
