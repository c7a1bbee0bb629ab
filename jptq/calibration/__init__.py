"""Thresholds from samples."""

from jptq.calibration.calibrators import CALIBRATORS
from jptq.calibration.collect import Run, collect
from jptq.calibration.found import Calibrated, Merged, Trial
from jptq.calibration.method import Method, activation_of, candidates
from jptq.calibration.reach import Scope
from jptq.calibration.scoring import Scorer, Scores
from jptq.calibration.search import calibrate
from jptq.calibration.statistics import Statistics

__all__ = [
    "CALIBRATORS",
    "Calibrated",
    "Merged",
    "Method",
    "Run",
    "Scope",
    "Scorer",
    "Scores",
    "Statistics",
    "Trial",
    "activation_of",
    "calibrate",
    "candidates",
    "collect",
]
