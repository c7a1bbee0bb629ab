"""Which quantizers two models, or a model and a configuration, hold differently."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jptq.ir.model import CALIBRATION, Model, Node
from jptq.numerics.affine import affine
from jptq.numerics.qtypes import FLOAT16, FLOAT32, qtype
from jptq.quant.assign import Assignment
from jptq.quant.attributes import attributes_of
from jptq.quant.calibrated import assignment_of, thresholds_of

TOLERANCE = 1e-5
"""Relative; a threshold that was written as a scale comes back with the rounding of float32."""

_DEQUANTIZE, _CAST = "DequantizeLinear", "Cast"
"""What a quantizer is in a model of ONNX's own operators; a cast to float16 and back."""

_SUFFIX = f"_{CALIBRATION}"
"""Ending of a quantizer's name; before it stands the name of the tensor (hmct-spec 1.3)."""


ABSENT = "absent"
"""Instead of a type: the graph has no such tensor."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class State:
    """What a tensor is quantized to.

    Attributes:
      qtype: ``float32`` if it is not, `ABSENT` if there is none; a type that a configuration
        cannot name as ONNX names it.
      thresholds: ``float32[C]``, the ends of the grid if it is a range; None where nothing says.
      asymmetric: They are a range [min, max].
    """

    qtype: str = FLOAT32.name
    thresholds: np.ndarray | None = None
    asymmetric: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """A tensor that two sides quantize differently.

    Attributes:
      tensor: Its name in the float model.
      first: What one side does.
      second: What the other does.
      factor: Ratio of a second threshold to the first one, the one farthest from 1; of the widths
        where one is a range; NaN if their numbers differ; None if the thresholds agree, or one
        side has none.
    """

    tensor: str
    first: State
    second: State
    factor: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields, thresholds as lists."""
        sides = {
            side: {
                "qtype": s.qtype,
                "thresholds": None if t is None else t.tolist(),
                "asymmetric": s.asymmetric,
            }
            for side, s, t in (
                (side, state, state.thresholds)
                for side, state in (("first", self.first), ("second", self.second))
            )
        }
        return {"tensor": self.tensor, **sides, "factor": self.factor}


def quantizes(model: Model) -> bool:
    """Tell whether a model has quantizers, ours or ONNX's."""
    return any(node.is_calibration or node.op == _DEQUANTIZE for node in model.nodes)


def states_of(model: Model, assignment: Assignment | None = None) -> dict[str, State]:
    """Return ``{tensor: state}`` of every tensor of a model.

    Args:
      model: Calibrated, or with QuantizeLinear and DequantizeLinear (of `to_qdq`, or another).
      assignment: Types to take instead of the calibrated model's own.
    """
    written = (name for node in model.nodes for name in node.outputs if name)
    found = dict.fromkeys((*model.input_names, *model.initializers, *written), State())
    if not any(node.is_calibration for node in model.nodes):
        return found | _pairs(model)
    types = assignment_of(model) if assignment is None else assignment
    thresholds = thresholds_of(model)
    for node in model.nodes:
        if node.is_calibration:
            found[_tensor(node, node.inputs[0])] = _held(
                node, types[node.name], thresholds.get(node.name)
            )
    return found


def _held(node: Node, name: str, thresholds: np.ndarray | None) -> State:
    """Return what a quantizer of ours does, its thresholds as they act."""
    kind = qtype(name)
    if thresholds is None or not kind.quantizes:
        return State(qtype=name)
    grid = affine(thresholds, kind, asymmetric=attributes_of(node).asymmetric)
    return _on_grid(name, grid.scale, grid.offset, grid.lower, grid.upper)


def _on_grid(name: str, scale: np.ndarray, offset: np.ndarray, lower: int, upper: int) -> State:
    if not np.any(offset):
        return State(qtype=name, thresholds=(scale * upper).astype(np.float32))
    ends = np.stack([scale * (lower - offset), scale * (upper - offset)], -1)
    thresholds = ends.reshape(-1).astype(np.float32)
    return State(qtype=name, thresholds=thresholds, asymmetric=True)


def differences(first: Mapping[str, State], second: Mapping[str, State]) -> tuple[Difference, ...]:
    """Return the tensors whose type or thresholds differ, in the order of the first side.

    A tensor that one side does not have is `ABSENT` there; it counts if the other quantizes it.
    """
    out = []
    for tensor in dict.fromkeys((*first, *second)):
        a, b = (side.get(tensor, State(qtype=ABSENT)) for side in (first, second))
        if {a.qtype, b.qtype} == {ABSENT, FLOAT32.name}:
            continue
        factor = _factor(a, b)
        if a.qtype != b.qtype or factor is not None:
            out.append(Difference(tensor=tensor, first=a, second=b, factor=factor))
    return tuple(out)


def _factor(first: State, second: State) -> float | None:
    """Return by how much thresholds differ, see `Difference`."""
    if first.thresholds is None or second.thresholds is None:
        return None
    ranged = first.asymmetric or second.asymmetric
    # [C, 1], or with a range [C, 2].
    a, b = (_ends(state) if ranged else _column(state.thresholds) for state in (first, second))
    if len(a) != len(b) and 1 not in (len(a), len(b)):
        return float("nan")
    a, b = np.broadcast_arrays(a, b)
    if ranged:
        width = np.maximum(a[:, 1] - a[:, 0], np.finfo(np.float32).tiny)
        if (np.abs(b - a).max(axis=1) <= TOLERANCE * width).all():
            return None
        ratios = (b[:, 1] - b[:, 0]) / width
    else:
        if np.allclose(a, b, rtol=TOLERANCE, atol=0.0):
            return None
        ratios = np.divide(b, a, out=np.full(a.shape, np.inf), where=a != 0)[:, 0]
    return float(ratios[np.argmax(np.abs(np.log(np.maximum(ratios, 1e-30))))])


def _ends(state: State) -> np.ndarray:
    """Return ``float64[C, 2]``, the least and the largest number of each grid."""
    column = _column(state.thresholds)
    return column.reshape(-1, 2) if state.asymmetric else np.concatenate([-column, column], 1)


def _column(thresholds: np.ndarray | None) -> np.ndarray:
    return np.asarray(thresholds, np.float64).reshape(-1, 1)


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
        # An unsigned grid is the signed one of its width, counted from another end.
        grid = np.iinfo(np.dtype(f"i{zero.dtype.itemsize}"))
        offset = zero.astype(np.float64).reshape(-1) - (np.iinfo(zero.dtype).max - int(grid.max))
        source = model.producers.get(node.inputs[0])
        tensor = node.inputs[0] if source is None else source.inputs[0]
        out[_tensor(node, tensor)] = _on_grid(
            grid.dtype.name, scale, offset, int(grid.min), int(grid.max)
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
