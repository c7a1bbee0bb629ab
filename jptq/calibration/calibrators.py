"""The calibration methods by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from jptq.calibration import kl, maximum
from jptq.calibration.method import Method
from jptq.calibration.statistics import Statistics

CALIBRATORS: Mapping[str, Callable[[Statistics, Method], float]] = {
    "max": maximum.threshold,
    "kl": kl.threshold,
    # Its range is what `asymmetric` takes; on a symmetric grid that is the largest value.
    "min-max": maximum.threshold,
    # Random samples are measured as real ones are.
    "skip": maximum.threshold,
}
"""``{method name: (statistics of one tensor, settings) -> symmetric threshold}``."""
