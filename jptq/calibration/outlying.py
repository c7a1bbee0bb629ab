"""What is to be said of thresholds: which stop early, and which are far above most values."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Iterable

import numpy as np

from jptq.calibration.collect import Collected
from jptq.calibration.found import Calibrated
from jptq.ir.model import Model
from jptq.ops.intervals import INFINITE
from jptq.quant.plan import Calibration, Plan
from jptq.quant.structure import structure_of
from jptq.results.reach import Limit, Outlying, listed

_logger = logging.getLogger(__name__)

FACTOR = 20.0
"""A threshold this many times what is usual leaves INT8 six steps for nearly all values. On the
five networks of docs/results.md the largest value is at most 7 times that, probabilities aside."""

_EXACT = 1e-6
"""Share by which a threshold that a limit decides on may differ from it by rounding."""


def told(
    found: Calibrated,
    model: Model,
    plan: Plan,
    seen: Collected,
    ties: Collection[tuple[str, ...]],
) -> Calibrated:
    """Return thresholds with what is to be said of them.

    Args:
      found: The thresholds.
      model: With quantizers, as placed.
      plan: Its quantizers.
      seen: What the samples said.
      ties: Groups that share a threshold: what is usual is that of the largest member.
    """
    limited, outlying = {}, []
    structure = structure_of(model)
    usual_of = {name: known.usual for name, known in seen.features.items()}
    for group in ties:
        members = [name for name in group if name in usual_of]
        usual_of |= dict.fromkeys(members, max((usual_of[name] for name in members), default=0.0))
    for one in plan.calibrations:
        if one.name not in found.thresholds:
            continue
        threshold = float(np.abs(found.thresholds[one.name]).max())
        limit = _limit(one, model, seen)
        stops = limit is not None and threshold <= limit.after * (1 + _EXACT) < limit.before
        # A range stops at either end, also where the other one is larger.
        if limit is not None and (stops or (one.name in found.asymmetric and limit.cuts)):
            limited[one.name] = limit
        elif one.name in usual_of:
            usual = usual_of[one.name]
            source = structure.source(one.tensor)
            # Most of many probabilities are small: their range is as it should be.
            bounded = source is not None and structure.traits(source).bounds is not None
            if usual > 0 and threshold > FACTOR * usual and not bounded:
                outlying.append(
                    Outlying(
                        calibration=one.name,
                        tensor=one.tensor,
                        threshold=threshold,
                        usual=usual,
                        by=_named(model, plan.owners[one.name]),
                    )
                )
    outlying.sort(key=lambda one: one.usual / one.threshold)
    return dataclasses.replace(
        found, limited=limited, outlying=tuple(outlying), constants=seen.constants
    )


def warn_of_masks(model: Model, plan: Plan, seen: Collected) -> None:
    """Say where values that stand for "never" leave no steps for the others, and who reads them."""
    masked = [
        f"{name} (read by {listed(_named(model, plan.owners[name]))})"
        for name, known in seen.features.items()
        if known.largest > INFINITE
    ]
    if masked:
        _logger.warning(
            "tensors reach beyond %g (a mask?): all other values in them become 0 as INT8 and as "
            "INT16; mask with a finite number, -100 say: %s",
            INFINITE,
            ", ".join(masked[:3]) + (f", ... ({len(masked)})" if len(masked) > 3 else ""),
        )


def _limit(one: Calibration, model: Model, seen: Collected) -> Limit | None:
    """Return how far a quantizer's values are told apart, if not all of them are."""
    reached = seen.reached.get(one.tensor)
    if reached is None:
        return None
    constant = model.initializers.get(one.tensor)
    if constant is not None:
        least, largest = float(constant.min()), float(constant.max())
    else:
        least, largest = seen.raw[one.name].low, seen.raw[one.name].high
    return Limit(
        calibration=one.name,
        tensor=one.tensor,
        low=reached.interval.low,
        high=reached.interval.high,
        least=least,
        largest=largest,
        by=_named(model, reached.by),
        masked=reached.masked,
    )


def _named(model: Model, nodes: Iterable[str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, model.by_name[name].op) for name in nodes)
