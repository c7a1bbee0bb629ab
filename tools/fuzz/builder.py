"""A graph that grows node by node, each of them run as it is added."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from tools.fuzz import oracle, reasons
from tools.fuzz.draw import Draw

FLOAT: np.dtype = np.dtype(np.float32)
INT64: np.dtype = np.dtype(np.int64)
BOOL: np.dtype = np.dtype(np.bool_)
Domain = tuple[float, float]
WIDE: Domain = (-3.0, 3.0)


class Rejected(Exception):  # noqa: N818  (it is no error of anybody)
    """An operator cannot stand here: draw another."""


@dataclasses.dataclass(frozen=True)
class Value:
    """A tensor of the graph.

    Attributes:
      name: Its name.
      samples: Its value in every sample.
      constant: It is the same in all of them, because it is known beforehand.
    """

    name: str
    samples: tuple[np.ndarray, ...]
    constant: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Its lengths."""
        return self.samples[0].shape

    @property
    def rank(self) -> int:
        """How many axes it has."""
        return self.samples[0].ndim

    @property
    def dtype(self) -> np.dtype:
        """Its type."""
        return self.samples[0].dtype


@functools.cache
def _schema(op: str, opset: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op, opset)
    except onnx.defs.SchemaError:
        return None


@functools.cache
def _attributes(op: str, opset: int) -> frozenset[str]:
    schema = _schema(op, opset)
    return frozenset() if schema is None else frozenset(schema.attributes)


