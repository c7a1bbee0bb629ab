"""The vendor's float units written out in ONNX's own operators.

For programs that know only those: onnxruntime, and whoever reads an exported model. The nodes
inside a unit are called ``<unit>/<part>``; the last one has the unit's name, so that a node of the
expanded model and of the original mean the same tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from jptq.errors import UnsupportedOpError
from jptq.ir import edit
from jptq.ir.model import HORIZON, Attribute, Model, Node


def expand_units(model: Model) -> Model:
    """Return the model with every float unit of the domain ``horizon`` written out.

    Quantizers and other vendor operators stay. Constants are float32, as the units are.

    Raises:
      UnsupportedOpError: A unit has a form that the model's opset cannot express.
    """
    nodes: list[Node] = []
    constants = dict(model.initializers)
    for node in model.nodes:
        expansion = _EXPANSIONS.get(node.op) if node.domain == HORIZON else None
        if expansion is None:
            nodes.append(node)
            continue
        parts = _Parts(node, model)
        expansion(parts)
        nodes.extend(parts.finished())
        constants.update(parts.constants)
    return edit.with_nodes(model, nodes, initializers=constants)


def opset_of_units(model: Model) -> int:
    """Return the first opset that has an operator for every float unit; 0 if any will do."""
    units = (node.op for node in model.nodes if node.domain == HORIZON)
    return max((_OPSETS.get(op, 0) for op in units), default=0)


class _Parts:
    """The nodes of one unit while they are written."""

    def __init__(self, unit: Node, model: Model) -> None:
        self.unit = unit
        self.model = model
        self.opset = model.opset("")
        self.constants: dict[str, np.ndarray] = {}
        self._nodes: list[Node] = []

    @property
    def source(self) -> str:
        """The unit's input."""
        return self.unit.inputs[0]

    def number(self, name: str, default: float) -> float:
        """Return a numeric attribute of the unit."""
        value = self.unit.attributes.get(name, default)
        return float(value) if isinstance(value, (int, float)) else default

    def constant(self, part: str, value: float | list[int]) -> str:
        """Add a constant, float32 or int64[K]; return its tensor."""
        name = f"{self.unit.name}/{part}"
        self.constants[name] = np.array(value, np.int64 if isinstance(value, list) else np.float32)
        return name

    def add(self, part: str, op: str, *inputs: str, **attributes: Attribute) -> str:
        """Add a node; return its output tensor."""
        name = f"{self.unit.name}/{part}"
        self._nodes.append(
            Node(name=name, op=op, inputs=inputs, outputs=(name,), attributes=attributes)
        )
        return name

    def finished(self) -> list[Node]:
        """Return the nodes; the last one takes the unit's name and output."""
        last = self._nodes[-1]
        closing = Node(
            name=self.unit.name,
            op=last.op,
            inputs=last.inputs,
            outputs=self.unit.outputs,
            attributes=last.attributes,
        )
        return [*self._nodes[:-1], closing]


def _swish(parts: _Parts) -> None:
    parts.add("Mul", "Mul", parts.source, parts.add("Sigmoid", "Sigmoid", parts.source))


def _hard_swish(parts: _Parts) -> None:
    gate = parts.add("HardSigmoid", "HardSigmoid", parts.source, alpha=1 / 6, beta=0.5)
    parts.add("Mul", "Mul", parts.source, gate)


def _mish(parts: _Parts) -> None:
    softplus = parts.add("Softplus", "Softplus", parts.source)
    parts.add("Mul", "Mul", parts.source, parts.add("Tanh", "Tanh", softplus))


def _gelu(parts: _Parts) -> None:
    x = parts.source
    if parts.unit.attributes.get("approximate", "none") == "tanh":
        square = parts.add("Square", "Mul", x, x)
        cube = parts.add("Cube", "Mul", square, x)
        small = parts.add("Small", "Mul", cube, parts.constant("cubic", 0.044715))
        bent = parts.add("Sum", "Add", x, small)
        slope = parts.constant("slope", math.sqrt(2 / math.pi))
        gate = parts.add("Tanh", "Tanh", parts.add("Argument", "Mul", bent, slope))
    else:
        slope = parts.constant("slope", math.sqrt(0.5))
        gate = parts.add("Erf", "Erf", parts.add("Argument", "Mul", x, slope))
    raised = parts.add("Add", "Add", gate, parts.constant("one", 1.0))
    half = parts.add("Half", "Mul", x, parts.constant("half", 0.5))
    parts.add("Mul", "Mul", half, raised)


