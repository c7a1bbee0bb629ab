"""Which tensors a node reads and writes, and in which width they lie in memory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from jptq.errors import ShapeError
from jptq.ir.model import Model, Node
from jptq.ops import Kind, Traits
from jptq.quant.plan import Plan
from jptq.quant.structure import Structure

WIDE_BYTES = 4
"""Size of an element that no quantizer holds: float32, or the int32 of accumulator and bias."""

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stream:
    """A tensor that a node moves.

    Attributes:
      tensor: Its name.
      elements: Their number.
      role: ``first``, ``second`` (the other operand of a matrix product), ``output``, or
        ``wide`` where no quantizer sets the width.
      calibration: The quantizer whose type it is stored in, if any.
      resident: It may stay in on-chip memory: neither a constant nor an end of the graph.
    """

    tensor: str
    elements: int
    role: str
    calibration: str | None
    resident: bool


class Traffic:
    """The tensors of a calibrated graph as they lie in memory.

    Args:
      structure: The graph with its fused units.
      plan: Its quantizers.
      shapes: Concrete shapes by tensor name; those of constants and of quantizers' outputs may
        be left out.

    Raises:
      ShapeError: Shapes are missing; all of them are named.
    """

    def __init__(self, structure: Structure, plan: Plan, shapes: Mapping[str, Shape]) -> None:
        self.structure = structure
        self._model = structure.model
        self._plan = plan
        self._shapes = _complete(self._model, structure, shapes)
        self._ends = {*self._model.input_names, *self._model.output_names}
        self._copies: dict[str, list[Node]] = {}
        for node in self._model.nodes:
            if node.is_calibration:
                self._copies.setdefault(node.inputs[0], []).append(node)
        self._above: dict[str, str | None] = {}
        for node in self._model.nodes:
            self._above |= {tensor: self._seen_above(tensor, node) for tensor in node.outputs}
        self._below: dict[str, str | None] = {}
        for node in reversed(self._model.nodes):
            self._below |= {tensor: self._seen_below(tensor) for tensor in node.outputs}

    def shape(self, tensor: str) -> Shape:
        """Return a tensor's shape; ``()`` for an absent one."""
        return self._shapes[tensor] if tensor else ()

    def operands(self, node: Node) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the calibrations of a node's plain features and of its second operands."""
        slots = self._plan.by_node.get(node.name)
        weights = self.structure.traits(node).weights
        first: dict[str, None] = {}
        second: dict[str, None] = {}
        for index, name in (slots.inputs if slots else {}).items():
            (second if index in weights and index > 0 else first)[name] = None
        return tuple(first), tuple(name for name in second if name not in first)

    def read(self, node: Node) -> list[Stream]:
        """Return what a node reads from memory, each tensor once; nothing from inside its unit."""
        entry = self.structure.operators[node.name]
        _, second = self.operands(node)
        slots = self._plan.by_node.get(node.name)
        held = slots.inputs if slots else {}
        found: dict[str, Stream] = {}
        for index, tensor in enumerate(node.inputs):
            if not tensor or tensor in self.structure.inner or entry.is_static(index):
                continue
            calibration = held.get(index) or self.holder(tensor)
            role = "wide" if calibration is None else "first"
            if calibration in second:
                role = "second"
            found[tensor] = self._stream(tensor, role, calibration)
        return list(found.values())

    def written(self, node: Node) -> list[Stream]:
        """Return what the fused unit that begins with a node writes."""
        found = []
        for tensor in filter(None, node.outputs):
            last = tensor
            while last in self.structure.inner:
                ((follower, _),) = self._model.consumers[last]
                last = follower.outputs[0]
            calibration = self.holder(last)
            role = "wide" if calibration is None else "output"
            found.append(self._stream(last, role, calibration))
        return found

    def holder(self, tensor: str) -> str | None:
        """Return the quantizer in whose type a tensor is stored, if any."""
        above = self._above[tensor] if tensor in self._above else self._reader(tensor)
        if above is not None:
            return above
        return self._below[tensor] if tensor in self._below else self._seen_below(tensor)

    def _stream(self, tensor: str, role: str, calibration: str | None) -> Stream:
        origin = self._model.producers.get(tensor)
        source = origin.inputs[0] if origin is not None and origin.is_calibration else tensor
        constant = source in self._model.initializers
        copies = [node.outputs[0] for node in self._copies.get(tensor, ())]
        return Stream(
            tensor=source,
            elements=math.prod(self._shapes[tensor]),
            role=role,
            calibration=calibration,
            resident=not (constant or self._ends & {tensor, source, *copies}),
        )

    def _seen_above(self, tensor: str, producer: Node) -> str | None:
        """Look at the quantizers at a tensor, then up through views, which come first."""
        if producer.is_calibration:
            return producer.name
        direct = self._reader(tensor)
        traits = self.structure.traits(producer)
        if direct is not None or not _keeps_values(traits):
            return direct
        source = producer.inputs[traits.through]
        return self._above[source] if source in self._above else self._reader(source)

    def _seen_below(self, tensor: str) -> str | None:
        """Look at the quantizers at a tensor, then down through views, which come first."""
        direct = self._reader(tensor)
        if direct is not None:
            return direct
        for node, index in self._model.consumers.get(tensor, ()):
            traits = self.structure.traits(node)
            if _keeps_values(traits) and (traits.joins or index == traits.through):
                found = self._below[node.outputs[0]]
                if found is not None:
                    return found
        return None

    def _reader(self, tensor: str) -> str | None:
        return next((node.name for node in self._copies.get(tensor, ())), None)


def _keeps_values(traits: Traits) -> bool:
    return traits.kind in (Kind.VIEW, Kind.FUSABLE)


def _complete(model: Model, structure: Structure, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    known = {name: tuple(values.shape) for name, values in model.initializers.items()}
    known.update(shapes)
    missing: list[str] = []
    for node in model.nodes:
        if node.is_calibration:
            if node.inputs[0] in known:
                known.setdefault(node.outputs[0], known[node.inputs[0]])
            continue
        if structure.traits(node).kind is not Kind.SHAPE_ONLY:
            missing.extend(t for t in (*node.inputs, *node.outputs) if t and t not in known)
    if missing:
        names = ", ".join(repr(name) for name in dict.fromkeys(missing))
        raise ShapeError(f"tensors without a shape: {names}", hint="trace the model with a sample")
    return known
