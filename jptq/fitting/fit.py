"""The whole fit: layer by layer from sums over their inputs, then the network as a whole."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jptq.data import SampleSet
from jptq.engine import Runner, memory
from jptq.errors import UnknownNameError
from jptq.fitting.capture import HESSIANS, bytes_of, capture, passes
from jptq.fitting.guards import Outcome, outcome, untouched
from jptq.fitting.held_out import split
from jptq.fitting.layers import Layer, layers_of
from jptq.fitting.network import network_error
from jptq.fitting.observed import Observed, weight_bytes
from jptq.numerics.qtypes import INT8
from jptq.quant.assign import Assignment, Table, Thresholds, table, true_int16
from jptq.results.fit import BIAS, MODES, PLAIN, WEIGHTS, Fit

_SETS = 2
"""Of samples: to fit to, and held out."""

_WORK = 6
"""Matrices of the size of a layer's sums that solving for its weights takes."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """What a fit found.

    Attributes:
      constants: Initializers of the float network that change: weights on their grid, biases.
      owners: ``{initializer: quantizer of the weight that it was fitted with}``, of all of them.
      report: What was done, and why not more.
    """

    constants: Mapping[str, np.ndarray]
    owners: Mapping[str, str]
    report: Fit

    @classmethod
    def nothing(cls, report: Fit) -> Fitted:
        """Return a fit that changes nothing."""
        return cls(constants={}, owners={}, report=report)


def fit(
    runner: Runner,
    samples: SampleSet,
    thresholds: Thresholds,
    assignment: Assignment,
    *,
    mode: str = "auto",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Fitted:
    """Return weights and biases that lose less under INT8 weights.

    Args:
      runner: Of the calibrated graph.
      samples: Calibration samples; one of three is held out.
      thresholds: Of every quantizer.
      assignment: What the configuration asks for; weights above INT8 stay as they are.
      mode: Of `MODES`: ``bias`` and ``weights`` (with their biases) name what is tried, ``auto``
        tries both.
      progress: Called with the samples run and their number, over all passes.

    Raises:
      UnknownNameError: There is no such mode.
    """
    if mode not in MODES:
        raise UnknownNameError("way to fit", mode, MODES)
    if mode == "off":
        return Fitted.nothing(Fit(mode=mode))
    progress(0, len(samples))
    layers = layers_of(runner, assignment)
    if len(samples) < _SETS:
        reason = "a single sample cannot be fitted to and held out"
        rows = tuple(untouched(one, one.reason).row for one in layers)
        return Fitted.nothing(Fit(mode=mode, layers=rows, reason=reason))
    observed = Observed(runner, layers, samples, HESSIANS)
    outcomes = _outcomes(observed, thresholds, layers, mode, progress)
    held = split(len(samples))[1]
    wanted = _table(runner, thresholds, layers)
    return judged(mode, outcomes, lambda one: network_error(observed, wanted, held, one))


def judged(
    mode: str, outcomes: Sequence[Outcome], error: Callable[[Mapping[str, np.ndarray]], float]
) -> Fitted:
    """Return what the network as a whole is better with: all of it, the biases alone, nothing.

    Args:
      mode: Of `MODES`.
      outcomes: What the layers would keep.
      error: Of the network with some initializers changed.
    """
    report = Fit(mode=mode, layers=tuple(one.row for one in outcomes))
    if not _constants(outcomes):
        return Fitted.nothing(dataclasses.replace(report, reason="no layer gains"))
    plain = error({})
    report = dataclasses.replace(report, plain=plain)
    plainer = [[one.plainer for one in outcomes]] if mode == "auto" else []
    for tried in (outcomes, *plainer):
        constants = _constants(tried)
        found = error(constants) if constants else math.nan
        if found < plain:
            rows = tuple(one.row for one in tried)
            kept = dataclasses.replace(report, layers=rows, fitted=found, kept=True)
            owners = {n: one.layer.calibration.name for one in tried for n in one.constants}
            return Fitted(constants=constants, owners=owners, report=kept)
        if tried is outcomes:
            report = dataclasses.replace(report, fitted=found)
    rows = tuple(dataclasses.replace(row, kept=PLAIN) for row in report.layers)
    reason = "the network is no better with what its layers gain"
    return Fitted.nothing(dataclasses.replace(report, layers=rows, reason=reason))


def _outcomes(
    observed: Observed,
    thresholds: Thresholds,
    layers: Sequence[Layer],
    mode: str,
    progress: Callable[[int, int], None],
) -> list[Outcome]:
    """Return what each layer keeps, in order."""
    runner = observed.runner
    allowed = {"auto": (BIAS, WEIGHTS)}.get(mode, (mode,))
    constants = {**runner.program.weights, **runner.floats}
    found: dict[str, Outcome] = {}
    room = runner.batching.room(weight_bytes(runner))
    for layer in layers:
        needs = (_SETS + _WORK) * bytes_of(layer) if layer.readers else 0
        if layer.reason:
            found[layer.weight] = untouched(layer, layer.reason)
        elif needs > room:
            reason = f"sums over its inputs take {needs // memory.MIB} MiB, beyond --memory_limit"
            found[layer.weight] = untouched(layer, reason)
    groups = passes([layer for layer in layers if layer.weight not in found], _SETS)
    sets = split(len(observed.samples))
    done, total = 0, len(observed.samples) * len(groups)

    def ran(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    for group in groups:
        moments = capture(observed, observed.floating, group, sets, progress=ran)
        for layer in group:
            sums = moments.pop(layer.weight)
            found[layer.weight] = outcome(
                layer, constants, thresholds[layer.calibration.name], *sums, allowed=allowed
            )
    return [found[layer.weight] for layer in layers]


def _table(runner: Runner, thresholds: Thresholds, layers: Sequence[Layer]) -> Table:
    """Return the table that shows what weights cost: these INT8, all else INT16 as on no target."""
    assert runner.plan is not None
    weights = {layer.calibration.name: INT8.name for layer in layers if layer.readers}
    return table(runner.plan, thresholds, {**true_int16(runner.plan), **weights})


def _constants(outcomes: Sequence[Outcome]) -> dict[str, np.ndarray]:
    return {name: value for one in outcomes for name, value in one.constants.items()}
