"""Another method for each of the most sensitive features: the search called ``mix``.

Source: hmct-spec 2.4 (``layerwise_search``).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Mapping, Sequence

from jptq.calibration.found import Calibrated, Merged
from jptq.calibration.scoring import COSINE, Scorer, Scores, goodness, surpasses
from jptq.quant.config import LayerwiseSearch

_logger = logging.getLogger(__name__)

METHOD = "mix"
SENSITIVE = 0.999
"""Cosine under which a feature is looked at if no number of them is given."""


def refine(
    base: Calibrated,
    others: Sequence[Calibrated],
    features: Sequence[str],
    ties: Collection[tuple[str, ...]],
    scorer: Scorer,
    search: LayerwiseSearch,
) -> Calibrated:
    """Return the base with other thresholds where these lose clearly less (`surpasses`).

    Each feature is judged on its own.

    Args:
      base: By the method that is best for the whole network.
      others: By the other methods.
      features: Calibrations to look at, in graph order.
      ties: Groups that hold one threshold: they change their method together.
      scorer: Runs the network with only some features quantized.
      search: How many features, by which metric, and a type to raise them to if that helps.
    """
    units = _units(features, ties)
    alone = [scorer.alone(base, unit) for unit in units]
    order = sorted(range(len(units)), key=lambda i: goodness(alone[i], search.metric))
    if search.topk is None:
        order = [i for i in order if not alone[i][COSINE] >= SENSITIVE]
    else:
        order = order[: search.topk]
    found, merged = base, []
    for i in order:
        unit, best, kept = units[i], alone[i], base
        for other in others:
            scores = scorer.alone(other, unit)
            if _better(scores, best, search.metric):
                best, kept = scores, other
        raised = None
        if search.qtype is not None:
            scores = scorer.alone(kept, unit, search.qtype)
            if _better(scores, best, search.metric):
                best, raised = scores, search.qtype
        found = _taken(found, kept, unit, raised)
        merged += [
            Merged(
                name=name,
                method=kept.method,
                before=float(alone[i][search.metric]),
                after=float(best[search.metric]),
                qtype=raised,
            )
            for name in unit
        ]
    _report(merged, search.metric)
    return dataclasses.replace(found, method=METHOD, merged=tuple(merged))


def _better(scores: Scores, best: Scores, metric: str) -> bool:
    return surpasses(goodness(scores, metric), goodness(best, metric), metric)


def _units(features: Sequence[str], ties: Collection[tuple[str, ...]]) -> list[tuple[str, ...]]:
    known = set(features)
    group = {name: tuple(n for n in names if n in known) for names in ties for name in names}
    return list(dict.fromkeys(group.get(name, (name,)) for name in features))


def _taken(
    found: Calibrated, kept: Calibrated, unit: Sequence[str], raised: str | None
) -> Calibrated:
    """Return the thresholds with those of some features from elsewhere."""
    axes: Mapping[str, int] = {
        **{n: axis for n, axis in found.axes.items() if n not in unit},
        **{n: axis for n, axis in kept.axes.items() if n in unit},
    }
    return dataclasses.replace(
        found,
        thresholds={**found.thresholds, **{name: kept.thresholds[name] for name in unit}},
        asymmetric=(found.asymmetric - set(unit)) | (kept.asymmetric & set(unit)),
        axes=axes,
        types={**found.types, **({} if raised is None else dict.fromkeys(unit, raised))},
    )


def _report(merged: Sequence[Merged], metric: str) -> None:
    lines = [
        f"{one.name}: {one.method}{f', {one.qtype}' if one.qtype else ''}: "
        f"{one.before:.6f} -> {one.after:.6f}"
        for one in merged
    ]
    _logger.info("%s", "\n".join([f"Merge_Info({metric})", *lines]))
