"""Which quantizers two models, or a model and a configuration, hold differently."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jptq.ir.model import CALIBRATION, Model, Node
from jptq.numerics.qtypes import FLOAT16, FLOAT32, qtype
from jptq.quant.assign import Assignment
from jptq.quant.calibrated import assignment_of, thresholds_of

TOLERANCE = 1e-5
"""Relative; a threshold that was written as a scale comes back with the rounding of float32."""

_DEQUANTIZE, _CAST = "DequantizeLinear", "Cast"
"""What a quantizer is in a model of ONNX's own operators; a cast to float16 and back."""

_SUFFIX = f"_{CALIBRATION}"
"""Ending of a quantizer's name; before it stands the name of the tensor (hmct-spec 1.3)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class State:
    """What a tensor is quantized to.

    Attributes:
      qtype: ``float32`` if it is not; a type that a configuration cannot name as ONNX names it.
      thresholds: ``float32[C]``, two if they are a range; None where nothing says.
    """

    qtype: str = FLOAT32.name
    thresholds: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """A tensor that two sides quantize differently.

    Attributes:
      tensor: Its name in the float model.
      first: What one side does.
      second: What the other does.
      factor: Largest ratio of a second threshold to the first one, the one farthest from 1; None
        if the thresholds agree, or cannot be compared.
    """

    tensor: str
    first: State
    second: State
    factor: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields, thresholds as lists."""
        sides = {
            side: {"qtype": s.qtype, "thresholds": None if t is None else t.tolist()}
            for side, s, t in (
                (side, state, state.thresholds)
                for side, state in (("first", self.first), ("second", self.second))
            )
        }
        return {"tensor": self.tensor, **sides, "factor": self.factor}


def states_of(model: Model, assignment: Assignment | None = None) -> dict[str, State]:
    """Return ``{tensor: state}`` of every quantizer of a model.

    Args:
      model: Calibrated, or with QuantizeLinear and DequantizeLinear (of `to_qdq`, or another).
      assignment: Types to take instead of the calibrated model's own.
    """
    if not any(node.is_calibration for node in model.nodes):
        return _pairs(model)
    types = assignment_of(model) if assignment is None else assignment
    thresholds = thresholds_of(model)
    return {
        _tensor(node, node.inputs[0]): State(
            qtype=types[node.name],
            thresholds=thresholds.get(node.name) if qtype(types[node.name]).quantizes else None,
        )
        for node in model.nodes
        if node.is_calibration
    }


def differences(first: Mapping[str, State], second: Mapping[str, State]) -> tuple[Difference, ...]:
    """Return the tensors whose type or thresholds differ, in the order of the first side.

    A tensor that one side does not name is float32 there.
    """
    out = []
    for tensor in dict.fromkeys((*first, *second)):
        a, b = first.get(tensor, State()), second.get(tensor, State())
        factor = _factor(a.thresholds, b.thresholds)
        if a.qtype != b.qtype or factor is not None:
            out.append(Difference(tensor=tensor, first=a, second=b, factor=factor))
    return tuple(out)


def _factor(first: np.ndarray | None, second: np.ndarray | None) -> float | None:
    """Return the ratio that is farthest from 1, None if all are 1 or nothing can be compared."""
    if first is None or second is None:
        return None
    if first.size != second.size and 1 not in (first.size, second.size):
        return float("nan")
    a, b = np.broadcast_arrays(first.astype(np.float64), second.astype(np.float64))
    if np.allclose(a, b, rtol=TOLERANCE, atol=0.0):
        return None
    ratios = np.divide(b, a, out=np.full(a.shape, np.inf), where=a != 0)
    return float(ratios[np.argmax(np.abs(np.log(np.maximum(np.abs(ratios), 1e-30))))])


def _pairs(model: Model) -> dict[str, State]:
    """Return the states that DequantizeLinear nodes with constant scales tell of."""
    out = {}
    for node in model.nodes:
        if node.op == _CAST and node.name.endswith(_SUFFIX):
            out[node.name.removesuffix(_SUFFIX)] = State(qtype=FLOAT16.name)
        if node.op != _DEQUANTIZE or node.inputs[1] not in model.initializers:
            continue
        scale = model.initializers[node.inputs[1]].astype(np.float64).reshape(-1)
        zero = _zero(node, model)
        grid = np.iinfo(zero.dtype)
        offset = zero.astype(np.float64).reshape(-1)
        if np.any(offset):
            thresholds = np.stack([scale * (grid.min - offset), scale * (grid.max - offset)], -1)
        else:
            thresholds = scale * grid.max
        source = model.producers.get(node.inputs[0])
        tensor = node.inputs[0] if source is None else source.inputs[0]
        out[_tensor(node, tensor)] = State(
            qtype=zero.dtype.name,
            thresholds=thresholds.reshape(-1).astype(np.float32),
        )
    return out


def _zero(node: Node, model: Model) -> np.ndarray:
    """Return the zero point of a DequantizeLinear; ONNX's default is an unsigned 0."""
    if len(node.inputs) > 2 and node.inputs[2] in model.initializers:
        return model.initializers[node.inputs[2]]
    constant = model.initializers.get(node.inputs[0])
    return np.zeros(1, np.uint8 if constant is None else constant.dtype)


def _tensor(node: Node, read: str) -> str:
    """Return the name of a quantized tensor in the float model, ``read`` if nothing tells it."""
    return node.name.removesuffix(_SUFFIX) if node.name.endswith(_SUFFIX) else read
