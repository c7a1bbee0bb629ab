"""Named random generators: one seed, one stream per purpose."""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """Return the generator of a purpose, e.g. ``generator(seed, "probe", 3)``."""
    return np.random.default_rng([seed, *(zlib.crc32(str(part).encode()) for part in purpose)])


def signs(generator: np.random.Generator, shape: int | tuple[int, ...]) -> np.ndarray:
    """Draw signs: -1 or 1 as ``int8[*shape]``."""
    return generator.integers(0, 2, shape, dtype=np.int8) * np.int8(2) - np.int8(1)
