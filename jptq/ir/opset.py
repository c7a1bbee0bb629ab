"""A model brought to a later opset, node by node.

ONNX's operators rarely change their meaning; most versions only admit more types. The table
`_CHANGES` holds what does change: attributes that became inputs, defaults that moved, operators
that were replaced. What is then still not a valid node of the new opset is refused by name.
Source: ONNX operator changelog.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
import onnx

from jptq.errors import ModelError
from jptq.ir import edit
from jptq.ir.element_types import DType, element_types
from jptq.ir.model import Attribute, Model, Node, Tensor

OLDEST: Final = 7
"""Before this version operators broadcast by an attribute and name their inputs differently."""

_OPTIONAL_REGIONS = 13
"""From this version on a Resize need not name its regions."""

_DOMAINS: Final = ("", "ai.onnx")


def raise_opset(model: Model, version: int) -> Model:
    """Return the model with every ONNX operator, in subgraphs too, as a later opset spells it.

    Nodes and tensors keep their names; what has to be added is called ``<node>/<part>``. An
    attribute becomes a constant of the type that the node's tensor has. Other domains are left as
    they are, and so is a model that has this opset or a later one.

    Args:
      model: Of any opset from `OLDEST` on.
      version: What to raise it to.

    Raises:
      ModelError: Nodes that the opset cannot express, all of them at once.
    """
    if model.opset("") >= version:
        return model
    if model.opset("") < OLDEST:
        raise ModelError(
            f"opset {model.opset('')} cannot be raised to {version}",
            why=f"operators before opset {OLDEST} broadcast in another way",
            hint="export the model with a later opset",
        )
    faults: list[str] = []
    raised = _raised(model, model.opset(""), version, faults, {})
    if faults:
        raise ModelError(
            f"{len(faults)} nodes cannot be raised from opset {model.opset('')} to {version}",
            where="; ".join(faults),
            hint="export the model with a later opset",
        )
    return raised


def changes_after(op: str, version: int) -> bool:
    """Tell whether an operator got another meaning or form after an opset."""
    return any(since > version for since, _ in _CHANGES.get(op, ()))


def _raised(
    graph: Model, old: int, new: int, faults: list[str], outer: Mapping[str, DType]
) -> Model:
    nodes: list[Node] = []
    constants = dict(graph.initializers)
    dtypes = {**outer, **element_types(graph, outer)}
    for node in graph.nodes:
        bodies: dict[str, Attribute] = {
            key: _raised(value, old, new, faults, dtypes)
            for key, value in node.attributes.items()
            if isinstance(value, Model)
        }
        if bodies:
            node = dataclasses.replace(node, attributes={**node.attributes, **bodies})
        if node.domain not in _DOMAINS:
            nodes.append(node)
            continue
        parts = _Parts(node, graph, dtypes.get(node.inputs[0]) if node.inputs else None, new)
        changes = _CHANGES.get(node.op, ())
        try:
            for since, change in changes:
                if old < since <= new:
                    change(parts)
            _check(parts.node, new)
        except _NotConvertibleError as error:
            faults.append(f"{node.name!r} ({node.op}): {error}")
            continue
        nodes.extend((*parts.before, parts.node, *parts.after))
        constants.update(parts.constants)
    opsets = {domain: v for domain, v in graph.opsets.items() if domain not in _DOMAINS}
    return dataclasses.replace(
        graph,
        nodes=tuple(nodes),
        initializers=constants,
        opsets={"": new, **opsets},
    )


class _NotConvertibleError(Exception):
    """A node has no equal in the new opset."""


class _Parts:
    """One node while it changes.

    Attributes:
      node: As it is spelled so far.
      dtype: Element type of its first input, None if unknown.
      version: The opset that it is meant for.
      before: Nodes that it reads.
      after: Nodes that read it.
      constants: Initializers to add.
    """

    def __init__(self, node: Node, graph: Model, dtype: DType, version: int) -> None:
        self.node = node
        self.dtype = dtype
        self.version = version
        self.graph = graph
        self.before: list[Node] = []
        self.after: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}

    def name(self, part: str) -> str:
        """Return a name for something that belongs to the node."""
        return edit.unique_name(self.graph, f"{self.node.name}/{part}")

    def integers(self, part: str, values: Sequence[int]) -> str:
        """Add a constant ``int64[K]``; return its tensor."""
        name = self.name(part)
        self.constants[name] = np.asarray(values, np.int64)
        return name

    def nothing(self, part: str) -> str:
        """Add a constant without elements, ``float32[0]``; return its tensor."""
        name = self.name(part)
        self.constants[name] = np.zeros(0, np.float32)
        return name

    def scalar(self, part: str, value: float) -> str:
        """Add a constant of the type of the node's first input; return its tensor."""
        if self.dtype is None:
            raise _NotConvertibleError(f"its input has no known type, so {part!r} has none")
        name = self.name(part)
        with np.errstate(over="ignore"):  # beyond the largest float16 there is no limit
            self.constants[name] = np.asarray(value).astype(self.dtype)
        return name

    def take(self, key: str) -> Attribute | None:
        """Remove an attribute and return it; None if it is absent."""
        attributes = dict(self.node.attributes)
        value = attributes.pop(key, None)
        self.node = dataclasses.replace(self.node, attributes=attributes)
        return value

    def ints(self, key: str) -> tuple[int, ...] | None:
        """Remove an attribute that holds integers and return them; None if it is absent."""
        value = self.take(key)
        if value is None or isinstance(value, (Model, Tensor, str, np.ndarray)):
            return None
        return tuple(int(n) for n in (value if isinstance(value, tuple) else (value,)))

    def give(self, **attributes: Attribute) -> None:
        """Set attributes that are absent."""
        self.node = dataclasses.replace(
            self.node, attributes={**attributes, **self.node.attributes}
        )

    def append(self, *names: str) -> None:
        """Add inputs; absent ones at the end are left out."""
        inputs = [*self.node.inputs, *names]
        while inputs and not inputs[-1]:
            inputs.pop()
        self.node = dataclasses.replace(self.node, inputs=tuple(inputs))


