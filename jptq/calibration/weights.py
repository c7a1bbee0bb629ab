"""Thresholds of constants: largest absolute values, per channel where a weight has channels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jptq.calibration.reach import Reached
from jptq.ir.model import Model
from jptq.quant.plan import WEIGHT


def weight_thresholds(
    model: Model, *, factor: float = 1.0, reached: Mapping[str, Reached] | None = None
) -> dict[str, np.ndarray]:
    """Return the thresholds of every quantizer that sits on a constant.

    Args:
      model: A calibrated model.
      factor: ``weight.max_percentile``: the share of the largest absolute value that is kept.
      reached: What is told apart of constants that are no weights, by tensor.

    Returns:
      ``{calibration: float32[C]}``, C = 1 per tensor.

    Source: hmct-spec 2.3.
    """
    out = {}
    for node in model.nodes:
        if not node.is_calibration or node.inputs[0] not in model.initializers:
            continue
        values = model.initializers[node.inputs[0]].astype(np.float32)
        is_weight = node.attributes.get("tensor_type") == WEIGHT
        if reached and node.inputs[0] in reached and not is_weight:
            low, high = reached[node.inputs[0]].interval
            values = np.clip(values, np.float32(low), np.float32(high))
        values = np.abs(values)
        axis = node.attributes.get("axis")
        others = tuple(i for i in range(values.ndim) if i != axis)
        largest = values.max(axis=others, initial=0.0).reshape(-1)
        out[node.name] = (largest * (factor if is_weight else 1.0)).astype(np.float32)
    return out