class Builder:
    """What operators add themselves to.

    Attributes:
      draw: Makes the choices.
      opset: Version of ONNX's operators.
      count: Samples.
      tame: Refuse values that a network would blow up: not finite, or beyond `LARGEST`.
    """

    LARGEST = 200.0

    def __init__(self, draw: Draw, opset: int, *, count: int = 3, tame: bool = False) -> None:
        self.draw = draw
        self.opset = opset
        self.count = count
        self.tame = tame
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: dict[str, Value] = {}
        self.initializers: dict[str, np.ndarray] = {}
        self.values: dict[str, Value] = {}
        self._names = 0

    # --- where operands come from -----------------------------------------------------------

    def name(self, stem: str) -> str:
        """Return a name that nothing has yet."""
        self._names += 1
        return f"{stem}_{self._names}"

    def input(self, shape: Sequence[int], dtype: np.dtype = FLOAT, domain: Domain = WIDE) -> Value:
        """Add a graph input."""
        arrays = tuple(self.draw.array(shape, dtype, domain) for _ in range(self.count))
        value = Value(self.name("input"), arrays)
        self.inputs[value.name] = self.values[value.name] = value
        return value

    def constant(self, array: np.ndarray | Sequence[int]) -> Value:
        """Add a constant, an initializer or a Constant node; a list is int64."""
        given = np.asarray(array, None if isinstance(array, np.ndarray | np.generic) else INT64)
        value = Value(self.name("constant"), (given,) * self.count, constant=True)
        if self.draw.chance(0.25):
            tensor = onnx.numpy_helper.from_array(given, value.name)
            self.nodes.append(
                helper.make_node("Constant", [], [value.name], name=value.name, value=tensor)
            )
        else:
            self.initializers[value.name] = given
        self.values[value.name] = value
        return value

    def scalar(self, number: float, dtype: np.dtype = FLOAT) -> Value:
        """Add a constant of rank 0."""
        return self.constant(np.asarray(number, dtype))

    def weight(self, shape: Sequence[int], domain: Domain = (-1.0, 1.0)) -> Value:
        """Return a float32 constant: one that is there already, or a new one."""
        shape = tuple(shape)
        same = [
            value
            for value in self.values.values()
            if value.constant
            and value.shape == shape
            and value.dtype == FLOAT
            and value.rank
            and domain[0] <= value.samples[0].min(initial=0)
            and value.samples[0].max(initial=0) <= domain[1]
            and (domain[0] < 0 or value.samples[0].min(initial=9) >= domain[0])
        ]
        if same and self.draw.chance(0.3):
            return self.draw.pick(same)
        return self.constant(self.draw.array(shape, FLOAT, domain))

    def operand(
        self, shape: Sequence[int], dtype: np.dtype = FLOAT, domain: Domain = WIDE
    ) -> Value:
        """Return a tensor of a shape: computed already, a graph input or a constant."""
        shape = tuple(shape)
        kind = self.draw.integer(0, 9)
        if kind <= 4 and self.tame:
            same = [
                value
                for value in self.values.values()
                if value.shape == shape and value.dtype == dtype and not value.constant
            ]
            if same:
                return self.within(self.draw.pick(same), domain)
        if kind <= 6 and (not self.tame or len(self.inputs) < 3):
            return self.input(shape, dtype, domain)
        return self.constant(self.draw.array(shape, dtype, domain))

    def within(self, x: Value, domain: Domain) -> Value:
        """Return a tensor whose values lie in a domain: itself, or clipped to it."""
        low, high = domain
        if all(not a.size or (low <= a.min() and a.max() <= high) for a in x.samples):
            return x
        if x.dtype != FLOAT:
            raise Rejected("no clip for this type")
        if self.opset < 11:
            return self.node("Clip", x, min=low, max=high)[0]
        return self.node("Clip", x, self.scalar(low), self.scalar(high))[0]

    # --- operators --------------------------------------------------------------------------

    def since(self, op: str) -> int:
        """Return the version of an operator that the opset means.

        Raises:
          Rejected: The opset does not have it.
        """
        schema = _schema(op, self.opset)
        if schema is None or schema.deprecated:
            raise Rejected(f"no {op} in opset {self.opset}")
        return int(schema.since_version)

    def node(
        self,
        op: str,
        *inputs: Value | None,
        outputs: int = 1,
        captured: Sequence[Value] = (),
        **attributes: Any,
    ) -> tuple[Value, ...]:
        """Add a node; attributes that its version does not know are left out, as are None.

        Args:
          op: Operator type.
          *inputs: Its operands; None for an absent one.
          outputs: How many.
          captured: What its subgraphs read.
          **attributes: By name.

        Raises:
          Rejected: Nobody runs it, or what comes out is not tame.
        """
        self.since(op)
        known = _attributes(op, self.opset)
        names = ["" if value is None else value.name for value in inputs]
        while names and not names[-1]:
            names.pop()
        name = self.name(op)
        node = helper.make_node(
            op,
            names,
            [f"{name}:{i}" for i in range(outputs)],
            name=name,
            **{k: v for k, v in attributes.items() if k in known and v is not None and v != []},
        )
        for key in [k for k in known if attributes.get(k) == []]:  # does not show its type
            node.attribute.append(
                helper.make_attribute(key, [], attr_type=onnx.AttributeProto.INTS)
            )
        self._add(node, [value for value in (*inputs, *captured) if value is not None])
        return tuple(self.values[output] for output in node.output)

    def _add(self, node: onnx.NodeProto, reads: Sequence[Value]) -> None:
        if self.tame and reasons.of_node(node, self.opset):
            raise Rejected("onnxruntime has another result than ONNX")
        found = self._run(node, reads)
        constant = all(value.constant for value in reads)
        values = [
            Value(name, tuple(one[name] for one in found), constant) for name in node.output if name
        ]
        for value in values:
            self._check(value)
        self.nodes.append(node)
        self.values.update({value.name: value for value in values})

    def _run(self, node: onnx.NodeProto, reads: Sequence[Value]) -> list[oracle.Arrays]:
        constants = {value.name: value.samples[0] for value in reads if value.constant}
        samples = [
            {value.name: value.samples[i] for value in reads if not value.constant}
            for i in range(self.count)
        ]
        try:
            run = functools.partial(
                oracle.of_node,
                node,
                constants=constants,
                opset=self.opset,
                onnxruntime_only=self.tame,
            )
            return run(samples) if any(samples) else run(samples[:1]) * self.count
        except oracle.Refused as error:
            raise Rejected(str(error)) from error

    def _check(self, value: Value) -> None:
        if len({array.shape for array in value.samples}) > 1:
            raise Rejected("the shape depends on values")
        if value.dtype.kind in "iu" and any(_beyond(array) for array in value.samples):
            raise Rejected("our programs count in 32 bits")
        if not self.tame or value.dtype.kind != "f":
            return
        for array in value.samples:
            if not np.isfinite(array).all() or np.abs(array).max(initial=0) > self.LARGEST:
                raise Rejected("not tame")

    # --- the result -------------------------------------------------------------------------

    def model(self, outputs: Sequence[Value], known: Mapping[str, np.ndarray]) -> onnx.ModelProto:
        """Return the graph with some of its tensors as outputs."""
        read = {name for node in self.nodes for name in _reads(node)} | {v.name for v in outputs}
        return oracle.model_of(
            self.nodes,
            {name: value.samples[0] for name, value in self.inputs.items()},
            {name: array for name, array in self.initializers.items() if name in read},
            [value.name for value in outputs],
            self.opset,
            known,
        )

    def samples(self) -> list[oracle.Arrays]:
        """Return the feeds."""
        return [
            {name: value.samples[i] for name, value in self.inputs.items()}
            for i in range(self.count)
        ]


def _beyond(array: np.ndarray) -> bool:
    limits = np.iinfo(np.int32)
    return bool(array.size) and not limits.min <= array.min() <= array.max() <= limits.max


def _reads(node: onnx.NodeProto) -> list[str]:
    """Return what a node reads, its subgraphs included."""
    graphs = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    inside = [name for graph in graphs for inner in graph.node for name in _reads(inner)]
    inside += [output.name for graph in graphs for output in graph.output]
    return [*node.input, *inside]
