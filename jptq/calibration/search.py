"""Thresholds of a whole network: by one method, or by the best of several."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from jptq.calibration import layerwise as layerwise_search
from jptq.calibration.calibrators import CALIBRATORS
from jptq.calibration.choice import Panel, choose
from jptq.calibration.collect import BATCH, Run, channelwise, collect, observed
from jptq.calibration.found import Calibrated, Trial
from jptq.calibration.method import CARRIED, FIXED, RANDOM, Method, candidates
from jptq.calibration.noise import random_samples
from jptq.calibration.outlying import told, warn_of_masks
from jptq.calibration.reach import Reached, Scope
from jptq.calibration.scoring import COSINE, Scorer, goodness, surpasses
from jptq.calibration.statistics import Statistics
from jptq.calibration.weights import weight_thresholds
from jptq.data import SampleSet
from jptq.errors import ConfigError, DataError
from jptq.ir.model import Model
from jptq.numerics.affine import clean_thresholds
from jptq.quant.calibrated import thresholds_of
from jptq.quant.config import Activation, LayerwiseSearch, ModelwiseSearch, Weight
from jptq.quant.placement import tied_thresholds
from jptq.quant.plan import WEIGHT, Plan

_logger = logging.getLogger(__name__)


def calibrate(
    run: Run,
    model: Model,
    plan: Plan,
    samples: SampleSet,
    *,
    activation: Activation | None = None,
    weight: Weight | None = None,
    modelwise: ModelwiseSearch | None = None,
    layerwise: LayerwiseSearch | None = None,
    scorer: Scorer | None = None,
    panel: Panel | None = None,
    scope: Scope | None = None,
    batch_size: int = BATCH,
    enough: Callable[[], bool] = lambda: False,
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
      modelwise: How several methods are compared: the best one, the first among equals, is taken.
      layerwise: Also give the most sensitive features a method of their own; ``mix`` asks for
        that with its defaults.
      scorer: Runs what was found, on one sample: the documented search. Needed if there are
        several methods.
      panel: Runs what was found on several samples: with it methods are chosen by `choice`,
        unless `modelwise` or `layerwise` asks for the documented search.
      scope: Thresholds stop where the network tells no larger values apart; `run` gives the
        tensors that it names as well. None: they do not, as in the vendor's tool.
      batch_size: Samples per run; the result does not depend on it.
      enough: Tells, between two methods, that no further one is to be compared.
      progress: Called with the samples done and their number.

    Raises:
      DataError: There are no samples, or a tensor holds NaN.
      ConfigError: Several methods, but no `scorer`; ``load``, but the model carries no thresholds.

    Source: hmct-spec 2.2 to 2.4.
    """
    if len(samples) == 0:
        raise DataError("there are no samples to calibrate with")
    activation, documented = activation or Activation(), modelwise or ModelwiseSearch()
    if activation.calibration_type == (layerwise_search.METHOD,):
        layerwise = layerwise or LayerwiseSearch()
    methods = candidates(activation, layerwise=layerwise is not None)
    if len(methods) > 1 and scorer is None:
        raise ConfigError(
            "several calibration methods, but nothing to compare them by",
            hint="name one calibration_type, with one value for each of its settings",
        )
    if activation == Activation() and layerwise is None:
        _logger.info(
            "Activation calibration type not found, set multiple calibration methods by default."
        )
    constants = _constants(model, plan, weight or Weight())
    names = [calibration.name for calibration in observed(plan)]
    if methods[0].given:
        _logger.info("Run calibration model with %s method.", methods[0].tag)
        return _given(model, plan, methods[0].name, names, constants)
    if methods[0].name == RANDOM:
        _logger.warning(
            "calibration_type 'skip': thresholds come from random samples; times of the network "
            "mean something, its outputs do not"
        )
        samples = random_samples(samples)

    ties = tied_thresholds(model)
    tied = {name for group in ties for name in group}
    splittable = (
        channelwise(plan) - tied if any(method.per_channel for method in methods) else frozenset()
    )
    seen = collect(
        run,
        plan,
        samples,
        methods,
        apart=splittable,
        scope=scope,
        batch_size=batch_size,
        progress=progress,
    )
    warn_of_masks(model, plan, seen)
    if seen.reached:
        held = {**model.initializers, **seen.constants}
        shorter = dataclasses.replace(model, initializers=held)
        constants |= _constants(shorter, plan, weight or Weight(), seen.reached)

    def found(method: Method) -> Calibrated:
        features = feature_thresholds(seen.features, method, ties, splittable)
        clips = plan.calibration(features.clips).tensor if features.clips else ""
        whole = dataclasses.replace(
            features,
            clips=clips,
            thresholds={**constants, **features.thresholds},
            samples=len(samples),
        )
        return told(whole, model, plan, seen, ties)

    if scorer is None or (len(methods) == 1 and layerwise is None):
        _logger.info("Run calibration model with %s method.", methods[0].tag)
        return found(methods[0])
    _logger.info("Run calibration model with modelwise search method.")
    if panel is not None and modelwise is None and layerwise is None:

        def mixed() -> Calibrated:
            best = _mixed(
                candidates(activation, layerwise=True),
                found,
                scorer,
                documented,
                LayerwiseSearch(),
                names,
                ties,
                enough,
            )
            return told(best, model, plan, seen, ties)

        # The statistics are those that `mix` needs where nothing was said, and only there.
        silent = activation == Activation()
        return choose(methods, found, panel, mixed=mixed if silent else None, enough=enough)
    if layerwise is not None:
        best = _mixed(methods, found, scorer, documented, layerwise, names, ties, enough)
        return told(best, model, plan, seen, ties)
    return _best(methods, found, scorer, documented, enough)[0]


