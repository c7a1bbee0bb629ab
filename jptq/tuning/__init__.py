"""The main job: a goal, a search that believes only measurements, and files for the vendor."""

from jptq.tuning.doubts import doubts
from jptq.tuning.evaluator import Evaluator
from jptq.tuning.journal import Journal
from jptq.tuning.loop import tune_network, tune_prepared
from jptq.tuning.measure import Measurer
from jptq.tuning.options import LEFTOVERS, SEARCHES, Options
from jptq.tuning.prepare import Prepared, prepare
from jptq.tuning.ranges import integer_ranges
from jptq.tuning.source import load_float
from jptq.tuning.what_if import Answer, WhatIf

__all__ = [
    "LEFTOVERS",
    "SEARCHES",
    "Answer",
    "Evaluator",
    "Journal",
    "Measurer",
    "Options",
    "Prepared",
    "WhatIf",
    "doubts",
    "integer_ranges",
    "load_float",
    "prepare",
    "tune_network",
    "tune_prepared",
]
