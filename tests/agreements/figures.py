"""Measured agreements, and the distances that measure them: plain NumPy in float64."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured agreement.

    Attributes:
      what: A row of design 6.
      values: ``{quantity: measured}``.
      limits: ``{quantity: largest value allowed}``; a quantity without one is only reported.
    """

    what: str
    values: Mapping[str, float]
    limits: Mapping[str, float]

    @property
    def holds(self) -> bool:
        """Tell whether no limit is passed; what is not a number passes every limit."""
        return all(self.values[name] <= limit for name, limit in self.limits.items())

    def __str__(self) -> str:
        return f"{self.what}: " + ", ".join(
            f"{name} {value:.3g}"
            + (f" (limit {self.limits[name]:g})" if name in self.limits else "")
            for name, value in self.values.items()
        )


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Return the cosine of two arrays, flattened, in float64."""
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """Return one minus the cosine."""
    return 1 - cosine(a, b)


def relative_l2(a: np.ndarray, b: np.ndarray) -> float:
    """Return the distance of ``a`` from ``b`` as a share of the length of ``b``."""
    return float(np.linalg.norm((a - b).astype(np.float64)) / np.linalg.norm(b.astype(np.float64)))


def _error(f: np.ndarray, q: np.ndarray) -> np.ndarray:
    return np.abs(q.astype(np.float64) - f.astype(np.float64)).ravel()


def _mre(f: np.ndarray, q: np.ndarray) -> float:
    size = np.abs(f.astype(np.float64)).ravel()
    return float(np.mean(_error(f, q)[size > 0] / size[size > 0]))


def _sqnr(f: np.ndarray, q: np.ndarray) -> float:
    signal = float(np.linalg.norm(f.astype(np.float64)))
    return float(10 * np.log10(signal / np.linalg.norm(_error(f, q))))


ORACLES: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "cosine-similarity": cosine,
    "mre": _mre,
    "mse": lambda f, q: float(np.mean(_error(f, q) ** 2)),
    "sqnr": _sqnr,
    "chebyshev": lambda f, q: float(_error(f, q).max()),
}
"""Metrics of a float and a quantized output, as hmct-spec 2.5 defines them."""
