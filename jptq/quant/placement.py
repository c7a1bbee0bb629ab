"""Where quantizers go: from an optimized float graph to a graph with HzCalibration nodes.

The vendor's own pass is closed; this is the reconstruction of hmct-spec 5. It reads operator
traits and target facts, never operator or node names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable

from jptq.errors import ModelError
from jptq.ir.edit import insert_on_tensors, unique_name
from jptq.ir.model import CALIBRATION, HORIZON, Attribute, Model, Node
from jptq.numerics.qtypes import INT8
from jptq.ops import Kind
from jptq.quant.plan import FEATURE, WEIGHT
from jptq.quant.structure import Structure, is_bias, is_partial_sum, structure_of
from jptq.targets import Target


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Wanted:
    """A quantizer to be: its kind and, per channel, the axis."""

    kind: str
    axis: int | None = None


def place(
    model: Model,
    target: Target,
    *,
    floats: Collection[str],
    quantize_outputs: bool = False,
) -> Model:
    """Return the model with an INT8 quantizer, without thresholds yet, wherever one belongs.

    Args:
      model: An optimized float model.
      target: Says what the device fuses.
      floats: Names of the float32 tensors; only they are quantized.
      quantize_outputs: Put a quantizer on every graph output, also where the device gives it out
        in high precision (``model_output_type``).

    Raises:
      ModelError: The model has quantizers already, or nothing that could carry one.
      UnsupportedOpError: An operator is unknown.
    """
    if any(node.is_calibration for node in model.nodes):
        raise ModelError("the model has quantizers already", hint="give the float model")
    structure = structure_of(model, epilogues=target.operands.epilogues)
    wanted = _on_operands(structure, frozenset(floats))
    given_out = _on_outputs(structure, floats, everywhere=quantize_outputs)
    for tensor in given_out:
        wanted.setdefault(tensor, _Wanted(kind=FEATURE))
    if not wanted:
        why, hint = _why_nothing(model, floats)
        raise ModelError("nothing in the model can be quantized", why=why, hint=hint)
    nodes = {tensor: [_node(model, tensor, want)] for tensor, want in wanted.items()}
    opened = dataclasses.replace(model, opsets={**model.opsets, HORIZON: 1})
    # Consumers read every quantized tensor; a graph output only those that are meant for it.
    inside = {tensor: chain for tensor, chain in nodes.items() if tensor not in given_out}
    outside = {tensor: chain for tensor, chain in nodes.items() if tensor in given_out}
    return insert_on_tensors(insert_on_tensors(opened, inside), outside, graph_outputs=True)


def _why_nothing(model: Model, floats: Collection[str]) -> tuple[str, str]:
    """Return the reason why no tensor can carry a quantizer, and what to do."""
    bodies = [
        node
        for node in model.nodes
        if any(isinstance(value, Model) for value in node.attributes.values())
    ]
    if bodies:
        return (
            f"its work is inside {bodies[0].op} node {bodies[0].name!r}, whose branches keep float",
            "export the network with the condition fixed, so that one branch remains",
        )
    if not any(name in floats for node in model.nodes for name in node.outputs):
        return (
            "none of its tensors is float32",
            "there is nothing to quantize in a network of integers",
        )
    return "no operator in it is one that the target quantizes", "jptq latency shows its nodes"


def tied_thresholds(model: Model) -> tuple[tuple[str, ...], ...]:
    """Return the groups of quantizers that hold one threshold.

    Operators that move values without being looked through (Concat, Pad) keep the grid: the
    quantizers at their inputs and at their output are tied, over several such operators too.

    Args:
      model: A calibrated model.

    Returns:
      Groups of two or more names, each in graph order, ordered by their first member.
    """
    structure = structure_of(model)
    order = [node.name for node in model.nodes if node.is_calibration]
    leader = {name: name for name in order}

    def find(name: str) -> str:
        while leader[name] != name:
            leader[name] = leader[leader[name]]  # halves the way for whoever asks next
            name = leader[name]
        return name

    for node in model.operators():
        indices = [i for i in range(len(node.inputs)) if structure.moves(node, i)]
        found = [structure.calibration(node, i) for i in indices]
        members = [calibration.name for calibration in found if calibration is not None]
        if not indices:
            continue
        members += [
            reader.name
            for output in node.outputs
            for reader, _ in model.consumers.get(output, ())
            if reader.is_calibration
        ]
        for name in members[1:]:
            leader[find(name)] = find(members[0])
    groups: dict[str, list[str]] = {}
    for name in order:
        groups.setdefault(find(name), []).append(name)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _on_operands(structure: Structure, floats: frozenset[str]) -> dict[str, _Wanted]:
    """Return the quantizers that operands need, by tensor, in the order they are met."""
    constants = structure.model.initializers
    wanted: dict[str, _Wanted] = {}
    for node, index in _operands(structure):
        name = node.inputs[index]
        if index in structure.traits(node).weights and name in constants and name in floats:
            want = _Wanted(kind=WEIGHT, axis=structure.weight_axis(node, index))
            before = wanted.get(name)
            if before is not None and before.kind == WEIGHT and before != want:
                want = _Wanted(kind=WEIGHT)  # its readers disagree on the channels
            wanted[name] = want
            continue
        if is_partial_sum(structure, node, index):
            continue
        if name in structure.inner or not floats.issuperset((name, *_moved(structure, node))):
            continue
        tensor = structure.origin(name)
        if tensor not in floats:
            continue
        if tensor in constants and not _quantizes_constant(structure, node, index, tensor):
            continue
        wanted.setdefault(tensor, _Wanted(kind=FEATURE))
    return wanted


def _operands(structure: Structure) -> Iterable[tuple[Node, int]]:
    for node in structure.model.operators():
        for index in range(len(node.inputs)):
            if structure.reads_feature(node, index) or structure.moves(node, index):
                yield node, index


def _moved(structure: Structure, node: Node) -> tuple[str, ...]:
    """Return the output of a view: what it moves must still be float32 behind it (Cast)."""
    return node.outputs[:1] if structure.traits(node).kind is Kind.VIEW else ()


def _quantizes_constant(structure: Structure, node: Node, index: int, tensor: str) -> bool:
    """Tell whether an operand that carries a constant needs a quantizer of its own."""
    if structure.moves(node, index) or structure.model.initializers[tensor].size <= 1:
        return False
    return not is_bias(structure, node, index)


def _on_outputs(
    structure: Structure, floats: Collection[str], *, everywhere: bool
) -> frozenset[str]:
    """Return the tensors behind graph outputs that the device gives out on a grid."""
    found = set()
    for name in structure.model.output_names:
        origin = structure.origin(name)
        source = structure.source(name)
        if origin not in floats or name not in floats or source is None:
            continue
        traits = structure.traits(source)
        precise = bool(traits.weights) or traits.joins or traits.kind is not Kind.COMPUTE
        if everywhere or not precise:
            found.add(origin)
    return frozenset(found)


def _node(model: Model, tensor: str, want: _Wanted) -> Node:
    attributes: dict[str, Attribute] = {
        "qtype": INT8.name,
        "tensor_type": want.kind,
        "constant": int(tensor in model.initializers),
        "switch": "ON",
    }
    if want.axis is not None:
        attributes["axis"] = want.axis
    return Node(
        name=unique_name(model, f"{tensor}_{CALIBRATION}"),
        op=CALIBRATION,
        domain=HORIZON,
        inputs=(tensor,),
        outputs=(unique_name(model, f"{tensor}_calibrated"),),
        attributes=attributes,
    )
