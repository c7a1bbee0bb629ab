"""The calibrated graph as the one state between commands: read from it and written into it.

Attributes of an HzCalibration node follow hmct-spec 1.3. One is ours: ``asymmetric`` is 1 where
the two thresholds are a range [min, max] instead of two channels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from jptq.errors import ConfigError, ModelError, UnknownNameError
from jptq.ir.model import Attribute, Model, Node
from jptq.numerics.affine import affine
from jptq.numerics.qtypes import FLOAT32, qtype
from jptq.ops import Kind
from jptq.quant.assign import Table, table
from jptq.quant.attributes import OFF, ON, attributes_of
from jptq.quant.compensate import derived_thresholds
from jptq.quant.pairs import halves_of
from jptq.quant.plan import FEATURE, Calibration, Plan, Slots
from jptq.quant.structure import Structure, structure_of
from jptq.quant.sums import sums_of
from jptq.targets import Target
from jptq.targets.operands import TYPES

_DERIVED = ("scales", "zero_point")


def plan_of(model: Model, target: Target | None, *, strict_integers: bool = False) -> Plan:
    """Return the quantizers of a calibrated graph and the nodes that they belong to.

    A node owns the quantizers that its inputs show (hmct-spec 1.5). A quantizer accepts the types
    that every operand reading it accepts and the operator before it gives out. One that only a
    graph output reads belongs to the operator that computed it.

    Args:
      model: A calibrated model.
      target: None where it is not asked which types are accepted: all are.
      strict_integers: A forward keeps sums and biases within the target's integers.

    Raises:
      ModelError: No type suits all readers of a quantizer, or its attributes are damaged.
      UnsupportedOpError: An operator is unknown.
    """
    structure = structure_of(model)
    inputs = _input_slots(structure)
    outputs = _output_slots(structure, inputs)
    readers = _readers(structure, inputs)
    halves = halves_of(model)
    calibrations = tuple(
        _calibration(
            structure, node, readers.get(node.name, ()), target, compensated=node.name in halves
        )
        for node in model.nodes
        if node.is_calibration
    )
    slots = tuple(
        Slots(
            node=node.name,
            op=node.op,
            inputs=inputs.get(node.name, {}),
            output=outputs.get(node.name),
        )
        for node in model.operators()
        if node.name in inputs or node.name in outputs
    )
    return Plan(
        calibrations=calibrations,
        slots=slots,
        sums=() if target is None else sums_of(model, calibrations, slots, target),
        integers=None if target is None else target.integers,
        strict=target is not None and strict_integers,
    )


def own_table(model: Model) -> tuple[Plan, Table]:
    """Return the quantizers of a calibrated model and what they hold, whatever the target.

    Raises:
      ModelError: The attributes of a quantizer are damaged.
      ConfigError: A quantizer has no thresholds.
    """
    plan = plan_of(model, None)
    return plan, table(plan, thresholds_of(model), assignment_of(model))


def thresholds_of(model: Model) -> dict[str, np.ndarray]:
    """Return ``{calibration: float32[C]}`` of those that have thresholds, ``[2]`` if asymmetric.

    Raises:
      ModelError: The attributes of a quantizer are damaged.
    """
    held = {node.name: attributes_of(node) for node in model.nodes if node.is_calibration}
    return {name: one.thresholds for name, one in held.items() if one.thresholds is not None}


def assignment_of(model: Model) -> dict[str, str]:
    """Return the type of every quantizer; ``float32`` for one that is switched off.

    Raises:
      UnknownNameError: A quantizer has a type that we do not know.
    """
    return {
        node.name: FLOAT32.name
        if node.attributes.get("switch", ON) == OFF
        else qtype(str(node.attributes.get("qtype", "int8")), where=node.name).name
        for node in model.nodes
        if node.is_calibration
    }


def with_thresholds(
    model: Model,
    thresholds: Mapping[str, np.ndarray],
    *,
    asymmetric: Collection[str] = (),
    axes: Mapping[str, int] | None = None,
) -> Model:
    """Return the model with thresholds in its quantizers.

    Args:
      model: A calibrated model.
      thresholds: ``{calibration: float32[C]}``; the others keep what they have, but those of a
        split operand follow the grid that they belong to (`derived_thresholds`).
      asymmetric: Those whose thresholds are a range [min, max].
      axes: Channel axis of features that are quantized per channel.

    Raises:
      UnknownNameError: A name is no quantizer of the model.
      ConfigError: The number of thresholds does not fit the tensor.
    """
    _refuse_unknown(model, {*thresholds, *asymmetric, *(axes or {})})

    def updated(node: Node) -> dict[str, Attribute]:
        attributes = dict(node.attributes)
        if node.name not in thresholds:
            return attributes
        values = np.asarray(thresholds[node.name], np.float32).reshape(-1)
        if attributes.get("tensor_type", FEATURE) == FEATURE:
            for key in ("axis", "asymmetric"):
                attributes.pop(key, None)
            if axes and node.name in axes:
                attributes["axis"] = axes[node.name]
            if node.name in asymmetric:
                attributes["asymmetric"] = 1
        attributes["thresholds"] = tuple(values.tolist())
        _refuse_count(model, node, attributes, values.size)
        return attributes

    written = _rewritten(model, updated)
    derived = derived_thresholds(written)
    if not derived:
        return written
    return _rewritten(written, lambda node: _with_grid(node, derived.get(node.name, {})))


def _with_grid(node: Node, grid: Mapping[str, Attribute]) -> dict[str, Attribute]:
    """Return a quantizer's attributes with other thresholds, if there are any."""
    attributes = dict(node.attributes)
    if grid:
        attributes.pop("asymmetric", None)
    return {**attributes, **grid}


