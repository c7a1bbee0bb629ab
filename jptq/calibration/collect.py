"""The passes over the samples in which the statistics of every feature are gathered."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeAlias

import jax
import numpy as np
from jax import Array

from jptq.calibration import levels, spread, statistics
from jptq.calibration.method import Method
from jptq.calibration.reach import Reached, Rows, Scope, shortened, smaller_factors
from jptq.calibration.statistics import Statistics
from jptq.data import SampleSet, batches
from jptq.numerics.affine import refuse_nan
from jptq.ops.intervals import SINGLE
from jptq.quant.plan import FEATURE, Calibration, Plan

Run: TypeAlias = Callable[[Mapping[str, np.ndarray]], Mapping[str, Array | np.ndarray]]
"""``{input: [S, *shape]} -> {tensor: [S, *shape]}``: float values of the observed tensors, axes in
ONNX's order behind the sample axis."""

BATCH = 8
"""Samples per run, as the vendor's (hmct-spec 2.2)."""


USUAL = 0.999
"""Share of the absolute values that counts as usual."""

_Batch: TypeAlias = tuple[
    dict[str, statistics.Measured],
    dict[Rows, Array | np.ndarray],
    dict[str, Array | np.ndarray],
]
"""Ranges, levels of rows, and spreads of one batch."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Collected:
    """What the samples say.

    Attributes:
      features: Statistics by calibration, of the values that are told apart.
      raw: The same of all values, without histograms.
      reached: What is told apart, by tensor; constants too.
      constants: Initializers that may hold other values: the float network computes the same.
    """

    features: Mapping[str, Statistics]
    raw: Mapping[str, Statistics]
    reached: Mapping[str, Reached]
    constants: Mapping[str, np.ndarray]


def observed(plan: Plan) -> tuple[Calibration, ...]:
    """Return the quantizers whose thresholds depend on samples."""
    return tuple(c for c in plan.calibrations if c.kind == FEATURE and not c.constant)


def collect(
    run: Run,
    plan: Plan,
    samples: SampleSet,
    methods: Sequence[Method],
    *,
    apart: Collection[str] = (),
    scope: Scope | None = None,
    batch_size: int = BATCH,
    progress: Callable[[int, int], None] | None = None,
) -> Collected:
    """Return what the methods need to know of every feature.

    The samples are run twice if a method needs histograms, else once; memory does not grow with
    their number.

    Args:
      run: The float network.
      plan: Its quantizers.
      samples: At least one.
      methods: Those that will be asked for thresholds.
      apart: Quantizers whose channels (axis 1) are kept apart.
      scope: Cuts values off where the network does not tell them apart; None: nowhere. `run` gives
        the tensors that it names as well.
      batch_size: Samples per run; the result does not depend on it.
      progress: Called with the samples done and their number, over both passes.

    Raises:
      DataError: A feature holds NaN.
    """
    wanted = observed(plan)
    bins = {m.num_bin: m.max_num_bin for m in sorted(methods, key=_max_num_bin) if m.counts}
    total, done = len(samples) * (2 if bins else 1), 0
    found = {calibration.name: statistics.init() for calibration in wanted}
    about = _Around(scope, wanted)
    for feeds, real in batches(samples, batch_size):
        tensors = run(feeds)
        measured = {
            c.name: statistics.measure(_near(tensors[c.tensor]), 1 if c.name in apart else None)
            for c in wanted
        }
        around = about.measured(tensors, real)
        for name, batch in jax.device_get(measured).items():
            found[name] = statistics.update(found[name], batch)
        about.add(jax.device_get(around))
        done += real
        if progress is not None:
            progress(done, total)
    for name, known in found.items():
        refuse_nan(np.asarray(known.largest), where=name)
    reached, constants = about.limits({c.tensor: found[c.name] for c in wanted})
    raw = found
    found = {c.name: about.cut(c, found[c.name], reached) for c in wanted}
    if not bins:
        return Collected(features=found, raw=raw, reached=reached, constants=constants)
    histograms = {
        name: {few: statistics.empty_histogram(known, few, many) for few, many in bins.items()}
        for name, known in found.items()
    }
    for feeds, real in batches(samples, batch_size):
        tensors = run(feeds)
        counted = {
            (c.name, few): statistics.count(
                _near(tensors[c.tensor]), before, real, limit=found[c.name].limit
            )
            for c in wanted
            for few, before in histograms[c.name].items()
        }
        for (name, few), batch in jax.device_get(counted).items():
            histograms[name][few] = statistics.update_histogram(histograms[name][few], batch)
        done += real
        if progress is not None:
            progress(done, total)
    counted_too = {
        name: dataclasses.replace(known, histograms=histograms[name])
        for name, known in found.items()
    }
    return Collected(features=counted_too, raw=raw, reached=reached, constants=constants)


class _Around:
    """What is watched beside the features: other tensors, levels of rows, spreads.

    Args:
      scope: Says which; None: nothing.
      wanted: The features.
    """

    def __init__(self, scope: Scope | None, wanted: Sequence[Calibration]) -> None:
        self._scope = scope
        self._wanted = wanted if scope is not None else ()
        features = {c.tensor for c in wanted}
        others = () if scope is None else scope.tensors
        self._ranges = {n: statistics.init() for n in others if n not in features}
        self._rows = {} if scope is None else {rows: levels.nothing() for rows in scope.rows}
        self._spreads = {c.name: spread.nothing() for c in self._wanted}

    def measured(self, tensors: Mapping[str, Array | np.ndarray], real: int) -> _Batch:
        """Return what a batch says; tensors that the run does not give are left out."""
        return (
            {n: statistics.measure(_near(tensors[n])) for n in self._ranges if n in tensors},
            {
                rows: levels.measure(_near(tensors[rows.tensor]), rows.axes, rows.kind)
                for rows in self._rows
                if rows.tensor in tensors
            },
            {c.name: spread.count(_near(tensors[c.tensor]), real) for c in self._wanted},
        )

    def add(self, batch: _Batch) -> None:
        """Add a batch."""
        ranges, rows, spreads = batch
        for name, measured in ranges.items():
            self._ranges[name] = statistics.update(self._ranges[name], measured)
        for one, found in rows.items():
            self._rows[one] = levels.joined(self._rows[one], found)
        for name, counts in spreads.items():
            self._spreads[name] = self._spreads[name] + np.asarray(counts)

    def limits(
        self, features: Mapping[str, Statistics]
    ) -> tuple[dict[str, Reached], dict[str, np.ndarray]]:
        """Return what is told apart, by tensor, and constants without what is not."""
        if self._scope is None:
            return {}, {}
        seen = {n: known for n, known in self._ranges.items() if known.low <= known.high}
        ranges, scope = {**seen, **features}, self._scope
        exact = scope.limits(ranges, self._rows, tolerance=SINGLE)
        constants = shortened(scope.model.initializers, exact)
        factors = smaller_factors(scope, ranges, exact)
        # What a factor multiplies is told apart further out behind a smaller one.
        reached = scope.with_constants(factors).limits(ranges, self._rows)
        for name in constants:
            reached[name] = exact[name]
        return reached, {**factors, **constants}

    def cut(
        self, one: Calibration, known: Statistics, reached: Mapping[str, Reached]
    ) -> Statistics:
        """Return the statistics of what is told apart of a feature."""
        if self._scope is None:
            return known
        if one.tensor in reached:
            known = known.limited(reached[one.tensor].interval)
        return dataclasses.replace(known, usual=spread.usual(self._spreads[one.name], USUAL))


def _near(x: Array | np.ndarray) -> Array | np.ndarray:
    """Return a tensor where its statistics are cheapest: on the host only if it lies there.

    A program per shape would take longer to compile than NumPy takes to count.
    """
    on_host = isinstance(x, np.ndarray) or all(d.platform == "cpu" for d in x.devices())
    return np.asarray(x) if on_host else x


def channelwise(plan: Plan) -> frozenset[str]:
    """Return the features that may have a threshold per channel (axis 1)."""
    return frozenset(c.name for c in observed(plan) if c.channels > 1)


def _max_num_bin(method: Method) -> int:
    return method.max_num_bin
