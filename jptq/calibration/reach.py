"""Which values of each tensor the network still tells apart: where thresholds may stop.

Every operator says which values of an operand its output tells apart (`jptq.ops.intervals`). From
the outputs up, a tensor needs what any of its readers needs; operators that move, add or scale
values hand on what their own readers need. What is a graph output, or read by an operator that
says nothing, needs all.

Two operands of a sum may both be cut off by this: where one is beyond its end, the sum is beyond
its own, whatever the other one is, and stays so if that one is cut off too.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from jptq.calibration import levels
from jptq.ir.model import Model, Node
from jptq.ops.intervals import ALL, HALF_STEP, Asked, Interval, Reach, Seen
from jptq.ops.reach import LARGEST, MULTIPLIES
from jptq.quant.structure import Structure, structure_of


class Range(Protocol):
    """Ends of a tensor over all samples."""

    @property
    def low(self) -> float:
        """Least value."""

    @property
    def high(self) -> float:
        """Largest value."""


@dataclasses.dataclass(frozen=True, kw_only=True, order=True)
class Rows:
    """Rows of a tensor whose levels are asked for, see `levels.measure`."""

    tensor: str
    axes: tuple[int, ...]
    kind: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reached:
    """What is told apart of a tensor.

    Attributes:
      interval: From where to where.
      by: Names of the nodes that decide on it, in graph order.
      masked: Rows that a mask fills as a whole were left out.
    """

    interval: Interval = ALL
    by: tuple[str, ...] = ()
    masked: bool = False

    def hull(self, other: Reached) -> Reached:
        """Return what either of two readers needs."""
        return Reached(
            interval=self.interval.hull(other.interval),
            by=tuple(dict.fromkeys((*self.by, *other.by))),
            masked=self.masked or other.masked,
        )


EVERYTHING = Reached()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Scope:
    """A network whose tensors may be limited.

    Attributes:
      model: With quantizers, as placed.
      shapes: Of every tensor of one sample.
      dtypes: Of every tensor; only float32 ones are limited.
    """

    model: Model
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, np.dtype]

    @cached_property
    def structure(self) -> Structure:
        """The graph with its operators."""
        return structure_of(self.model)

    @cached_property
    def rows(self) -> tuple[Rows, ...]:
        """Rows whose levels `limits` wants to know, in graph order."""
        found: dict[Rows, None] = {}
        for node, index, reach in self._askers:
            tensor = self.plain(node.inputs[index])
            if reach.rows and tensor in self.shapes:
                found[self._rows(node, index, reach)] = None
            for name in self._named(node, index, reach):
                if name not in self.model.initializers and self._takes_largest(name):
                    found[_elements(name)] = None
        return tuple(found)

    @cached_property
    def tensors(self) -> tuple[str, ...]:
        """Tensors, no constants, whose range or rows `limits` wants to know, in graph order."""
        found: dict[str, None] = {}
        for node, index, reach in self._askers:
            for name in self._named(node, index, reach):
                if name not in self.model.initializers:
                    found[name] = None
        found |= dict.fromkeys(rows.tensor for rows in self.rows)
        return tuple(found)

    def with_constants(self, constants: Mapping[str, np.ndarray]) -> Scope:
        """Return the network with other values in some constants."""
        held = {**self.model.initializers, **constants}
        return dataclasses.replace(self, model=dataclasses.replace(self.model, initializers=held))

    def plain(self, tensor: str) -> str:
        """Return the tensor in front of a quantizer: in float it is the same."""
        producer = self.model.producers.get(tensor)
        while producer is not None and producer.is_calibration:
            tensor = producer.inputs[0]
            producer = self.model.producers.get(tensor)
        return tensor

    def limits(
        self,
        ranges: Mapping[str, Range],
        rows: Mapping[Rows, np.ndarray],
        *,
        tolerance: float = HALF_STEP,
    ) -> dict[str, Reached]:
        """Return what is told apart of the tensors that have any limit.

        Args:
          ranges: By tensor; those that are missing count as unknown.
          rows: Levels, see `levels.measure`.
          tolerance: See `Asked`.

        Returns:
          ``{tensor: what is told apart}``; zero always is.
        """
        told: dict[str, Reached] = {}
        for node in reversed(self.model.nodes):
            behind = self._behind(node, told)
            for index, name in enumerate(node.inputs):
                if not name:
                    continue
                found = self._answer(node, index, behind, ranges, rows, tolerance)
                told[name] = told[name].hull(found) if name in told else found
            for name in set(node.reads) - set(node.inputs):
                told[name] = EVERYTHING
        order = {node.name: i for i, node in enumerate(self.model.nodes)}
        return {
            name: dataclasses.replace(
                found,
                interval=found.interval.hull(Interval(0.0, 0.0)),
                by=tuple(sorted(found.by, key=order.__getitem__)),
            )
            for name, found in told.items()
            if found.interval.limits and name not in self._given_out
        }

    @cached_property
    def _given_out(self) -> frozenset[str]:
        return frozenset(self.model.output_names)

    def _behind(self, node: Node, told: Mapping[str, Reached]) -> Reached:
        """Return what the readers of a node's outputs need."""
        found: Reached | None = None
        for name in filter(None, node.outputs):
            if name in self._given_out or (name in told and not self._is_float(name)):
                return EVERYTHING
            if name in told:
                found = told[name] if found is None else found.hull(told[name])
        return found or EVERYTHING

    def _is_float(self, tensor: str) -> bool:
        return self.dtypes.get(self.plain(tensor)) == np.float32

    def _answer(
        self,
        node: Node,
        index: int,
        behind: Reached,
        ranges: Mapping[str, Range],
        rows: Mapping[Rows, np.ndarray],
        tolerance: float,
    ) -> Reached:
        """Return what a node needs of one operand."""
        if node.is_calibration:
            return behind
        reach = self._reach(node, index)
        if reach is None or (reach.passes and not behind.interval.limits):
            return EVERYTHING
        if not self._is_float(node.inputs[index]):
            return EVERYTHING
        bare = "shapes" in reach.asks
        operands = [self._seen(name, ranges, rows, bare=bare) for name in node.inputs]
        masked = behind.masked
        own = operands[index]
        if reach.rows and own is not None:
            found = rows.get(self._rows(node, index, reach))
            if found is not None:
                operands[index] = dataclasses.replace(own, level=levels.least(found))
                masked |= levels.masked(found)
        asked = Asked(
            index=index,
            output=behind.interval,
            operands=operands,
            result=self._seen(node.outputs[0], ranges, rows),
            attributes=self._attributes(node),
            tolerance=tolerance,
        )
        interval = reach.interval(asked)
        if not interval.limits:
            return EVERYTHING
        by = behind.by if reach.passes else (node.name, *behind.by)
        return Reached(interval=interval, by=by, masked=masked)

    def _reach(self, node: Node, index: int) -> Reach | None:
        reach = self.structure.traits(node).reach
        return reach if reach is not None and reach.of(index) else None

    def _attributes(self, node: Node) -> dict[str, Any]:
        entry = self.structure.operators[node.name]
        found = {name: node.attributes.get(name, entry.default(name)) for name in entry.attributes}
        return {n: v for n, v in found.items() if v is not inspect.Parameter.empty}

    def _rows(self, node: Node, index: int, reach: Reach) -> Rows:
        tensor = self.plain(node.inputs[index])
        assert reach.axes is not None
        axes = reach.axes(self._attributes(node), len(self.shapes[tensor]))
        return Rows(tensor=tensor, axes=axes, kind=reach.rows)

    def _seen(
        self,
        name: str,
        ranges: Mapping[str, Range],
        rows: Mapping[Rows, np.ndarray],
        *,
        bare: bool = False,
    ) -> Seen | None:
        """Return what is known of a tensor, if only its shape where that is enough."""
        tensor = self.plain(name)
        constant = self.model.initializers.get(tensor)
        if constant is not None:
            if constant.size == 0 or constant.dtype.kind not in "fiu" or np.isnan(constant).any():
                return None
            low, high = float(constant.min()), float(constant.max())
            return Seen(low=low, high=high, shape=constant.shape, constant=True)
        shape = self.shapes.get(tensor, ())
        if tensor not in ranges:
            return Seen(low=-math.inf, high=math.inf, shape=shape) if bare and shape else None
        known = ranges[tensor]
        found = rows.get(_elements(tensor))
        level = math.nan if found is None else levels.least(found)
        return Seen(low=known.low, high=known.high, level=level, shape=shape)

    @cached_property
    def _askers(self) -> tuple[tuple[Node, int, Reach], ...]:
        """Operands that may be limited, and how to answer for them."""
        able: dict[str, bool] = {}
        asking: list[tuple[Node, int, Reach]] = []
        for node in reversed(self.model.nodes):
            outputs = [n for n in node.outputs if n in able or n in self._given_out]
            passing = bool(outputs) and all(
                able.get(n, False) and n not in self._given_out and self._is_float(n)
                for n in outputs
            )
            for index, name in enumerate(node.inputs):
                if not name:
                    continue
                if node.is_calibration:
                    can = passing
                else:
                    reach = self._reach(node, index)
                    can = reach is not None and (passing or not reach.passes)
                    can = can and self._is_float(name)
                    if can and reach is not None:
                        asking.append((node, index, reach))
                able[name] = able.get(name, True) and can
            able |= dict.fromkeys(set(node.reads) - set(node.inputs), False)
        return tuple(one for one in reversed(asking) if able[one[0].inputs[one[1]]])

    def _named(self, node: Node, index: int, reach: Reach) -> Iterator[str]:
        """Yield the tensors whose ranges an answer needs."""
        if "own" in reach.asks:
            yield self.plain(node.inputs[index])
        if "result" in reach.asks:
            yield from filter(None, node.outputs[:1])
        if "others" in reach.asks:
            yield from (self.plain(n) for i, n in enumerate(node.inputs) if n and i != index)

    def _takes_largest(self, tensor: str) -> bool:
        """Tell whether each element of a tensor is the largest of a row."""
        source = self.structure.source(tensor)
        reach = None if source is None else self.structure.traits(source).reach
        return reach is LARGEST


