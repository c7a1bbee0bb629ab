"""The calibration methods by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from jptq.calibration import kl, maximum
from jptq.calibration.method import Method
from jptq.calibration.statistics import Statistics

CALIBRATORS: Mapping[str, Callable[[Statistics, Method], float]] = {
    "max": maximum.threshold,
    "kl": kl.threshold,
}
"""``{method name: (statistics of one tensor, settings) -> symmetric threshold}``."""
