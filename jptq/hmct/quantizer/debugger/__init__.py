"""The vendor's debugger: replace ``hmct`` by ``jptq.hmct`` in a script that imports it.

Names are loaded when they are asked for: who only ranks does not wait for the plots.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jptq.hmct.quantizer.debugger.acc_error import plot_acc_error
    from jptq.hmct.quantizer.debugger.channels import get_channelwise_data_distribution
    from jptq.hmct.quantizer.debugger.distribution import plot_distribution
    from jptq.hmct.quantizer.debugger.loading import compared_with
    from jptq.hmct.quantizer.debugger.partial import sensitivity_analysis
    from jptq.hmct.quantizer.debugger.run_all import runall
    from jptq.hmct.quantizer.debugger.samples import select_sensitive_samples
    from jptq.hmct.quantizer.debugger.sensitivity import get_sensitivity_of_nodes
    from jptq.hmct.quantizer.debugger.tensors import (
        get_calibration_nodes_stat_info,
        tensor_analysis,
    )

__all__ = [
    "compared_with",
    "get_calibration_nodes_stat_info",
    "get_channelwise_data_distribution",
    "get_sensitivity_of_nodes",
    "plot_acc_error",
    "plot_distribution",
    "runall",
    "select_sensitive_samples",
    "sensitivity_analysis",
    "tensor_analysis",
]

_HOMES = {
    "compared_with": "loading",
    "get_calibration_nodes_stat_info": "tensors",
    "get_channelwise_data_distribution": "channels",
    "get_sensitivity_of_nodes": "sensitivity",
    "plot_acc_error": "acc_error",
    "plot_distribution": "distribution",
    "runall": "run_all",
    "select_sensitive_samples": "samples",
    "sensitivity_analysis": "partial",
    "tensor_analysis": "tensors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