def _mixed(
    methods: Collection[Method],
    found: Callable[[Method], Calibrated],
    scorer: Scorer,
    modelwise: ModelwiseSearch,
    layerwise: LayerwiseSearch,
    names: Sequence[str],
    ties: Collection[tuple[str, ...]],
    enough: Callable[[], bool],
) -> Calibrated:
    """Return the best method with others for the features that lose most by it."""
    best, tried = _best(methods, found, scorer, modelwise, enough)
    others = [one for one in tried if one.method != best.method]
    return layerwise_search.refine(best, others, names, ties, scorer, layerwise)


def _constants(
    model: Model, plan: Plan, weight: Weight, reached: Mapping[str, Reached] | None = None
) -> dict[str, np.ndarray]:
    """Return the thresholds of everything that is no feature of a sample."""
    found = weight_thresholds(model, factor=weight.max_percentile, reached=reached)
    if weight.calibration_type == CARRIED:
        weights = {c.name for c in plan.calibrations if c.kind == WEIGHT and c.constant}
        found |= _carried(model, sorted(weights), "weight.calibration_type")
    return {name: clean_thresholds(values, where=name) for name, values in found.items()}


def _given(
    model: Model,
    plan: Plan,
    method: str,
    names: Collection[str],
    constants: Mapping[str, np.ndarray],
) -> Calibrated:
    """Return thresholds that no sample decides on: those in the model, or 1 everywhere."""
    if method == FIXED:
        features = {name: np.ones(1, np.float32) for name in names}
        return Calibrated(thresholds={**constants, **features}, method=method)
    known = [plan.calibration(name) for name in names]
    features = _carried(model, names, "activation.calibration_type")
    return Calibrated(
        thresholds={**constants, **features},
        method=method,
        asymmetric=frozenset(c.name for c in known if c.asymmetric),
        axes={
            c.name: c.axis
            for c in known
            if c.axis is not None and features[c.name].size > 1 and not c.asymmetric
        },
    )


def _carried(model: Model, names: Collection[str], key: str) -> dict[str, np.ndarray]:
    held = thresholds_of(model)
    missing = [name for name in names if name not in held]
    if missing:
        raise ConfigError(
            "the model carries no thresholds to load",
            where=", ".join(missing[:3]) + (f", ... ({len(missing)})" if len(missing) > 3 else ""),
            why=f"{key} is {CARRIED!r}",
            hint="give a calibrated model, or calibrate by max",
        )
    return {name: held[name] for name in names}


def _best(
    methods: Collection[Method],
    found: Callable[[Method], Calibrated],
    scorer: Scorer,
    search: ModelwiseSearch,
    enough: Callable[[], bool],
) -> tuple[Calibrated, list[Calibrated]]:
    """Return the candidate of the best score, and all; per-channel ones only where it is poor.

    A later one has to be clearly better (`surpasses`): which of two equal ones is ahead depends on
    the processor.
    """
    best, top, similar, trials, tried = None, -math.inf, -math.inf, [], []
    for method in methods:
        if method.per_channel and similar >= search.similarity:
            break
        if best is not None and enough():
            _logger.warning(
                "the time limit: %d of %d calibration methods were compared",
                len(tried),
                len(methods),
            )
            break
        candidate = found(method)
        scores = scorer.whole(candidate)
        value = goodness(scores, search.metric)
        tried.append(candidate)
        trials.append(Trial(method=method.tag, score=float(scores[search.metric])))
        _logger.info("%s: %s", method.tag, trials[-1].score)
        if best is None or surpasses(value, top, search.metric):
            best, top = candidate, value
            similar = goodness(scores, COSINE)
    if best is None:
        raise ConfigError("no calibration method is named")
    _logger.info("Select %s method.", best.method)
    return dataclasses.replace(best, trials=tuple(trials)), tried


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

    Returns:
      Thresholds; `Calibrated.clips` is the calibration.

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
    clipped, clips = 1.0, ""
    for name, known in statistics.items():
        if method.per_channel and name in splittable and known.channels is not None:
            thresholds[name] = clean_thresholds(known.channels, where=name)
            axes[name] = 1
            continue
        values = clean_thresholds(np.asarray([single[name]], np.float32), where=name)
        if known.largest > clipped * float(values[0]):
            clipped, clips = known.largest / float(values[0]), name
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
        clipped=clipped,
        clips=clips,
    )
