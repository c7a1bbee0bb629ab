"""What a reader has to know of where quantizers stand, and of the names they have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from jptq import ir
from jptq.ir.model import Model, Node
from jptq.ops import Kind
from jptq.quant.attributes import OFF, ON, attributes_of
from jptq.quant.structure import Structure, structure_of

_AT_THE_END = 0.9
"""Share of a threshold from which a constant counts as its end: percentiles cut a little off."""

_MOST = 3
"""Names in a sentence."""


def graph_notes(model: Model) -> tuple[str, ...]:
    """Return sentences about a calibrated model, most important first.

    Args:
      model: With quantizers.
    """
    structure = structure_of(model)
    renamed = renamed_nodes(model)
    notes = [ir.unread(model), *_fills(structure), *_twins(model), _states(structure)]
    if renamed:
        pairs = _few([f"{new!r} for {old!r}" for new, old in renamed.items()])
        notes.append(
            f"Nodes of the file share a name and were renamed (result.json: renamed): {pairs}."
        )
    return tuple(filter(None, notes))


def renamed_nodes(model: Model) -> Mapping[str, str]:
    """Return ``{name: name in the file}`` of the nodes whose name the file gives to several."""
    return {new: old for new, old in ir.renamed(model).items() if new in model.by_name}


def _states(structure: Structure) -> str:
    nodes = [node for node in structure.model.operators() if structure.traits(node).recurrent]
    if not nodes:
        return ""
    return (
        "No quantizer stands on the states of recurrent nodes, neither between two steps nor where "
        f"they enter and leave: they are float here ({_few([repr(node.name) for node in nodes])})."
    )


def _twins(model: Model) -> Iterator[str]:
    """Say which outputs are one tensor, with a quantizer before one of them only."""
    first: dict[str, tuple[str, bool]] = {}
    for output in model.output_names:
        tensor, quantized = output, False
        while (node := model.producers.get(tensor)) is not None and _passes(node):
            quantized |= node.is_calibration and node.attributes.get("switch", ON) != OFF
            tensor = node.inputs[0]
        other, plain = first.setdefault(tensor, (output, quantized))
        if plain != quantized:
            behind, bare = (output, other) if quantized else (other, output)
            yield (
                f"Outputs {bare!r} and {behind!r} are one tensor of the network; {behind!r} is "
                f"given out behind its quantizer, {bare!r} in float. model_output_type of "
                "quant_config quantizes both."
            )


def _passes(node: Node) -> bool:
    return node.is_calibration or node.op in _COPIES


_COPIES = frozenset({"Identity"})


def _fills(structure: Structure) -> Iterator[str]:
    """Say which constants lie at the end of the grid of the values that they stand beside."""
    model = structure.model
    for node in model.operators():
        traits = structure.traits(node)
        if (
            traits.kind is not Kind.VIEW
            or traits.joins
            or not structure.moves(node, traits.through)
        ):
            continue
        value = _fill(model, node, traits.through)
        quantizer = _behind(model, node) or structure.calibration(node, traits.through)
        if not value or quantizer is None:
            continue
        held = attributes_of(quantizer).thresholds
        end = 0.0 if held is None else float(np.abs(held).max())
        if _AT_THE_END * end <= abs(value) and end:
            yield (
                f"The constant {value:g} that node {node.name!r} ({node.op}) puts beside its "
                f"values is at the end of their grid (INT8 step {end / 127:.2g}): it sets that "
                "grid if they are smaller."
            )


def _fill(model: Model, node: Node, through: int) -> float:
    """Return the number that a node adds to the values that it moves; 0 if there is none."""
    value = node.attributes.get("value", 0.0)
    found = [float(value)] if isinstance(value, (int, float)) else []
    for index, name in enumerate(node.inputs):
        constant = model.initializers.get(name)
        if index != through and constant is not None and constant.size == 1:
            found += [float(constant.ravel()[0])] if constant.dtype.kind == "f" else []
    return max(found, key=abs, default=0.0)


def _behind(model: Model, node: Node) -> Node | None:
    readers = (reader for name in node.outputs for reader, _ in model.consumers.get(name, ()))
    return next((reader for reader in readers if reader.is_calibration), None)


def _few(names: list[str]) -> str:
    more = len(names) - _MOST
    return ", ".join(names[:_MOST]) + (f" and {more} more" if more > 0 else "")
