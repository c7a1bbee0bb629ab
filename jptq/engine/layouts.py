"""Order of axes in memory: canonical (as ONNX says) or channels last.

XLA:CPU convolves ``[N, *spatial, C]`` 1.2 to 1.5 times faster than ``[N, C, *spatial]`` and its
pointwise convolutions are plain matrix products there (docs/benchmarks.md). Values therefore keep
channels last through whole regions and are transposed only where a meaning depends on the order.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

Perm = tuple[int, ...]
"""``physical.shape[i] == logical.shape[perm[i]]``."""


def canonical(rank: int) -> Perm:
    """Return the order that ONNX prescribes."""
    return tuple(range(rank))


def channels_last(rank: int) -> Perm:
    """Return ``(N, *spatial, C)``; canonical below rank 3, where it means nothing."""
    return (0, *range(2, rank), 1) if rank >= 3 else canonical(rank)


def inverse(perm: Perm) -> Perm:
    """Return the physical position of each logical axis."""
    return tuple(perm.index(axis) for axis in range(len(perm)))


def convert(x: Array, have: Perm, want: Perm) -> Array:
    """Bring a physical array from one order into another."""
    if have == want:
        return x
    where = inverse(have)
    return jnp.transpose(x, tuple(where[axis] for axis in want))


def broadcast(x: Array, rank: int, want: Perm) -> Array:
    """Bring a canonical operand of lower rank to ``rank`` axes in order ``want``."""
    full = x.reshape((1,) * (rank - x.ndim) + x.shape)
    return convert(full, canonical(rank), want)


def axis_position(axis: int, perm: Perm) -> int:
    """Return where a logical axis (negative counts from the end) lies physically."""
    return inverse(perm)[axis % len(perm)]


def after_removal(perm: Perm, removed: tuple[int, ...]) -> Perm:
    """Return the order that is left when logical axes are removed from a physical array."""
    kept = [axis for axis in perm if axis not in removed]
    names = sorted(kept)
    return tuple(names.index(axis) for axis in kept)
