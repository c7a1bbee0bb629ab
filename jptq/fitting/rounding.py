"""Weights rounded so that the output of their layer stays: an integer least-squares problem.

With ``H = sum of x x'`` over the rows x that a layer sees, integers q change an output by an error
whose sum of squares is ``d' H d``, ``d = scale q - w``. Each output has its own problem, H is
common. It is solved roughly column by column, in descending order of H's diagonal, each making up
for what the rounding of those before it costs; then single integers are moved until none gets
better. No channel is worse than rounded to the nearest.

Source: Frantar, Ashkboos, Hoefler, Alistarh 2023, arXiv:2210.17323 (GPTQ), algorithm 1, written
with the factor of H in place of that of its inverse, which makes it Babai's nearest plane (1986).
"""

from __future__ import annotations

import numpy as np

from jptq.fitting.grid import Grid

BLOCK = 64
"""Columns whose corrections are applied to the later ones at once."""

DAMPING = 0.03
"""What is added to the diagonal, as a share of its mean. See docs/method.md."""

_SWEEPS = 2
"""Rounds of improvement: more gain next to nothing."""


def damped(scatter: np.ndarray) -> np.ndarray:
    """Return a matrix that can be inverted, however few rows were summed over.

    Args:
      scatter: ``float64[G, K, K]``, symmetric, no negative eigenvalues but for rounding.
    """
    found = scatter.copy()
    diagonal = np.einsum("gkk->gk", found)
    mean = diagonal.mean(axis=1, keepdims=True)
    # Inputs that are always the same tell nothing: every rounding is as good as another.
    diagonal += np.where(mean > 0, DAMPING * mean, 1.0)
    return found


def error(hessian: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Return ``d' H d`` of every output.

    Args:
      hessian: ``[G, K, K]``.
      d: ``[G, K, M]``.

    Returns:
      ``[G, M]``.
    """
    found: np.ndarray = np.sum(d * (hessian @ d), axis=1)
    return found


def fitted(grid: Grid, hessian: np.ndarray) -> np.ndarray:
    """Return integers that change the outputs less than the nearest ones do.

    Args:
      grid: Of the weight.
      hessian: ``float64[G, K, K]``, positive definite.

    Returns:
      Integers as ``float64[G, K, M]``.
    """
    # Ascending, as columns are rounded from the last one on.
    order = np.argsort(np.einsum("gkk->gk", hessian), axis=1, kind="stable")

    def sorted_by(values: np.ndarray) -> np.ndarray:
        return np.take_along_axis(values, order[:, :, np.newaxis], axis=1)

    ordered = np.take_along_axis(sorted_by(hessian), order[:, np.newaxis, :], axis=2)
    w, s, near = map(sorted_by, (grid.weight, grid.scale, grid.nearest))
    most, stays = map(sorted_by, (grid.limit, grid.fixed))
    q = _by_columns(w, s, near, most, stays, ordered)
    worse = error(ordered, s * q - w) > error(ordered, s * near - w)
    q = np.where(worse[:, np.newaxis, :], near, q)
    _improve(q, w, s, most, stays, ordered)
    found = np.empty_like(q)
    np.put_along_axis(found, order[:, :, np.newaxis], q, axis=1)
    return found


def _by_columns(
    w: np.ndarray,
    s: np.ndarray,
    near: np.ndarray,
    most: np.ndarray,
    stays: np.ndarray,
    hessian: np.ndarray,
) -> np.ndarray:
    """Round column by column, from the last one on, each making up for those that were."""
    # d' H d = |U d|^2, U upper triangular: row k says what the later ones leave for column k.
    upper = np.linalg.cholesky(hessian).transpose(0, 2, 1)
    pivots = np.einsum("gkk->gk", upper)[:, :, np.newaxis]
    q, d = np.empty_like(w), np.empty_like(w)
    inputs = w.shape[1]
    for stop in range(inputs, 0, -BLOCK):
        start = max(stop - BLOCK, 0)
        left = upper[:, start:stop, stop:] @ d[:, stop:]
        for k in range(stop - 1, start - 1, -1):
            inside = upper[:, k : k + 1, k + 1 : stop] @ d[:, k + 1 : stop]
            wish = w[:, k] - (left[:, k - start] + inside[:, 0]) / pivots[:, k]
            rounded = np.clip(np.rint(wish / s[:, k]), -most[:, k], most[:, k])
            q[:, k] = np.where(stays[:, k], near[:, k], rounded)
            d[:, k] = s[:, k] * q[:, k] - w[:, k]
    return q


def _improve(
    q: np.ndarray,
    w: np.ndarray,
    s: np.ndarray,
    most: np.ndarray,
    stays: np.ndarray,
    hessian: np.ndarray,
) -> None:
    """Move single integers as long as that lessens the error of their output; in place."""
    d = s * q - w
    curve = np.einsum("gkk->gk", hessian)[:, :, np.newaxis] * s
    low, high = np.where(stays, q, -most), np.where(stays, q, most)
    inputs = w.shape[1]
    for _ in range(_SWEEPS):
        changed = False
        for start in range(0, inputs, BLOCK):
            block = slice(start, min(start + BLOCK, inputs))
            slope = hessian[:, block] @ d
            moved = np.zeros_like(slope)
            wish = np.clip(
                q[:, block] - np.rint(slope / curve[:, block]), low[:, block], high[:, block]
            )
            # What others of the block do to a column that was content shows in the next round.
            for i in np.flatnonzero(np.any(wish != q[:, block], axis=(0, 2))):
                k = start + i
                now = slope[:, i] + (hessian[:, k : k + 1, block] @ moved)[:, 0]
                new = np.clip(q[:, k] - np.rint(now / curve[:, k]), low[:, k], high[:, k])
                moved[:, i] = (new - q[:, k]) * s[:, k]
                q[:, k] = new
                changed = True
            d[:, block] += moved
        if not changed:
            return
