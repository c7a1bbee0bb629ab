"""What the methods produce: tables that can be stored, compared and handed on."""

from jptq.results.agreement import Agreement, OutputAgreement
from jptq.results.allocation import Allocation, Status
from jptq.results.calibration import MethodTrial
from jptq.results.evaluation import Comparison, Evaluation, Lost, OutputError, Spread
from jptq.results.fit import Fit, LayerFit
from jptq.results.latency import Boundary, LatencyTable, NodeTime
from jptq.results.ranges import Excess, IntegerRanges
from jptq.results.reach import Limit, Outlying
from jptq.results.recalibration import PREPARED_FILE, Recalibration
from jptq.results.report import Goal, Outcome, Raised, Report
from jptq.results.sensitivity import SensitivityTable

__all__ = [
    "PREPARED_FILE",
    "Agreement",
    "Allocation",
    "Boundary",
    "Comparison",
    "Evaluation",
    "Excess",
    "Fit",
    "Goal",
    "IntegerRanges",
    "LatencyTable",
    "LayerFit",
    "Limit",
    "Lost",
    "MethodTrial",
    "NodeTime",
    "Outcome",
    "Outlying",
    "OutputAgreement",
    "OutputError",
    "Raised",
    "Recalibration",
    "Report",
    "SensitivityTable",
    "Spread",
    "Status",
]