def _to_inputs(*keys: str) -> Callable[[_Parts], None]:
    """Integers that were attributes are inputs."""

    def change(parts: _Parts) -> None:
        values = {key: parts.ints(key) for key in keys}
        parts.append(*(parts.integers(k, v) if v is not None else "" for k, v in values.items()))

    return change


def _clip(parts: _Parts) -> None:
    limits = {key: parts.take(key) for key in ("min", "max")}
    parts.append(
        *(
            parts.scalar(key, float(v)) if isinstance(v, (int, float)) else ""
            for key, v in limits.items()
        )
    )


def _pad(parts: _Parts) -> None:
    value = parts.take("value")
    _to_inputs("pads")(parts)
    if isinstance(value, (int, float)) and value:
        parts.append(parts.scalar("value", float(value)))


def _dropout(parts: _Parts) -> None:
    # Outside training the ratio has no meaning.
    parts.take("ratio")


def _along_one_axis(parts: _Parts) -> None:
    """Up to opset 12 all axes from `axis` on are normalized together, as one."""
    axis = parts.ints("axis") or (1,)
    node = parts.node
    if axis == (-1,):
        parts.give(axis=-1)
        return
    flat, shape, result = (parts.name(part) for part in ("flat", "shape", "result"))
    source = node.inputs[0]
    parts.before += [
        Node(name=shape, op="Shape", inputs=(source,), outputs=(shape,)),
        Node(
            name=flat,
            op="Flatten",
            inputs=(source,),
            outputs=(flat,),
            attributes={"axis": axis[0]},
        ),
    ]
    parts.node = dataclasses.replace(
        node, inputs=(flat,), outputs=(result,), attributes={**node.attributes, "axis": -1}
    )
    parts.after.append(
        Node(name=parts.name("Reshape"), op="Reshape", inputs=(result, shape), outputs=node.outputs)
    )


def _count_outputs(parts: _Parts) -> None:
    if len(parts.node.inputs) < 2:
        parts.give(num_outputs=len(parts.node.outputs))


def _upsample_7(parts: _Parts) -> None:
    scales = parts.take("scales")
    if not isinstance(scales, tuple):
        raise _NotConvertibleError("it has no scales")
    name = parts.name("scales")
    parts.constants[name] = np.asarray(scales, np.float32)
    parts.append(name)


def _upsample_9(parts: _Parts) -> None:
    parts.node = dataclasses.replace(parts.node, op="Resize")


