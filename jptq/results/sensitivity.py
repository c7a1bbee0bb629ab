"""Sensitivity scores: how much the outputs suffer if only one thing is quantized."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jptq import files
from jptq.errors import StorageError, UnknownNameError

SCHEMA = 1

BETTER = {
    "cosine-similarity": "higher",
    "sqnr": "higher",
    "mse": "lower",
    "mre": "lower",
    "mae": "lower",
    "chebyshev": "lower",
    "nsr": "lower",
    "channel-nsr": "lower",
    "taylor": "lower",
    "fisher": "lower",
    "hessian": "lower",
}
"""Direction of each score: a ranking lists the worst first (hmct-spec 2.5)."""


DIGITS = 5
"""Decimals of a score as it is printed."""

FEWER = 0.001
"""An error below this is printed with so many significant digits instead: those of small outputs
would all be 0.0."""


def shown(metric: str, value: float) -> float:
    """Return a score as our tables print it and as it is compared with thresholds.

    Args:
      metric: Of `BETTER`; a cosine and a ratio in decibels have `DIGITS` decimals, as the vendor's.
      value: The score.

    Example:
      >>> shown("mse", 0.00000123456), shown("mse", 27730.669921875), shown("sqnr", 0.0000123)
      (1.2346e-06, 27730.66992, 1e-05)
    """
    if BETTER[metric] == "lower" and abs(value) < FEWER:
        return float(f"{value:.{DIGITS}g}")
    return round(float(value), DIGITS)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SensitivityTable:
    """Scores of N rows under Q candidates by M metrics.

    Attributes:
      rows: Names of nodes, or of calibrations for kinds other than ``node``.
      kind: ``node``, ``weight``, ``activation`` or ``group``.
      members: Calibrations that each row switches on.
      candidates: Types that the row's calibrations were set to; ``current`` keeps what they hold.
      metrics: Names as in `BETTER`.
      score: ``float64[N, Q, M]``; NaN where a row does not accept a candidate.
      stderr: ``float64[N, Q, M]``, over what was drawn by chance, the samples given; 0 if nothing
        was.
      outputs: The outputs that were compared.
      method: ``metric``, ``probe``, ``gradient`` or ``hessian``.
      samples: Number of samples.
      seconds: Wall time of the method, compilation included; only reported, never compared.
      notes: What a reader has to know (a regime that is not linear, rows re-scored exactly).
      cost: Forward- and backward-pass counts per sample, for comparing methods.
      digests: Of the float network (``model``) and of the samples (``data``).
    """

    rows: tuple[str, ...]
    kind: str
    members: tuple[tuple[str, ...], ...]
    candidates: tuple[str, ...]
    metrics: tuple[str, ...]
    score: np.ndarray
    stderr: np.ndarray
    outputs: tuple[str, ...]
    method: str
    samples: int
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    cost: Mapping[str, float] = dataclasses.field(default_factory=dict)
    digests: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def column(self, metric: str, candidate: str | None = None) -> np.ndarray:
        """Return ``float64[N]`` of one metric and candidate (the first if None).

        Raises:
          UnknownNameError: The table does not hold that metric or candidate.
        """
        if metric not in self.metrics:
            raise UnknownNameError("metric", metric, self.metrics)
        name = self.candidates[0] if candidate is None else candidate
        if name not in self.candidates:
            raise UnknownNameError("candidate", name, self.candidates)
        return np.asarray(self.score[:, self.candidates.index(name), self.metrics.index(metric)])

    def order(self, metric: str | None = None, candidate: str | None = None) -> list[int]:
        """Return row indices, worst first; NaN last, ties in graph order."""
        name = self.metrics[0] if metric is None else metric
        values = self.column(name, candidate)
        keys = values if BETTER[name] == "higher" else -values
        return sorted(range(len(self.rows)), key=lambda i: (np.isnan(keys[i]), keys[i], i))

    def take(self, indices: Sequence[int]) -> SensitivityTable:
        """Return the table of some rows."""
        keep = list(indices)
        return dataclasses.replace(
            self,
            rows=tuple(self.rows[i] for i in keep),
            members=tuple(self.members[i] for i in keep),
            score=self.score[keep],
            stderr=self.stderr[keep],
        )

    def only(self, metrics: Sequence[str]) -> SensitivityTable:
        """Return the table of some metrics, in that order.

        Raises:
          UnknownNameError: The table does not hold one.
        """
        for name in metrics:
            if name not in self.metrics:
                raise UnknownNameError("metric", name, self.metrics)
        columns = [self.metrics.index(name) for name in metrics]
        return dataclasses.replace(
            self,
            metrics=tuple(metrics),
            score=self.score[..., columns],
            stderr=self.stderr[..., columns],
        )

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``sensitivity.json``, without times: same inputs, same bytes."""
        return {
            "schema": SCHEMA,
            "digests": dict(self.digests),
            "method": self.method,
            "kind": self.kind,
            "samples": self.samples,
            "outputs": list(self.outputs),
            "candidates": list(self.candidates),
            "metrics": list(self.metrics),
            "notes": list(self.notes),
            "cost": dict(self.cost),
            "rows": [
                {
                    "name": name,
                    "calibrations": list(self.members[i]),
                    "score": _plain(self.score[i]),
                    "stderr": _plain(self.stderr[i]),
                }
                for i, name in enumerate(self.rows)
            ],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], *, where: str = "") -> SensitivityTable:
        """Read back what `to_json` wrote.

        Raises:
          StorageError: The content is of another schema or incomplete.
        """
        try:
            if content["schema"] != SCHEMA:
                raise StorageError(f"sensitivity table of schema {content['schema']}", where=where)
            rows = content["rows"]
            shape = (len(rows), len(content["candidates"]), len(content["metrics"]))
            return cls(
                rows=tuple(row["name"] for row in rows),
                kind=content["kind"],
                members=tuple(tuple(row["calibrations"]) for row in rows),
                candidates=tuple(content["candidates"]),
                metrics=tuple(content["metrics"]),
                score=np.asarray([_numbers(row["score"]) for row in rows]).reshape(shape),
                stderr=np.asarray([_numbers(row["stderr"]) for row in rows]).reshape(shape),
                outputs=tuple(content["outputs"]),
                method=content["method"],
                samples=content["samples"],
                notes=tuple(content["notes"]),
                cost=dict(content["cost"]),
                digests=dict(content["digests"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise StorageError("not a sensitivity table", where=where, why=str(error)) from error

    def save(self, path: Path) -> None:
        """Write ``sensitivity.json``."""
        files.write_json(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> SensitivityTable:
        """Read ``sensitivity.json``."""
        return cls.from_json(files.read_json(path), where=str(path))


def _plain(values: np.ndarray) -> list[list[float | str]]:
    """JSON has no infinities: they are written as words."""
    return [[float(v) if np.isfinite(v) else str(float(v)) for v in row] for row in values]


def _numbers(values: list[list[float | str]]) -> list[list[float]]:
    return [[float(v) for v in row] for row in values]
