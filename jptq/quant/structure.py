"""What the traits of its operators say about a graph: where values come from, what is fused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping

import numpy as np

from jptq import ops
from jptq.errors import UnsupportedOpError
from jptq.ir.model import Model, Node
from jptq.ops import Kind, Layout, Op, Traits
from jptq.quant.pairs import pairs_of


def operators_of(model: Model) -> dict[str, Op]:
    """Return the operator of every node that is not a quantizer, by node name.

    Raises:
      UnsupportedOpError: Some nodes have no implementation; all of them are named.
    """
    found, missing = {}, []
    for node in model.operators():
        entry = ops.find(node.domain, node.op, model.opset(node.domain))
        if entry is None:
            missing.append(node)
        else:
            found[node.name] = entry
    if missing:
        raise UnsupportedOpError(
            "unknown operators: " + ", ".join(sorted({_title(node) for node in missing})),
            where="nodes " + ", ".join(repr(node.name) for node in missing),
        )
    return found


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Structure:
    """A graph with its operators and its fused units.

    Attributes:
      model: The graph, with or without quantizers.
      operators: By node name.
      inner: Tensors inside fused units: they never exist on the device.
      totals: Names of the additions that join a split operator again (`jptq.quant.compensate`).
    """

    model: Model
    operators: Mapping[str, Op]
    inner: frozenset[str] = frozenset()
    totals: frozenset[str] = frozenset()
    _origins: dict[str, str] = dataclasses.field(default_factory=dict, init=False, repr=False)
    _sources: dict[str, str] = dataclasses.field(default_factory=dict, init=False, repr=False)
    _shown: dict[str, str] = dataclasses.field(default_factory=dict, init=False, repr=False)

    def traits(self, node: Node) -> Traits:
        """Return the traits of a node that is not a quantizer."""
        return self.operators[node.name].traits

    def origin(self, tensor: str) -> str:
        """Return the tensor whose values a tensor carries.

        Walks up through operators that only move or repeat values on one grid (hmct-spec 5), but
        not into a fused unit.
        """

        def above(node: Node) -> str | None:
            shown = self._looked_through(node)
            return None if shown in self.inner else shown

        return self._followed(tensor, above, self._origins)

    def source(self, tensor: str) -> Node | None:
        """Return the node that computed the values of a tensor, through views and fused units.

        Returns:
          A computing node, or a view that joins several tensors; None for a graph input and a
          constant.
        """

        def above(node: Node) -> str | None:
            fused = next((name for name in node.inputs if name in self.inner), None)
            if fused is not None:
                return fused
            if node.is_calibration:
                return node.inputs[0]
            traits = self.traits(node)
            if traits.kind not in (Kind.VIEW, Kind.FUSABLE) or traits.joins:
                return None
            return node.inputs[traits.through]

        return self.model.producers.get(self._followed(tensor, above, self._sources))

    def calibration(self, node: Node, index: int) -> Node | None:
        """Return the quantizer that a node's input shows, looking through views (hmct-spec 1.5)."""
        end = self._followed(node.inputs[index], self._looked_through, self._shown)
        producer = self.model.producers.get(end)
        return producer if producer is not None and producer.is_calibration else None

    def _looked_through(self, node: Node) -> str | None:
        """Return the tensor that a node passes on; None if it is a quantizer or computes."""
        if node.is_calibration or not self.traits(node).look_through:
            return None
        return node.inputs[self.traits(node).through]

    def _followed(
        self, tensor: str, above: Callable[[Node], str | None], known: dict[str, str]
    ) -> str:
        """Return where a walk up from a tensor ends.

        Args:
          tensor: Begins it.
          above: The next tensor above the node that wrote one; None ends the walk.
          known: Ends that are known; those of this walk are added.
        """
        path = []
        while tensor not in known:
            node = self.model.producers.get(tensor)
            following = None if node is None else above(node)
            if following is None:
                break
            path.append(tensor)
            tensor = following
        end = known.get(tensor, tensor)
        known.update(dict.fromkeys(path, end))
        return end

    def reads_feature(self, node: Node, index: int) -> bool:
        """Tell whether a computing node reads input ``index`` as numbers that may be quantized."""
        traits = self.traits(node)
        if traits.kind is not Kind.COMPUTE or not node.inputs[index]:
            return False
        if index in traits.exact or self.operators[node.name].is_static(index):
            return False
        return traits.features is None or index in traits.features or index in traits.weights

    def moves(self, node: Node, index: int) -> bool:
        """Tell whether a view that is not looked through moves the values of input ``index``."""
        traits = self.traits(node)
        if traits.kind is not Kind.VIEW or traits.look_through or not node.inputs[index]:
            return False
        return traits.joins or index == traits.through

    def splits(self, node: Node) -> int:
        """Return how many scales, one per channel, a quantizer of a feature may hold.

        The scales of a feature's channels can be folded into a weight if that is all they meet:
        every reader is a convolution with one group or a depthwise one (hmct-spec 2.2).

        Returns:
          The number of channels (axis 1), or 1 if some reader needs one scale.
        """
        output = node.outputs[0]
        readers = self.model.consumers.get(output, ())
        if output in self.model.output_names or node.inputs[0] in self.model.initializers:
            return 1
        found = {self._absorbed(reader) if index == 0 else 1 for reader, index in readers}
        return found.pop() if len(found) == 1 else 1

    def _absorbed(self, reader: Node) -> int:
        """Return the number of input channels whose scales a node's weight can absorb, or 1."""
        # Output channels first, then input channels, behind them the taps: a convolution's kernel.
        if reader.is_calibration or self.traits(reader).weights.get(1) != 0:
            return 1
        quantizer = self.calibration(reader, 1)
        name = reader.inputs[1] if quantizer is None else quantizer.inputs[0]
        kernel = self.model.initializers.get(name)
        if kernel is None:
            return 1
        group = reader.attributes.get("group", 1)
        if group == 1:
            return int(kernel.shape[1])
        return int(kernel.shape[0]) if group == kernel.shape[0] and kernel.shape[1] == 1 else 1

    def weight_axis(self, node: Node, index: int) -> int | None:
        """Return the channel axis of a constant weight operand, or None if it has no channels."""
        axis = self.traits(node).weights[index]
        rank = self.model.initializers[node.inputs[index]].ndim
        # The only axis of a vector is summed over by a product that counts axes from the end.
        if axis < 0 and rank < 2:
            return None
        return axis % rank


