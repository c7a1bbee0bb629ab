"""How far a network's forward, export and sensitivities agree with onnxruntime (design 6)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.agreements.figures import ORACLES, Figure
from tests.agreements.forward import float_forward, int8_forward, int16_forward, teacher_forced
from tests.agreements.network import Network, load_network, max_thresholds, run
from tests.agreements.sensitivity import against_onnxruntime, sweep, whole

__all__ = [
    "DEMO",
    "ORACLES",
    "ROWS",
    "Figure",
    "Network",
    "load_network",
    "max_thresholds",
    "run",
    "teacher_forced",
    "whole",
]

DEMO = Path(__file__).parents[2] / "configs" / "demo"
"""The network that ships with the project."""

ROWS: Mapping[str, Callable[[Network], Figure]] = {
    "float": float_forward,
    "int16": int16_forward,
    "int16 teacher-forced": functools.partial(teacher_forced, qtype="int16"),
    "int8 teacher-forced": teacher_forced,
    "int8": int8_forward,
    "sensitivity": against_onnxruntime,
    "sweep": sweep,
}
