"""What the vendor writes beside its models: every node's quantizers and similarity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jptq.ir import Node
from jptq.report.vendor_tables import NodeRow
from jptq.tuning import Prepared

_DECIMALS = 6


def quant_info(network: Prepared, cosines: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Return types and thresholds of every node that has a quantizer.

    Args:
      network: Calibrated.
      cosines: Similarity to float by tensor; NaN where there is none.

    Returns:
      By node name, in graph order: ``type``; ``input_name`` (of the quantized tensor),
      ``input_threshold``, ``input_qtype`` (lists with an entry per quantized input, a threshold
      being the largest of its channels);
      ``output_name``, ``output_threshold``, ``output_qtype`` of the quantizer behind the node,
      None without one; ``cosine_similarity``.

    Source: hmct-spec 1.1.
    """
    model, plan = network.calibrated, network.plan
    behind = {c.tensor: c.name for c in plan.calibrations if not c.constant}
    found: dict[str, dict[str, Any]] = {}
    for node in model.operators():
        slots = plan.by_node.get(node.name)
        shown = behind.get(node.outputs[0])
        if slots is None and shown is None:
            continue
        inputs = {} if slots is None else slots.inputs
        found[node.name] = {
            "type": node.op,
            "input_name": [plan.calibration(name).tensor for name in inputs.values()],
            "input_threshold": [_threshold(network, name) for name in inputs.values()],
            "input_qtype": [network.configured[name] for name in inputs.values()],
            "output_name": node.outputs[0],
            "output_threshold": None if shown is None else _threshold(network, shown),
            "output_qtype": None if shown is None else network.configured[shown],
            "cosine_similarity": _cosine(node, cosines),
        }
    return found


def node_rows(network: Prepared, cosines: Mapping[str, float]) -> tuple[NodeRow, ...]:
    """Return the rows of the vendor's node table: nodes with a quantizer at input 0."""
    rows = []
    for node in network.calibrated.operators():
        slots = network.plan.by_node.get(node.name)
        if slots is None or 0 not in slots.inputs:
            continue
        rows.append(
            NodeRow(
                node=node.name,
                op=node.op,
                cosine=_cosine(node, cosines),
                threshold=float(network.thresholds[slots.inputs[0]][0]),
                qtype=network.configured[slots.inputs[0]],
            )
        )
    return tuple(rows)


def _threshold(network: Prepared, calibration: str) -> float:
    return round(float(abs(network.thresholds[calibration]).max()), _DECIMALS)


def _cosine(node: Node, cosines: Mapping[str, float]) -> float | None:
    cosine = cosines.get(node.outputs[0], math.nan)
    return None if math.isnan(cosine) else cosine
