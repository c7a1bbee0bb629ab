"""jptq: mixed-precision post-training quantization of ONNX networks, on JAX.

>>> import jptq
>>> jptq.__version__
'0.1.0'

The public names are loaded when they are first used: importing `jptq` imports nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jptq.engine.trace import Forward
    from jptq.errors import JptqError
    from jptq.results import Allocation, LatencyTable, Report, SensitivityTable
    from jptq.tuning.api import (
        allocate,
        calibrate,
        latency_of,
        load_model,
        rank_nodes,
        save_model,
        trace,
    )
    from jptq.tuning.loop import Options
    from jptq.tuning.prepare import Prepared
    from jptq.tuning.run import tune

__version__ = "0.1.0"

__all__ = [
    "Allocation",
    "Forward",
    "JptqError",
    "LatencyTable",
    "Options",
    "Prepared",
    "Report",
    "SensitivityTable",
    "__version__",
    "allocate",
    "calibrate",
    "latency_of",
    "load_model",
    "rank_nodes",
    "save_model",
    "trace",
    "tune",
]

_HOMES = {
    "Allocation": "jptq.results",
    "Forward": "jptq.engine.trace",
    "JptqError": "jptq.errors",
    "LatencyTable": "jptq.results",
    "Options": "jptq.tuning.loop",
    "Prepared": "jptq.tuning.prepare",
    "Report": "jptq.results",
    "SensitivityTable": "jptq.results",
    "allocate": "jptq.tuning.api",
    "calibrate": "jptq.tuning.api",
    "latency_of": "jptq.tuning.api",
    "load_model": "jptq.tuning.api",
    "rank_nodes": "jptq.tuning.api",
    "save_model": "jptq.tuning.api",
    "trace": "jptq.tuning.api",
    "tune": "jptq.tuning.run",
}


def __getattr__(name: str) -> Any:
    """Load a public name (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'jptq' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
