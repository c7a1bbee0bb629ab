"""Thresholds from samples."""

from jptq.calibration.calibrators import CALIBRATORS
from jptq.calibration.collect import Run, collect
from jptq.calibration.method import Method, activation_of, candidates
from jptq.calibration.search import Calibrated, Trial, calibrate
from jptq.calibration.statistics import Statistics

__all__ = [
    "CALIBRATORS",
    "Calibrated",
    "Method",
    "Run",
    "Statistics",
    "Trial",
    "activation_of",
    "calibrate",
    "candidates",
    "collect",
]
