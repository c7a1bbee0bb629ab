"""jptq: mixed-precision post-training quantization of ONNX networks, on JAX.

>>> import jptq
>>> jptq.__version__
'0.2.0'

The public names are loaded when they are first used: importing `jptq` imports nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jptq.api.agreement import check_export
    from jptq.api.run import tune
    from jptq.api.steps import (
        allocate,
        calibrate,
        load_model,
        rank_nodes,
        save_model,
        trace,
    )
    from jptq.api.sweep import diagnose, sweep
    from jptq.api.timing import latency_of
    from jptq.api.what_if import what_if
    from jptq.engine.trace import Forward
    from jptq.errors import JptqError
    from jptq.results import (
        Agreement,
        Allocation,
        IntegerRanges,
        LatencyTable,
        Report,
        SensitivityTable,
    )
    from jptq.tuning.options import Options
    from jptq.tuning.prepare import Prepared
    from jptq.tuning.ranges import integer_ranges

__version__ = "0.2.0"

__all__ = [
    "Agreement",
    "Allocation",
    "Forward",
    "IntegerRanges",
    "JptqError",
    "LatencyTable",
    "Options",
    "Prepared",
    "Report",
    "SensitivityTable",
    "__version__",
    "allocate",
    "calibrate",
    "check_export",
    "diagnose",
    "integer_ranges",
    "latency_of",
    "load_model",
    "rank_nodes",
    "save_model",
    "sweep",
    "trace",
    "tune",
    "what_if",
]

_HOMES = {
    "Agreement": "jptq.results",
    "Allocation": "jptq.results",
    "Forward": "jptq.engine.trace",
    "IntegerRanges": "jptq.results",
    "JptqError": "jptq.errors",
    "LatencyTable": "jptq.results",
    "Options": "jptq.tuning.options",
    "Prepared": "jptq.tuning.prepare",
    "Report": "jptq.results",
    "SensitivityTable": "jptq.results",
    "allocate": "jptq.api.steps",
    "calibrate": "jptq.api.steps",
    "check_export": "jptq.api.agreement",
    "diagnose": "jptq.api.sweep",
    "integer_ranges": "jptq.tuning.ranges",
    "latency_of": "jptq.api.timing",
    "load_model": "jptq.api.steps",
    "rank_nodes": "jptq.api.steps",
    "save_model": "jptq.api.steps",
    "sweep": "jptq.api.sweep",
    "trace": "jptq.api.steps",
    "tune": "jptq.api.run",
    "what_if": "jptq.api.what_if",
}


def __getattr__(name: str) -> Any:
    """Load a public name (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'jptq' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
