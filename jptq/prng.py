"""Named random keys: one seed, one stream per purpose."""

from __future__ import annotations

import zlib

import jax
import numpy as np


def key(seed: int, *purpose: str | int) -> jax.Array:
    """Return the JAX key of a purpose, e.g. ``key(seed, "probe", 3)``."""
    out = jax.random.key(seed)
    for part in purpose:
        out = jax.random.fold_in(out, zlib.crc32(str(part).encode()))
    return out


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """Return the NumPy generator of a purpose, for host-side work."""
    return np.random.default_rng([seed, *(zlib.crc32(str(part).encode()) for part in purpose)])
