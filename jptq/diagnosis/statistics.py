"""What a quantizer's tensor looks like in numbers, and how much of its grid it uses."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from jptq.diagnosis.grid import Grid
from jptq.diagnosis.walk import Walk, as_float
from jptq.engine.runner import Runner, SampleSet
from jptq.quant.assign import Assignment, Table, Thresholds, table
from jptq.quant.plan import Calibration, Plan

PERCENTILES = (0.01, 0.1, 1.0, 25.0, 50.0, 75.0, 99.0, 99.9, 99.99)

_CELLS = 1 << 16
"""Cells of the table that percentiles are read from: as fine as an INT16 grid over the range."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorStatistics:
    """One quantizer's tensor in the float network.

    Attributes:
      calibration: Name of the quantizer.
      tensor: What it reads.
      kind: ``feature`` or ``weight``.
      qtype: The type it holds.
      minimum: Least value.
      maximum: Largest value.
      mean: Of all values.
      std: Standard deviation of all values.
      zeros: Share of values that are exactly 0.
      percentiles: ``{percent: value}`` of `PERCENTILES`; a value is right to 1/65536 of the range.
      threshold: Of the widest channel; None without one.
      clipped: Share of values that lie beyond the grid by more than half a step.
      used_bits: Binary logarithm of the number of grid points that are hit, over all channels
        together; None without a grid.
      sqnr_db: Signal over rounding noise, in true decibels (20 log10); None without noise.
      samples: How many the values come from; 0 for a constant.
    """

    calibration: str
    tensor: str
    kind: str
    qtype: str
    minimum: float
    maximum: float
    mean: float
    std: float
    zeros: float
    percentiles: dict[float, float]
    threshold: float | None
    clipped: float
    used_bits: float | None
    sqnr_db: float | None
    samples: int


def statistics_of(
    runner: Runner,
    thresholds: Thresholds,
    assignment: Assignment,
    names: Sequence[str],
    samples: SampleSet,
) -> tuple[TensorStatistics, ...]:
    """Return the statistics of some quantizers' tensors.

    Two passes over the samples, the first of which finds the range.

    Args:
      runner: Of a calibrated graph.
      thresholds: Of every calibration.
      assignment: Of every calibration.
      names: Calibrations.
      samples: To run for features.

    Raises:
      UnknownNameError: A name is no calibration.
    """
    walk = Walk.of(runner)
    plan = walk.plan
    grids = table(plan, thresholds, assignment)
    chosen = {name: _Running(plan.calibration(name), plan, grids) for name in names}
    constants = walk.constants
    features = {r.calibration.tensor for r in chosen.values()} - set(constants)
    reference = as_float(runner, grids)
    for take in (_Running.measure, _Running.count):
        for running in chosen.values():
            if running.calibration.tensor in constants:
                take(running, constants[running.calibration.tensor][np.newaxis])
        for feeds, count in runner.batches(samples if features else (), walk.batch(1)):
            for _, values in walk([reference], feeds, features):
                for running in chosen.values():
                    if running.calibration.tensor in values:
                        take(running, np.asarray(values[running.calibration.tensor])[:count])
    return tuple(
        running.result(
            assignment[name],
            thresholds.get(name),
            0 if running.calibration.tensor in constants else len(samples),
        )
        for name, running in chosen.items()
    )


class _Running:
    """Sums over the values of one tensor."""

    def __init__(self, calibration: Calibration, plan: Plan, grids: Table) -> None:
        self.calibration = calibration
        self.grid = Grid(calibration, plan, grids)
        self.low, self.high = math.inf, -math.inf
        self.size = self.zeros = self.beyond = 0
        self.sums = np.zeros(3)
        self.cells = np.zeros(_CELLS, np.int64)
        self.hit = np.zeros(self.grid.upper - self.grid.lower + 1, bool)

    def measure(self, values: np.ndarray) -> None:
        """Take in ``[S, *shape]`` for the range, the sums and the grid."""
        if not values.size:  # it is the same for every sample: the tensor counts as zero
            self.low = self.high = 0.0
        self.low = min(self.low, float(values.min(initial=math.inf)))
        self.high = max(self.high, float(values.max(initial=-math.inf)))
        self.size += values.size
        self.zeros += int(np.count_nonzero(values == 0))
        x = values.astype(np.float64)
        applied = self.grid.applied(values)
        self.beyond += applied.clipped
        if applied.codes is not None:
            self.hit[applied.codes] = True
        noise = np.square(applied.rounded - x).sum()
        self.sums += [x.sum(), np.square(x).sum(), noise]

    def count(self, values: np.ndarray) -> None:
        """Take in ``[S, *shape]`` for the percentiles, the range being known."""
        self.cells += np.histogram(values, _CELLS, (self.low, self.high))[0]

    def result(self, qtype: str, thresholds: np.ndarray | None, samples: int) -> TensorStatistics:
        total, squares, noise = (float(v) for v in self.sums)
        mean = total / max(self.size, 1)
        edges = np.linspace(self.low, self.high, _CELLS + 1)
        reached = np.concatenate([[0], np.cumsum(self.cells)]) / max(self.size, 1)
        reached[-1] = 1.0  # of a tensor without elements, too
        return TensorStatistics(
            calibration=self.calibration.name,
            tensor=self.calibration.tensor,
            kind=self.calibration.kind,
            qtype=qtype,
            minimum=self.low,
            maximum=self.high,
            mean=mean,
            std=math.sqrt(max(squares / max(self.size, 1) - mean**2, 0.0)),
            zeros=self.zeros / max(self.size, 1),
            percentiles={p: float(edges[np.searchsorted(reached, p / 100)]) for p in PERCENTILES},
            threshold=None if thresholds is None else float(np.max(np.abs(thresholds))),
            clipped=self.beyond / max(self.size, 1),
            used_bits=math.log2(max(int(self.hit.sum()), 1)) if self.grid.integral else None,
            sqnr_db=10 * math.log10(squares / noise) if noise > 0 and squares > 0 else None,
            samples=samples,
        )