def _elements(tensor: str) -> Rows:
    return Rows(tensor=tensor, axes=(), kind="element")


def shortened(
    constants: Mapping[str, np.ndarray], reached: Mapping[str, Reached]
) -> dict[str, np.ndarray]:
    """Return the constants that reach far beyond what is told apart, cut off there.

    Not where rows were left out that a mask fills as a whole: in these it is all that there is.

    Args:
      constants: By name.
      reached: What is told apart within the precision of float32 (`SINGLE`), by tensor.
    """
    found = {}
    for name, known in reached.items():
        value = constants.get(name)
        if value is None or known.masked or value.dtype != np.float32 or np.isnan(value).any():
            continue
        cut = np.clip(value, np.float32(known.interval.low), np.float32(known.interval.high))
        if np.abs(value).max(initial=0) > _FAR * np.abs(cut).max(initial=0) > 0:
            found[name] = cut
    return found


def smaller_factors(
    scope: Scope, ranges: Mapping[str, Range], reached: Mapping[str, Reached]
) -> dict[str, np.ndarray]:
    """Return single factors that make a mask of what they are multiplied by, as small as will do.

    ``(1 - keep) * -3.4e38`` with ``keep`` 0 or 1 is as good as ``(1 - keep) * -30`` if nobody tells
    values below -30 apart. Whether what is masked holds no values between is for the samples to
    show: it is not known here.

    Args:
      scope: The network.
      ranges: By tensor.
      reached: What is told apart within the precision of float32 (`SINGLE`), by tensor.
    """
    found = {}
    for node in scope.model.operators():
        known = reached.get(node.outputs[0])
        if known is None or known.masked or scope.structure.traits(node).reach is not MULTIPLIES:
            continue
        for name, other in (node.inputs, node.inputs[::-1]):
            factor, seen = scope.model.initializers.get(name), ranges.get(scope.plain(other))
            if seen is None or factor is None or factor.size != 1 or factor.dtype != np.float32:
                continue
            readers = scope.model.consumers.get(name, ())
            if len(readers) == 1 and (value := _smaller(float(factor.item()), seen, known)):
                found[name] = np.full_like(factor, value)
    return found


def _smaller(factor: float, seen: Range, known: Reached) -> float:
    """Return a factor that takes the values seen as far as they are told apart; 0 for none."""
    for end, largest in ((known.interval.low, min), (known.interval.high, max)):
        far = largest((seen.low, seen.high), key=lambda value: factor * value)
        if math.isfinite(end) and end * far * factor > 0 and far * factor / end > _FAR:
            return end / far
    return 0.0


_FAR = 2.0
"""A constant is left as it is where this is all that its range would shrink by."""