def _rsqrt(parts: _Parts) -> None:
    epsilon = parts.constant("epsilon", parts.number("epsilon", 0.0))
    if parts.number("is_sqrt_add_reciprocal", 0):
        root = parts.add("Sqrt", "Sqrt", parts.source)
        denominator = parts.add("Add", "Add", root, epsilon)
    else:
        denominator = parts.add("Sqrt", "Sqrt", parts.add("Add", "Add", parts.source, epsilon))
    parts.add("Reciprocal", "Reciprocal", denominator)


def _requantize(parts: _Parts) -> None:
    parts.add("Identity", "Identity", parts.source)


def _softmax(parts: _Parts) -> None:
    axis = int(parts.number("axis", -1))
    if parts.opset >= 13:
        parts.add("Softmax", "Softmax", parts.source, axis=axis)
        return
    # Before opset 13 Softmax flattens the axes behind `axis` instead of working along one.
    top = parts.add("ReduceMax", "ReduceMax", parts.source, axes=(axis,), keepdims=1)
    power = parts.add("Exp", "Exp", parts.add("Sub", "Sub", parts.source, top))
    total = parts.add("ReduceSum", "ReduceSum", power, axes=(axis,), keepdims=1)
    parts.add("Div", "Div", power, total)


def _relu_x(parts: _Parts) -> None:
    top = parts.number("clip_value", math.inf)
    if parts.opset < 11:
        parts.add("Clip", "Clip", parts.source, min=0.0, max=top)
        return
    bounds = (parts.constant("min", 0.0), parts.constant("max", top))
    parts.add("Clip", "Clip", parts.source, *bounds)


def _pad(parts: _Parts) -> None:
    pads = parts.unit.attributes.get("pads", ())
    lengths = [int(n) for n in pads if isinstance(n, int)] if isinstance(pads, tuple) else []
    mode = parts.unit.attributes.get("mode", "constant")
    if parts.opset < 11:
        parts.add("Pad", "Pad", parts.source, pads=tuple(lengths), mode=mode)
        return
    parts.add("Pad", "Pad", parts.source, parts.constant("pads", lengths), mode=mode)


def _layer_norm(parts: _Parts) -> None:
    epsilon = parts.number("epsilon", 1e-5)
    axis = int(parts.number("axis", -1))
    parameters = parts.unit.inputs[1:]
    if parts.opset >= 17:
        parts.add(
            "LayerNormalization",
            "LayerNormalization",
            parts.source,
            *parameters,
            axis=axis,
            epsilon=epsilon,
        )
        return
    scale = parts.model.initializers.get(parameters[0]) if parameters else None
    if axis >= 0 and scale is None:
        raise UnsupportedOpError(
            "HzLayerNorm cannot be written in ONNX's operators",
            where=f"node {parts.unit.name!r}",
            why=f"opset {parts.opset} has no LayerNormalization, and the rank is not known",
            hint="export the model with opset 17 or later",
        )
    axes = tuple(range(axis if scale is None else -scale.ndim, 0))
    mean = parts.add("Mean", "ReduceMean", parts.source, axes=axes, keepdims=1)
    centred = parts.add("Centred", "Sub", parts.source, mean)
    square = parts.add("Square", "Mul", centred, centred)
    variance = parts.add("Variance", "ReduceMean", square, axes=axes, keepdims=1)
    shifted = parts.add("Shift", "Add", variance, parts.constant("epsilon", epsilon))
    result = parts.add("Div", "Div", centred, parts.add("Sqrt", "Sqrt", shifted))
    for part, op, parameter in zip(("Scale", "Bias"), ("Mul", "Add"), parameters, strict=False):
        if parameter:
            result = parts.add(part, op, result, parameter)


_EXPANSIONS: Final[Mapping[str, Callable[[_Parts], None]]] = {
    "HzSwish": _swish,
    "HzHardSwish": _hard_swish,
    "HzMish": _mish,
    "HzGelu": _gelu,
    "HzRsqrt": _rsqrt,
    "HzRequantize": _requantize,
    "HzSoftmax": _softmax,
    "HzReluX": _relu_x,
    "HzPad": _pad,
    "HzLayerNorm": _layer_norm,
}

_OPSETS: Final[Mapping[str, int]] = {"HzLayerNorm": 17}
"""Of the operator that a unit is, where that is written out otherwise before."""