def with_assignment(model: Model, assignment: Mapping[str, str]) -> Model:
    """Return the model with other types in its quantizers; thresholds stay, scales follow.

    Args:
      model: A calibrated model.
      assignment: ``{calibration: type}``; the others keep what they have. A quantizer that is
        given a type is switched on.

    Raises:
      UnknownNameError: A name is no quantizer of the model, or no type.
    """
    _refuse_unknown(model, assignment)

    def updated(node: Node) -> dict[str, Attribute]:
        attributes = dict(node.attributes)
        if node.name in assignment:
            attributes["qtype"] = qtype(assignment[node.name], where=node.name).name
            attributes["switch"] = ON
        return attributes

    return _rewritten(model, updated)


def _rewritten(model: Model, updated: Callable[[Node], dict[str, Attribute]]) -> Model:
    """Return the model with each quantizer's attributes updated and its scales derived again."""
    nodes = []
    for node in model.nodes:
        if node.is_calibration:
            attributes = {k: v for k, v in updated(node).items() if k not in _DERIVED}
            node = dataclasses.replace(node, attributes=attributes)
            node = dataclasses.replace(node, attributes={**attributes, **_derived(node)})
        nodes.append(node)
    return dataclasses.replace(model, nodes=tuple(nodes))


def _derived(node: Node) -> dict[str, Attribute]:
    """Return ``scales`` and ``zero_point`` of a quantizer, nothing while they are undefined."""
    kind = qtype(str(node.attributes.get("qtype", "int8")), where=node.name)
    held = attributes_of(node)
    if held.thresholds is None or not kind.quantizes:
        return {}
    grid = affine(held.thresholds, kind, asymmetric=held.asymmetric)
    return {
        "scales": tuple(grid.scale.tolist()),
        "zero_point": tuple(int(offset) for offset in grid.offset),
    }


def _input_slots(structure: Structure) -> dict[str, dict[int, str]]:
    """Return ``{node: {input index: calibration}}`` of the nodes that work on numbers."""
    found: dict[str, dict[int, str]] = {}
    for node in structure.model.operators():
        if structure.traits(node).kind in (Kind.SHAPE_ONLY, Kind.FLOAT_ONLY):
            continue
        for index in range(len(node.inputs)):
            calibration = structure.calibration(node, index)
            if calibration is not None:
                found.setdefault(node.name, {})[index] = calibration.name
    return found


