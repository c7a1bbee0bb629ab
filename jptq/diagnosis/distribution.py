"""How values are spread before and after fake quantization, and the error of a node's output.

Histograms are made in two passes over the samples, the first of which finds the range: memory does
not depend on their number. Zeros are left out (hmct-spec 3.4): behind a Relu nothing else would be
seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from jptq.diagnosis.grid import Grid
from jptq.diagnosis.walk import Walk, as_float
from jptq.engine.runner import Runner, SampleSet
from jptq.numerics.qtypes import qtype
from jptq.quant.assign import Assignment, Table, Thresholds, table
from jptq.quant.plan import Calibration, Plan

BINS = 1024


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Histogram:
    """Values that are not zero, in B bins of equal width.

    Attributes:
      edges: ``float64[B + 1]``, in the tensor's unit.
      counts: ``int64[B]``.
    """

    edges: np.ndarray
    counts: np.ndarray

    @property
    def centres(self) -> np.ndarray:
        """``float64[B]``: the middle of each bin."""
        return np.asarray((self.edges[1:] + self.edges[:-1]) / 2)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class QuantizerDistribution:
    """What one quantizer takes in and gives out.

    Attributes:
      calibration: Its name.
      tensor: The tensor it reads.
      kind: ``feature`` or ``weight``.
      qtype: The type it holds.
      before: Float values.
      after: The same values on the grid, in the same bins.
      limits: The thresholds: -T and T of the widest channel, or the range [min, max]; infinite
        without a grid.
      largest: Largest absolute value.
      clipped: Share of all values that lie beyond the grid by more than half a step.
      cosine: Between before and after; 1 if both are zero.
      samples: How many the values come from; 0 for a constant.
      grids: Thresholds that it holds: one for each channel, or 1.
    """

    calibration: str
    tensor: str
    kind: str
    qtype: str
    before: Histogram
    after: Histogram
    limits: tuple[float, float]
    largest: float
    clipped: float
    cosine: float
    samples: int
    grids: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class OutputDistribution:
    """What a node gives out in the float network and in the quantized one.

    Attributes:
      node: Its name.
      tensor: The output.
      before: Float values.
      after: Values in the quantized network, in the same bins.
      error: Their differences, quantized less float.
      mean_error: Mean of all differences.
      rms_error: Root of their mean square.
      samples: How many the values come from.
      limits: The thresholds of the quantizer that reads the output, as `QuantizerDistribution`
        has them; infinite if none does.
    """

    node: str
    tensor: str
    before: Histogram
    after: Histogram
    error: Histogram
    mean_error: float
    rms_error: float
    samples: int
    limits: tuple[float, float] = (-np.inf, np.inf)


def distributions_of(
    runner: Runner,
    thresholds: Thresholds,
    assignment: Assignment,
    names: Sequence[str],
    samples: SampleSet,
    *,
    bins: int = BINS,
) -> tuple[QuantizerDistribution, ...]:
    """Return the distributions at some quantizers, features as the float network has them.

    Args:
      runner: Of a calibrated graph.
      thresholds: Of every calibration.
      assignment: Of every calibration.
      names: Calibrations.
      samples: To run for features.
      bins: Of the histograms.

    Raises:
      UnknownNameError: A name is no calibration.
    """
    walk = Walk.of(runner)
    plan = walk.plan
    chosen = [plan.calibration(name) for name in names]
    grids = table(plan, thresholds, assignment)
    traces = {c.name: _Trace(c, thresholds.get(c.name), grids, plan, bins) for c in chosen}
    weights = [c for c in chosen if c.tensor in walk.constants]
    features = [c for c in chosen if c.tensor not in walk.constants]
    tensors = {c.tensor for c in features}
    reference = as_float(runner, grids)
    for stage in ("range", "counts"):
        for c in weights:
            traces[c.name].see(walk.constants[c.tensor][np.newaxis], stage)
        for feeds, count in runner.batches(samples if features else (), walk.batch(1)):
            for _, values in walk([reference], feeds, tensors):
                for c in features:
                    if c.tensor in values:
                        traces[c.name].see(np.asarray(values[c.tensor])[:count], stage)
        for trace in traces.values():
            trace.before.share(trace.after)
    return tuple(
        traces[c.name].result(assignment[c.name], 0 if c in weights else len(samples))
        for c in chosen
    )


def output_distributions_of(
    runner: Runner,
    quantized: Table,
    tensors: Collection[str],
    samples: SampleSet,
    *,
    bins: int = BINS,
) -> tuple[OutputDistribution, ...]:
    """Return the distributions of node outputs with and without quantizers, in graph order.

    Args:
      runner: Of a calibrated graph.
      quantized: What is quantized and how.
      tensors: Outputs of nodes (`Walk.tensors`).
      samples: To run.
      bins: Of the histograms.

    Raises:
      UnknownNameError: A tensor is no float output of a node.
    """
    walk = Walk.of(runner)
    wanted = [(n, t) for n, t in zip(walk.nodes, walk.tensors, strict=True) if t in set(tensors)]
    both = [as_float(runner, quantized), runner.pack(quantized)]
    seen = {t: (_Counter(bins), _Counter(bins), _Counter(bins)) for _, t in wanted}
    sums = {t: np.zeros(3) for _, t in wanted}
    for stage in ("range", "counts"):
        for feeds, count in runner.batches(samples, walk.batch(2)):
            floats: dict[str, np.ndarray] = {}
            for index, values in walk(both, feeds, tensors):
                if index == 0:
                    floats = {n: np.asarray(v)[:count] for n, v in values.items()}
                    continue
                for name, value in values.items():
                    a, b = floats[name], np.asarray(value)[:count]
                    # Subtracted in float64, or the difference would carry a rounding of its own.
                    error = b.astype(np.float64) - a
                    for counter, part in zip(seen[name], (a, b, error), strict=True):
                        counter.see(part, stage)
                    if stage == "range":
                        sums[name] += [error.size, error.sum(), np.square(error).sum()]
        for before, after, _ in seen.values():
            before.share(after)
    return tuple(
        OutputDistribution(
            node=node,
            tensor=tensor,
            before=seen[tensor][0].histogram(),
            after=seen[tensor][1].histogram(),
            error=seen[tensor][2].histogram(),
            mean_error=float(sums[tensor][1] / max(sums[tensor][0], 1)),
            rms_error=float(np.sqrt(sums[tensor][2] / max(sums[tensor][0], 1))),
            samples=len(samples),
            limits=_limits_of(walk.plan, quantized, tensor),
        )
        for node, tensor in wanted
    )


def _limits_of(plan: Plan, held: Table, tensor: str) -> tuple[float, float]:
    """Return the thresholds at a tensor by a table; infinite without a quantizer of integers."""
    k = next((k for k, one in enumerate(plan.calibrations) if one.tensor == tensor), None)
    if k is None or not held.gate[k] > 0 or not held.lower[k] < held.upper[k]:
        return (-np.inf, np.inf)
    start, stop = plan.offsets[k], plan.offsets[k + 1]
    scale = float(np.max(np.asarray(held.scale[start:stop])))
    offset = float(held.offset[start])
    high = (float(held.upper[k]) - offset) * scale
    # Around 0 the one step more below it is no threshold.
    low = (float(held.lower[k]) - offset) * scale if offset else -high
    return (low, high)


class _Counter:
    """A histogram under construction: first the range, then the counts."""

    def __init__(self, bins: int) -> None:
        self.low, self.high = np.inf, -np.inf
        self.counts = np.zeros(bins, np.int64)

    def see(self, values: np.ndarray, stage: str) -> None:
        values = values[np.isfinite(values) & (values != 0)]
        if not values.size:
            return
        if stage == "range":
            self.low = min(self.low, float(values.min()))
            self.high = max(self.high, float(values.max()))
        else:
            self.counts += np.histogram(values, self.counts.size, self.range)[0]

    @property
    def range(self) -> tuple[float, float]:
        """A single value has a bin of its own width around it; no value at all, an empty unit."""
        if self.low > self.high:
            return (-0.5, 0.5)
        if self.low == self.high:
            margin = abs(self.low) / 2
            return (self.low - margin, self.high + margin)
        return (self.low, self.high)

    def share(self, other: _Counter) -> None:
        """Give both the bins that hold the values of either."""
        self.low = other.low = min(self.low, other.low)
        self.high = other.high = max(self.high, other.high)

    def histogram(self) -> Histogram:
        edges = np.linspace(*self.range, self.counts.size + 1)
        return Histogram(edges=edges, counts=self.counts)


class _Trace:
    """One quantizer: what passes it, and what it makes of it."""

    def __init__(
        self,
        calibration: Calibration,
        thresholds: np.ndarray | None,
        grids: Table,
        plan: Plan,
        bins: int,
    ) -> None:
        self.calibration = calibration
        self.thresholds = thresholds
        self.grid = Grid(calibration, plan, grids)
        self.before, self.after = _Counter(bins), _Counter(bins)
        self.largest, self.size, self.beyond = 0.0, 0, 0
        self.products = np.zeros(3)

    def see(self, values: np.ndarray, stage: str) -> None:
        """Take in ``[S, *shape]``."""
        applied = self.grid.applied(values)
        rounded = applied.rounded.astype(np.float32)  # as the network holds it
        self.before.see(values, stage)
        self.after.see(rounded, stage)
        if stage == "range":
            self.size += values.size
            self.beyond += applied.clipped
            self.largest = max(self.largest, float(np.abs(values).max(initial=0.0)))
            a, b = values.astype(np.float64).ravel(), rounded.astype(np.float64).ravel()
            self.products += [a @ b, a @ a, b @ b]

    def result(self, held: str, samples: int) -> QuantizerDistribution:
        ab, aa, bb = self.products
        cosine = ab / np.sqrt(aa * bb) if aa and bb else float(aa == bb)
        return QuantizerDistribution(
            calibration=self.calibration.name,
            tensor=self.calibration.tensor,
            kind=self.calibration.kind,
            qtype=qtype(held, where=self.calibration.name).name,
            before=self.before.histogram(),
            after=self.after.histogram(),
            limits=self._limits(),
            largest=self.largest,
            clipped=self.beyond / max(self.size, 1),
            cosine=float(cosine),
            samples=samples,
            grids=self._grids(),
        )

    def _grids(self) -> int:
        if self.thresholds is None or self.calibration.asymmetric:
            return 1
        return int(self.thresholds.size)

    def _limits(self) -> tuple[float, float]:
        if not self.grid.integral or self.thresholds is None:
            return (-np.inf, np.inf)
        if self.calibration.asymmetric:
            return (float(self.thresholds[0]), float(self.thresholds[1]))
        widest = float(np.max(self.thresholds))
        return (-widest, widest)


def by_node(walk: Walk) -> Mapping[str, tuple[str, ...]]:
    """Return the float outputs of every node."""
    found: dict[str, tuple[str, ...]] = {}
    for node, tensor in zip(walk.nodes, walk.tensors, strict=True):
        found[node] = (*found.get(node, ()), tensor)
    return found
