"""Operators that were split in two to compensate an int8 operand, as a graph shows them.

The pair is told by what the vendor made public: the second operator is called
``<node>_split_low`` (hmct-spec 8.1), is of the same kind and is added to the first.
"""

from __future__ import annotations

import dataclasses

from jptq import ops
from jptq.ir.model import Model, Node
from jptq.ops import Traits

LOW = "_split_low"
"""What the name of the operator on the residue ends with."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """An operator and the one that computes what its int8 operand leaves over.

    Attributes:
      high: Works on the int8 operand; has the name of the operator that was split.
      low: Works on the residue.
      total: Adds the two.
      index: Input that is compensated.
    """

    high: Node
    low: Node
    total: Node
    index: int

    def constant(self, model: Model) -> bool:
        """Tell whether a weight is compensated, not a feature."""
        source = quantizer(model, self.low.inputs[self.index])
        tensor = self.low.inputs[self.index] if source is None else source.inputs[0]
        return tensor in model.initializers


def pairs_of(model: Model) -> tuple[Pair, ...]:
    """Return the split operators of a graph, with or without quantizers, in graph order."""
    found = []
    for low in model.operators():
        high = model.by_name.get(low.name.removesuffix(LOW))
        if high is None or high is low or (high.op, high.domain) != (low.op, low.domain):
            continue
        total = _sole_reader(model, low)
        if total is None or total is not _sole_reader(model, high):
            continue
        index = 1 if 1 in _traits(model, low).weights else 0
        found.append(Pair(high=high, low=low, total=total, index=index))
    return tuple(found)


def halves_of(model: Model) -> dict[str, Pair]:
    """Return ``{quantizer: pair}`` of operands that were split, and of what is sampled from them.

    The high part of a result keeps its int8 rounding unless sampling is nearest.
    """
    found: dict[str, Pair] = {}
    for pair in pairs_of(model):
        held = [quantizer(model, node.inputs[pair.index]) for node in (pair.high, pair.low)]
        if samples(model, pair.low):
            held.append(output_quantizer(model, pair.low))
        if samples_nearest(model, pair.high):
            held.append(output_quantizer(model, pair.high))
        found.update({node.name: pair for node in held if node is not None})
    return found


def quantizer(model: Model, tensor: str) -> Node | None:
    """Return the quantizer that writes a tensor, if one does."""
    producer = model.producers.get(tensor)
    return producer if producer is not None and producer.is_calibration else None


def output_quantizer(model: Model, node: Node) -> Node | None:
    """Return the quantizer that alone reads what a node computes, if one does."""
    readers = model.consumers.get(node.outputs[0], ())
    return readers[0][0] if len(readers) == 1 and readers[0][0].is_calibration else None


def samples(model: Model, node: Node) -> bool:
    """Tell whether an operator samples its input at other places (Resize, GridSample)."""
    entry = ops.find(node.domain, node.op, model.opset(node.domain))
    return entry is not None and "mode" in entry.attributes


def samples_nearest(model: Model, node: Node) -> bool:
    """Tell whether an operator samples, and gives out only values that it takes in."""
    entry = ops.find(node.domain, node.op, model.opset(node.domain))
    if entry is None or "mode" not in entry.attributes:
        return False
    return bool(node.attributes.get("mode", entry.default("mode")) == "nearest")


def _traits(model: Model, node: Node) -> Traits:
    """Return what an operator does to scales; of an unknown one, nothing."""
    entry = ops.find(node.domain, node.op, model.opset(node.domain))
    return Traits.float_only() if entry is None else entry.traits


def _sole_reader(model: Model, node: Node) -> Node | None:
    """Return the operator that alone reads what a node computes, through a quantizer."""
    between = output_quantizer(model, node)
    tensor = node.outputs[0] if between is None else between.outputs[0]
    readers = model.consumers.get(tensor, ())
    return readers[0][0] if len(readers) == 1 and not readers[0][0].is_calibration else None
