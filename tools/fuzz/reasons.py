"""Where onnxruntime leaves the ONNX specification, and what we do not run: each with why.

A case that one of these is about counts as explained, if we give what ONNX's evaluator gives.
Nothing else does. `tests/tools` shows each of them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import onnx
from onnx import helper


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reason:
    """A known difference.

    Attributes:
      name: Short.
      op: Operator type.
      applies: ``applies(attributes, opset)`` tells whether a node is such a one.
      why: What onnxruntime does, and what ONNX says.
    """

    name: str
    op: str
    applies: Callable[[Mapping[str, Any], int], bool]
    why: str


DIFFERENCES: tuple[Reason, ...] = (
    Reason(
        name="same pads of a dilated pool",
        op="MaxPool",
        applies=lambda a, _: (
            a.get("auto_pad", b"") in (b"SAME_UPPER", b"SAME_LOWER")
            and max(a.get("dilations", [1])) > 1
        ),
        why="onnxruntime pads for a kernel without dilations and gives out fewer places; with "
        "SAME_*, the output has ceil(input / stride) of them (ONNX, MaxPool-22)",
    ),
    Reason(
        name="where one place lies",
        op="AffineGrid",
        applies=lambda a, _: a.get("align_corners", 0) == 1,
        why="along an axis of length 1 with align_corners, onnxruntime takes the last place, 1; "
        "ONNX's evaluator takes the first, -1",
    ),
    Reason(
        name="variance of equal numbers",
        op="MeanVarianceNormalization",
        applies=lambda *_: True,
        why="onnxruntime computes E[x^2] - E[x]^2, which rounding makes negative where all numbers "
        "are equal, and gives out NaN; ONNX's function gives 0",
    ),
)

ROUNDING = "rounding that a network amplifies"
"""A network ends elsewhere by less than `MOST_ROUNDING` of the length of an output, and each of its
units, fed onnxruntime's own numbers, agrees."""

MOST_ROUNDING = 1e-3

STEPS = "steps of rounding"
"""In a default session onnxruntime fuses operators of an export. Sums in another order move values
across rounding boundaries; no tensor as a whole moves by more than `MOST_STEPS` of its length."""

MOST_STEPS = 0.05

NO_NUMBER = "a quantizer without a number"
"""ONNX does not say which integer QuantizeLinear makes of NaN; onnxruntime takes one. Our forward
keeps NaN, so that it is counted and named (docs/export.md)."""

REFUSALS: Mapping[str, str] = {
    r"RoiAlign with sampling_ratio=0": "the number of samples would depend on the boxes' sizes, "
    "and shapes are static",
    r"it shrinks one axis and enlarges another": "a Resize of opset 10 rounds by axis, a later one "
    "has one way for all of them; int16 needs opset 21",
    r"a graph output is a quantized constant": "model_output_type asks to quantize what a network "
    "gives out, and it is the same for every input",
    r"its scale became one per channel": "a GroupNormalization of opset 18 scales groups; int16 "
    "needs opset 21",
}
"""``{what we say: why we do not run it}``."""


def of_refusal(said: str) -> str:
    """Return the key of a refusal that is known, or nothing."""
    return next((known for known in REFUSALS if re.search(known, said)), "")


def of_node(node: onnx.NodeProto, opset: int) -> Reason | None:
    """Return why a node may differ, if it may."""
    found = [reason for reason in DIFFERENCES if reason.op == node.op_type]
    if not found:
        return None
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return next((reason for reason in found if reason.applies(attributes, opset)), None)


def of_model(model: onnx.ModelProto) -> Reason | None:
    """Return why a graph may differ, if it may."""
    opset = next(int(one.version) for one in model.opset_import if not one.domain)
    return next(filter(None, (of_node(node, opset) for node in model.graph.node)), None)
