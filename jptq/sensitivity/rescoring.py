"""Score the contested head of an estimated ranking exactly, and tell whether the estimate holds.

Estimates from derivatives are first-order: behind a saturated softmax, say, they are off by
factors for the very rows that matter. A few exact scores mend the head and show the regime.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from jptq.engine.runner import Runner, SampleSet
from jptq.metrics.ranks import spearman
from jptq.quant.assign import Assignment, Thresholds
from jptq.results.sensitivity import SensitivityTable
from jptq.sensitivity import exact
from jptq.sensitivity.compare import badness
from jptq.sensitivity.exact import Progress
from jptq.sensitivity.rows import Rows

SHARE = 0.1
"""Largest share of the rows that is scored exactly."""

HEAD = 20
"""Rows that should be exact, if the share allows."""

LINEAR = (0.5, 2.0)
"""Median of estimate over exact score outside of which the regime is called not linear."""

AGREEING = 0.5
"""Rank correlation with the exact scores below which it is called so too."""

FAR = 10.0
"""Factor between estimate and exact score that no chance of the probes explains."""


def rescore(
    table: SensitivityTable,
    runner: Runner,
    thresholds: Thresholds,
    base: Assignment,
    rows: Rows,
    samples: SampleSet,
    *,
    progress: Progress = lambda done, total: None,
) -> SensitivityTable:
    """Replace the worst estimates by exact scores, until the head is exact or the share is spent.

    Args:
      table: Estimates by `probe`, in metrics that the exact sweep has too.
      runner: Of the calibrated graph.
      thresholds: Of every calibration.
      base: What rows hold under the candidate ``current``.
      rows: What `table` scores.
      samples: The samples of `table`.
      progress: Called after every exact row.

    Returns:
      The table with exact rows (standard error 0) and a note on how they compare.
    """
    metric = table.metrics[0]
    score, stderr = table.score.copy(), table.stderr.copy()
    unknown = int(np.isnan(score[:, 0, 0]).sum())
    left = max(math.floor(SHARE * len(rows.names)), unknown)
    known: list[int] = []
    while left > 0:
        current = dataclasses.replace(table, score=score)
        # A row without an estimate (an infinite derivative, say) is the most contested of all.
        bad = np.nan_to_num(badness(current, metric), nan=np.inf)
        order = np.argsort(-bad, kind="stable")
        contested = [int(i) for i in order[:HEAD] if int(i) not in known][:left]
        if not contested:
            break
        found = exact.rank(
            runner,
            thresholds,
            base,
            rows.take(contested),
            samples,
            metrics=table.metrics,
            progress=progress,
        )
        score[contested], stderr[contested] = found.score, 0.0
        known += contested
        left -= len(contested)
    if not known:
        return table
    note = _verdict(table.score[known, 0, 0], score[known, 0, 0], metric)
    cost = {**table.cost, "exact rows": float(len(known))}
    return dataclasses.replace(
        table, score=score, stderr=stderr, notes=(*table.notes, note), cost=cost
    )


def _verdict(estimated: np.ndarray, exact_scores: np.ndarray, metric: str) -> str:
    """Say how the estimates of the rescored rows compare with their exact scores."""
    if metric == "cosine-similarity":
        estimated, exact_scores = 1.0 - estimated, 1.0 - exact_scores
    positive = (estimated > 0) & (exact_scores > 0)
    if not positive.any():
        return f"The {len(estimated)} worst rows were scored exactly."
    ratios = estimated[positive] / exact_scores[positive]
    median = float(np.median(ratios))
    text = (
        f"The {len(estimated)} worst rows were scored exactly: estimate over exact {median:.2f} in "
        f"the median, {ratios.min():.2g} to {ratios.max():.2g}"
    )
    agree = 1.0
    if positive.sum() > 3 and np.ptp(ratios) > 0:
        agree = spearman(estimated[positive], exact_scores[positive])
    if LINEAR[0] <= median <= LINEAR[1] and agree >= AGREEING:
        far = int(((ratios > FAR) | (ratios < 1 / FAR)).sum())
        if not far:
            return text + ". The estimate holds."
        return (
            text
            + f". The estimate holds for most rows, {far} off by more than {FAR:g} times: where "
            "outputs saturate, rows below the rescored ones may be off too."
        )
    return (
        text + f", rank correlation {agree:.2f}. The regime is not linear: large perturbations "
        "saturate the outputs, and rows below the rescored ones may be misordered too."
    )