def structure_of(model: Model, *, epilogues: Collection[str] = ()) -> Structure:
    """Return a graph with its operators and fused units.

    Fused are a matrix product (an operator with weights) with an addition that alone reads it,
    and either of them, or any elementwise operator, with a Relu that alone reads it; but no Relu
    behind the addition of a split operator. A tensor that is a graph output is never inside a unit.

    Args:
      model: The graph.
      epilogues: Operator types that the target adds to a matrix product; none: nothing is fused.

    Raises:
      UnsupportedOpError: An operator has no traits.

    Source: hmct-spec 5.
    """
    operators = operators_of(model)
    captured = {name for node in model.nodes for name in node.reads if name not in node.inputs}
    kept = {*model.output_names, *captured}
    position = {node.name: i for i, node in enumerate(model.nodes)}

    def sole_producer(tensor: str) -> Node | None:
        """Return the producer of a tensor that only one operand reads."""
        if tensor in kept or len(model.consumers.get(tensor, ())) != 1:
            return None
        producer = model.producers.get(tensor)
        return None if producer is None or producer.is_calibration else producer

    totals = frozenset(pair.total.name for pair in pairs_of(model))
    inner: set[str] = set()
    for node in model.operators() if epilogues else ():
        if node.domain == "" and node.op in epilogues:
            products = [
                (position[producer.name], tensor)
                for tensor in node.inputs
                if (producer := sole_producer(tensor)) and operators[producer.name].traits.weights
            ]
            # Of two products the later one is fused: its addend exists by then.
            inner.update(tensor for _, tensor in sorted(products)[-1:])
        elif _clips_at_zero(model, node, operators[node.name]):
            producer = sole_producer(node.inputs[0])
            if producer is None or producer.name in totals:
                continue
            if _takes_relu(operators[producer.name].traits):
                inner.add(node.inputs[0])
    return Structure(model=model, operators=operators, inner=frozenset(inner), totals=totals)


def is_bias(structure: Structure, node: Node, index: int) -> bool:
    """Tell whether a constant operand is added to a matrix product inside a fused unit.

    Such a vector is the product's bias: the device adds it in int32, not on an 8-bit grid.
    """
    constant = structure.model.initializers.get(node.inputs[index])
    if constant is None or constant.size != max(constant.shape, default=1):
        return False
    products = (structure.model.producers[name] for name in node.inputs if name in structure.inner)
    return any(structure.traits(producer).weights for producer in products)


def is_partial_sum(structure: Structure, node: Node, index: int) -> bool:
    """Tell whether an operand is the first half of a split product, added to the second.

    The matrix unit goes on from its int32 result: no 8-bit grid lies between the halves.
    """
    return (
        node.name in structure.totals
        and node.inputs[index] not in structure.inner
        and any(name in structure.inner for name in node.inputs)
    )


def _takes_relu(traits: Traits) -> bool:
    return bool(traits.weights) or (
        traits.kind is Kind.COMPUTE and traits.layout is Layout.ELEMENTWISE
    )


def _clips_at_zero(model: Model, node: Node, entry: Op) -> bool:
    """Tell whether a fusable node is max(x, 0), perhaps with an upper limit."""
    if entry.traits.kind is not Kind.FUSABLE:
        return False
    if len(entry.inputs) == 1 and not entry.attributes:
        return True  # Relu: there is nothing to set
    low = node.attributes.get("min")
    if low is None and len(node.inputs) > 1:
        low = model.initializers.get(node.inputs[1])
    return isinstance(low, int | float | np.ndarray) and bool(np.all(np.asarray(low) == 0))


def _title(node: Node) -> str:
    return f"{node.domain}::{node.op}" if node.domain else node.op
