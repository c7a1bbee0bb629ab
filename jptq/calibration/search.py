"""Thresholds of a whole network: by one method, or by the best of several."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Collection, Mapping

import numpy as np

from jptq.calibration.calibrators import CALIBRATORS
from jptq.calibration.collect import BATCH, Run, channelwise, collect
from jptq.calibration.method import Method, candidates
from jptq.calibration.statistics import Statistics
from jptq.calibration.weights import weight_thresholds
from jptq.data import Samples
from jptq.errors import ConfigError, DataError
from jptq.ir.model import Model
from jptq.numerics.affine import clean_thresholds
from jptq.quant.calibrated import with_thresholds
from jptq.quant.config import Activation, Weight
from jptq.quant.placement import tied_thresholds
from jptq.quant.plan import Plan

_logger = logging.getLogger(__name__)

GOOD_ENOUGH = 0.995
"""Cosine similarity at which per-channel methods are no longer tried (hmct-spec 2.4)."""

_MASK = 1e30
"""No network computes with numbers as large; what holds them stands for infinity."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """A method that was tried.

    Attributes:
      method: Its tag.
      score: Similarity of the quantized to the float outputs; NaN if it could not be had.
    """

    method: str
    score: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibrated:
    """The thresholds of every quantizer of a network.

    Attributes:
      thresholds: ``{calibration: float32[C]}``; ``[min, max]`` if asymmetric.
      method: Tag of the method, as hmct-spec 2.2 writes it.
      asymmetric: Those with a range.
      axes: Channel axis of features with a threshold per channel.
      samples: Number of samples.
      trials: The methods that were compared, in the order tried; none if there was no choice.
    """

    thresholds: Mapping[str, np.ndarray]
    method: str
    asymmetric: frozenset[str] = frozenset()
    axes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    samples: int = 0
    trials: tuple[Trial, ...] = ()

    def write(self, model: Model) -> Model:
        """Return a calibrated model with these thresholds in it."""
        return with_thresholds(model, self.thresholds, asymmetric=self.asymmetric, axes=self.axes)


def calibrate(
    run: Run,
    model: Model,
    plan: Plan,
    samples: Samples,
    *,
    activation: Activation | None = None,
    weight: Weight | None = None,
    score: Callable[[Calibrated], float] | None = None,
    batch_size: int = BATCH,
    progress: Callable[[int, int], None] | None = None,
) -> Calibrated:
    """Return thresholds for every quantizer of a model.

    Args:
      run: The float network, see `Run`.
      model: The model with quantizers, as placed.
      plan: Its quantizers.
      samples: At least one.
      activation: Methods for features; the default search if it says nothing.
      weight: Method for weights.
      score: Similarity of the outputs, quantized with these thresholds, to the float ones; higher
        is better. Needed if there are several methods: the best one, the first among equals, is
        taken.
      batch_size: Samples per run; the result does not depend on it.
      progress: Called with the samples done and their number.

    Raises:
      DataError: There are no samples, or a tensor holds NaN.
      ConfigError: Several methods, but no `score`.

    Source: hmct-spec 2.2 to 2.4.
    """
    if len(samples) == 0:
        raise DataError("there are no samples to calibrate with")
    activation = activation or Activation()
    methods = candidates(activation)
    if len(methods) > 1 and score is None:
        raise ConfigError(
            "several calibration methods, but nothing to compare them by",
            hint="name one calibration_type, with one value for each of its settings",
        )
    if activation == Activation():
        _logger.info(
            "Activation calibration type not found, set multiple calibration methods by default."
        )
    factor = (weight or Weight()).max_percentile
    constants = weight_thresholds(model, factor=factor)
    for name, values in constants.items():
        constants[name] = clean_thresholds(values, where=name)

    ties = tied_thresholds(model)
    tied = {name for group in ties for name in group}
    splittable = (
        channelwise(plan) - tied if any(method.per_channel for method in methods) else frozenset()
    )
    statistics = collect(
        run,
        plan,
        samples,
        methods,
        apart=splittable,
        batch_size=batch_size,
        progress=progress,
    )
    _warn_of_masks(statistics)

    def found(method: Method) -> Calibrated:
        features = feature_thresholds(statistics, method, ties, splittable)
        return dataclasses.replace(
            features,
            thresholds={**constants, **features.thresholds},
            samples=len(samples),
        )

    if len(methods) == 1 or score is None:
        _logger.info("Run calibration model with %s method.", methods[0].tag)
        return found(methods[0])
    _logger.info("Run calibration model with modelwise search method.")
    return _best(methods, found, score)


def _warn_of_masks(statistics: Mapping[str, Statistics]) -> None:
    """Say where values that stand for "never" leave no steps for the others."""
    masked = [name for name, known in statistics.items() if known.largest > _MASK]
    if masked:
        _logger.warning(
            "tensors reach beyond %g (a mask?): all other values in them become 0 as INT8 and as "
            "INT16; mask with a finite number, -100 say: %s",
            _MASK,
            ", ".join(masked[:3]) + (f", ... ({len(masked)})" if len(masked) > 3 else ""),
        )


def _best(
    methods: Collection[Method],
    found: Callable[[Method], Calibrated],
    score: Callable[[Calibrated], float],
) -> Calibrated:
    """Return the candidate of the best score; per-channel ones only where the rest is poor."""
    best, best_score, trials = None, -math.inf, []
    for method in methods:
        if method.per_channel and best_score >= GOOD_ENOUGH:
            break
        candidate = found(method)
        value = float(score(candidate))
        trials.append(Trial(method=method.tag, score=value))
        _logger.info("%s: %s", method.tag, value)
        if best is None or value > best_score:  # false for NaN
            best, best_score = candidate, -math.inf if math.isnan(value) else value
    if best is None:
        raise ConfigError("no calibration method is named")
    _logger.info("Select %s method.", best.method)
    return dataclasses.replace(best, trials=tuple(trials))


def feature_thresholds(
    statistics: Mapping[str, Statistics],
    method: Method,
    ties: Collection[tuple[str, ...]],
    splittable: Collection[str],
) -> Calibrated:
    """Return the thresholds of features by one method.

    Args:
      statistics: By calibration.
      method: With everything it needs in `statistics`.
      ties: Groups that share the largest of their thresholds, or the union of their ranges.
      splittable: Those that take a threshold per channel if the method is per channel.

    Raises:
      DataError: A tensor holds NaN.
    """
    calibrator = CALIBRATORS[method.name]
    single = {name: calibrator(known, method) for name, known in statistics.items()}
    low = {name: known.low for name, known in statistics.items()}
    high = {name: known.high for name, known in statistics.items()}
    for group in ties:
        members = [name for name in group if name in statistics]
        if not members:
            continue
        joint = (
            float(np.max([single[name] for name in members])),
            float(np.min([low[name] for name in members])),
            float(np.max([high[name] for name in members])),
        )
        for name in members:
            single[name], low[name], high[name] = joint
    thresholds, asymmetric, axes = {}, set(), {}
    for name, known in statistics.items():
        if method.per_channel and name in splittable and known.channels is not None:
            thresholds[name] = clean_thresholds(known.channels, where=name)
            axes[name] = 1
            continue
        values = clean_thresholds(np.asarray([single[name]], np.float32), where=name)
        if method.asymmetric and low[name] < 0:
            limit = values[0]
            values = np.asarray([max(low[name], -limit), min(high[name], limit)], np.float32)
            asymmetric.add(name)
        thresholds[name] = values
    return Calibrated(
        thresholds=thresholds,
        method=method.tag,
        asymmetric=frozenset(asymmetric),
        axes=axes,
    )
