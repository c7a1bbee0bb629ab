"""What a search for thresholds is judged by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from jptq.metrics.similarity import METRICS
from jptq.registry import lookup

if TYPE_CHECKING:
    from jptq.calibration.found import Calibrated

Scores: TypeAlias = Mapping[str, float]
"""``{metric: value}`` of the outputs against the float ones: one sample, mean over outputs."""

COSINE = "cosine-similarity"

MARGIN = 0.05
"""Share of the error that a later method has to save: processors add up in other orders, values on
a rounding boundary fall to the other side, and the error of one sample moves with them
(docs/results.md: in front by less than 1e-5, far behind by 4 % and more)."""


class Scorer(Protocol):
    """Runs a network with thresholds that were found (hmct-spec 2.4: on one sample)."""

    def whole(self, found: Calibrated) -> Scores:
        """Return the scores with everything quantized."""

    def alone(self, found: Calibrated, names: Sequence[str], qtype: str | None = None) -> Scores:
        """Return the scores with some features quantized and all else float.

        Args:
          found: Thresholds.
          names: Calibrations.
          qtype: Their type; what the configuration says if None.
        """


def goodness(scores: Scores, metric: str) -> float:
    """Return a score that is higher for the better; NaN is worse than any number.

    Raises:
      UnknownNameError: There is no such metric.
    """
    value = float(scores[metric])
    if math.isnan(value):
        return -math.inf
    return value if lookup(METRICS, metric, "metric").better == "higher" else -value


def surpasses(value: float, top: float, metric: str) -> bool:
    """Tell whether a `goodness` is better than another one by more than `MARGIN` of the error."""
    if not value > top:
        return False
    if math.isinf(top):
        return True
    if metric == COSINE:
        return 1.0 - value < (1.0 - MARGIN) * (1.0 - top)
    if metric == "sqnr":
        return value > top - 5.0 * math.log10(1.0 - MARGIN)
    return -value < (1.0 - MARGIN) * -top