def _output_slots(structure: Structure, inputs: Mapping[str, Mapping[int, str]]) -> dict[str, str]:
    """Return ``{node: calibration}`` of quantizers that only graph outputs and views read."""
    model = structure.model
    used = {
        name
        for node, slots in inputs.items()
        if not structure.traits(model.by_name[node]).look_through
        for name in slots.values()
    }
    found: dict[str, str] = {}
    for output in model.output_names:
        calibration = model.producers.get(structure.origin(output))
        if calibration is None or not calibration.is_calibration or calibration.name in used:
            continue
        source = structure.source(calibration.inputs[0])
        if source is not None:
            found.setdefault(source.name, calibration.name)
    return found


def _readers(
    structure: Structure, inputs: Mapping[str, Mapping[int, str]]
) -> dict[str, list[tuple[str, int]]]:
    """Return ``{calibration: (operator type, input index) of all that read it}``."""
    found: dict[str, list[tuple[str, int]]] = {}
    by_name = structure.model.by_name
    for node, slots in inputs.items():
        for index, name in slots.items():
            found.setdefault(name, []).append((by_name[node].op, index))
    return found


def _calibration(
    structure: Structure,
    node: Node,
    readers: Collection[tuple[str, int]],
    target: Target | None,
    *,
    compensated: bool,
) -> Calibration:
    model = structure.model
    source = structure.source(node.inputs[0])
    allowed = tuple(
        name
        for name in TYPES
        if target is None
        or (
            all(name in target.allowed(op_type, index) for op_type, index in readers)
            and (source is None or name in target.given_out(source.op))
        )
    )
    if target is not None and not allowed:
        given = [] if source is None else [f"the output of {source.name!r} ({source.op})"]
        raise ModelError(
            f"no type of {node.inputs[0]!r} suits all that work on it on {target.march}",
            where=f"node {node.name!r}",
            why="it is " + ", ".join([*given, *(f"input{i} of {op}" for op, i in readers)]),
            hint="ec needs an int16 tensor: compensate its other int8 operators too, or none",
        )
    held = attributes_of(node)
    axis, channels = held.axis, 1
    constant = model.initializers.get(node.inputs[0])
    count = 0 if held.thresholds is None else held.thresholds.size
    if constant is not None and axis is not None and count != 1 and not held.asymmetric:
        channels = _channels(node, constant, axis, count)
    elif constant is None and held.per_channel:
        channels = count
    elif constant is None and structure.splits(node) > 1:
        # Whether a feature's channels have a threshold each is data: there is room for them.
        axis, channels = 1, structure.splits(node)
    else:
        axis = None  # the vendor writes a default axis on per-tensor quantizers too
    return Calibration(
        name=node.name,
        tensor=node.inputs[0],
        output=node.outputs[0],
        kind=held.kind,
        axis=axis,
        channels=channels,
        asymmetric=held.asymmetric,
        allowed=allowed,
        dual=target is not None
        and not compensated
        and any(target.dual(op_type, index) for op_type, index in readers),
        constant=constant is not None,
        compensated=compensated,
    )


def _channels(node: Node, constant: np.ndarray, axis: int, count: int) -> int:
    """Return the channels of a constant; ``count`` thresholds, none for 0, are one for each."""
    if not -constant.ndim <= axis < constant.ndim:
        raise ModelError(
            f"a quantizer is damaged: its channel axis is {axis}",
            where=node.name,
            why=f"the constant has shape {constant.shape}",
        )
    channels = int(constant.shape[axis])
    if count not in (0, channels):
        raise ModelError(
            f"a quantizer is damaged: {count} thresholds for {channels} channels",
            where=node.name,
            why=f"its channel axis is {axis}, the constant has shape {constant.shape}",
        )
    return channels


def _refuse_unknown(model: Model, names: Collection[str]) -> None:
    known = [node.name for node in model.nodes if node.is_calibration]
    for name in names:
        if name not in known:
            raise UnknownNameError("calibration", name, known)


def _refuse_count(model: Model, node: Node, attributes: Mapping[str, Any], count: int) -> None:
    constant, axis = model.initializers.get(node.inputs[0]), attributes.get("axis")
    if attributes.get("asymmetric"):
        expected = 2
    elif axis is None:
        expected = 1
    else:
        expected = count if constant is None else constant.shape[axis]
    if count != expected:
        raise ConfigError(f"{count} thresholds where {expected} are needed", where=node.name)
