"""How far two rankings agree, and what each cost."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from jptq.metrics.ranks import spearman
from jptq.results.sensitivity import BETTER, SensitivityTable


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agreement:
    """One ranking against a reference over the rows that both have.

    Attributes:
      method: Of the ranking.
      metric: Of the ranking.
      spearman: Rank correlation of badness; NaN where one of the two has no order.
      worst_in: How many of the reference's `worst` rows stand in the ranking's first `first`.
      worst: Size of the reference's head (10).
      first: Size of the ranking's head (20).
      ratio: Median of estimate over reference, where both are in the same unit; else None.
      seconds: Of the ranking.
    """

    method: str
    metric: str
    spearman: float
    worst_in: int
    worst: int
    first: int
    ratio: float | None
    seconds: float


def badness(table: SensitivityTable, metric: str, candidate: str | None = None) -> np.ndarray:
    """Return scores turned so that larger is worse."""
    values = table.column(metric, candidate)
    return -values if BETTER[metric] == "higher" else values


def compare(
    table: SensitivityTable,
    reference: SensitivityTable,
    *,
    metric: str | None = None,
    reference_metric: str | None = None,
    worst: int = 10,
    first: int = 20,
) -> Agreement:
    """Compare a ranking with a reference, usually the exact one.

    Args:
      table: A ranking.
      reference: What to compare with.
      metric: Column of `table`; its first if None.
      reference_metric: Column of `reference`; the same name if it has it, else ``mse``, else its
        first.
      worst: Size of the reference's head.
      first: Size of the ranking's head.
    """
    name = metric or table.metrics[0]
    other = reference_metric or (
        name
        if name in reference.metrics
        else "mse"
        if "mse" in reference.metrics
        else reference.metrics[0]
    )
    shared = [row for row in reference.rows if row in set(table.rows)]
    mine = badness(table, name)[[table.rows.index(row) for row in shared]]
    theirs = badness(reference, other)[[reference.rows.index(row) for row in shared]]
    known = ~(np.isnan(mine) | np.isnan(theirs))
    head = set(_head(theirs, worst)) & set(_head(mine, first))
    ratio = None
    if name == other and name != "cosine-similarity":
        positive = known & (theirs > 0) & (mine > 0)
        ratio = float(np.median(mine[positive] / theirs[positive])) if positive.any() else None
    ordered = known.sum() > 2 and np.ptp(mine[known]) > 0 and np.ptp(theirs[known]) > 0
    correlation = spearman(mine[known], theirs[known]) if ordered else math.nan
    return Agreement(
        method=table.method,
        metric=name,
        spearman=correlation,
        worst_in=len(head),
        worst=min(worst, len(shared)),
        first=first,
        ratio=ratio,
        seconds=table.seconds,
    )


def _head(values: np.ndarray, count: int) -> list[int]:
    return sorted(range(len(values)), key=lambda i: (np.isnan(values[i]), -values[i], i))[:count]