def _resize_10(parts: _Parts) -> None:
    source, scales = parts.node.inputs
    regions = parts.nothing("roi") if parts.version < _OPTIONAL_REGIONS else ""
    parts.node = dataclasses.replace(parts.node, inputs=(source, regions, scales))
    parts.give(coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    if parts.node.attributes.get("mode", "nearest") != "nearest":
        return
    # The nearest value used to be the one below where an axis grows, above where it shrinks.
    values = parts.constants.get(scales, parts.graph.initializers.get(scales))
    if values is None:
        raise _NotConvertibleError("its scales are not constant")
    if (values < 1).any():
        if (values > 1).any():
            raise _NotConvertibleError("it shrinks one axis and enlarges another")
        parts.node = dataclasses.replace(
            parts.node, attributes={**parts.node.attributes, "nearest_mode": "ceil"}
        )


def _grid_sample(parts: _Parts) -> None:
    mode = parts.take("mode") or "bilinear"
    renamed = {"bilinear": "linear", "bicubic": "cubic"}
    parts.give(mode=renamed.get(str(mode), str(mode)))


def _roi_align(parts: _Parts) -> None:
    parts.give(coordinate_transformation_mode="output_half_pixel")


def _scatter(parts: _Parts) -> None:
    parts.node = dataclasses.replace(parts.node, op="ScatterElements")


def _batch_normalization(parts: _Parts) -> None:
    if parts.node.attributes.get("spatial", 1) == 1:
        parts.take("spatial")


def _dft(parts: _Parts) -> None:
    name = parts.name("axis")
    parts.constants[name] = np.asarray((parts.ints("axis") or (1,))[0], np.int64)
    parts.append(*([""] * (2 - len(parts.node.inputs))), name)


def _refuse(why: str) -> Callable[[_Parts], None]:
    def change(parts: _Parts) -> None:
        raise _NotConvertibleError(why)

    return change


_Change: TypeAlias = tuple[int, Callable[[_Parts], None]]

_AXES: Final = _to_inputs("axes")
_REDUCTIONS: Final = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")

_CHANGES: Final[Mapping[str, Sequence[_Change]]] = {
    "BatchNormalization": [(9, _batch_normalization)],
    "Clip": [(11, _clip)],
    "DFT": [(20, _dft)],
    "Dropout": [(12, _dropout)],
    "GridSample": [(20, _grid_sample)],
    "GroupNormalization": [(21, _refuse("its scale became one per channel instead of per group"))],
    "Hardmax": [(13, _along_one_axis)],
    "LogSoftmax": [(13, _along_one_axis)],
    "Pad": [(11, _pad)],
    "Resize": [(11, _resize_10)],
    "RoiAlign": [(16, _roi_align)],
    "Scan": [(9, _refuse("its batch axis was removed"))],
    "Scatter": [(11, _scatter)],
    "Slice": [(10, _to_inputs("starts", "ends", "axes"))],
    "Softmax": [(13, _along_one_axis)],
    "Split": [(13, _to_inputs("split")), (18, _count_outputs)],
    "Squeeze": [(13, _AXES)],
    "TopK": [(10, _to_inputs("k"))],
    "Unsqueeze": [(13, _AXES)],
    "Upsample": [(9, _upsample_7), (10, _upsample_9), (11, _resize_10)],
    "ReduceSum": [(13, _AXES)],
    **{f"Reduce{name}": [(18, _AXES)] for name in _REDUCTIONS},
}
"""``{operator: ((first version of the new form, change), ...)}``, in order of versions."""


def _check(node: Node, version: int) -> None:
    """Refuse what is no valid node of an opset: the changelog knows what we do not."""
    try:
        schema = onnx.defs.get_schema(node.op, version, "")
    except onnx.defs.SchemaError:
        raise _NotConvertibleError(f"opset {version} has no such operator") from None
    if schema.deprecated:
        raise _NotConvertibleError(f"opset {version} has removed it")
    unknown = sorted(set(node.attributes) - set(schema.attributes))
    if unknown:
        raise _NotConvertibleError(f"opset {version} has no attribute {', '.join(unknown)}")
    for formal, name in zip(schema.inputs, node.inputs, strict=False):
        if not name and formal.option == onnx.defs.OpSchema.FormalParameterOption.Single:
            raise _NotConvertibleError(f"opset {version} needs input {formal.name!r}")
    if not schema.min_input <= len(node.inputs) <= schema.max_input:
        raise _NotConvertibleError(f"{len(node.inputs)} inputs do not fit opset {version}")
    if not schema.min_output <= len(node.outputs) <= schema.max_output:
        raise _NotConvertibleError(f"{len(node.outputs)} outputs do not fit opset {version}")
