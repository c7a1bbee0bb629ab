"""Operators of a graph under the vendor's names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jptq.errors import ModelError
from jptq.hmct.variable import OnnxVariable, Shape
from jptq.ir import Node

if TYPE_CHECKING:
    from jptq.hmct.graph import OnnxGraph


class OnnxNode:
    """One operator of an `OnnxGraph`; made by `OnnxGraph.create_node`.

    Attributes:
      attributes: Values by name; what is written into it holds.
    """

    def __init__(
        self,
        graph: OnnxGraph,
        *,
        name: str,
        op_type: str,
        domain: str,
        attributes: Mapping[str, Any],
        inputs: Sequence[OnnxVariable],
        outputs: Sequence[OnnxVariable],
    ) -> None:
        self._graph: OnnxGraph | None = graph
        self._name, self._op_type, self._domain = name, op_type, domain
        self._inputs, self._outputs = list(inputs), list(outputs)
        self.attributes: dict[str, Any] = dict(attributes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r}, {self._op_type})"

    @property
    def name(self) -> str:
        """Name, unique in the graph."""
        return self._name

    @property
    def op_type(self) -> str:
        """Operator type."""
        return self._op_type

    @property
    def domain(self) -> str:
        """Operator set; "" for ONNX's own."""
        return self._domain

    @property
    def owning_graph(self) -> OnnxGraph:
        """The graph that it is part of.

        Raises:
          ModelError: The node has been destroyed.
        """
        if self._graph is None:
            raise ModelError(f"node {self._name!r} has been destroyed")
        return self._graph

    @property
    def is_part(self) -> bool:
        """Whether it is in a graph; not after `destroy`."""
        return self._graph is not None

    @property
    def inputs(self) -> tuple[OnnxVariable, ...]:
        """What it reads; an optional input that is left out `is_dummy`."""
        return tuple(self._inputs)

    @property
    def outputs(self) -> tuple[OnnxVariable, ...]:
        """What it writes."""
        return tuple(self._outputs)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return tuple(variable.name for variable in self._inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return tuple(variable.name for variable in self._outputs)

    @property
    def output_shapes(self) -> tuple[Shape | None, ...]:
        """Shapes of the outputs; None where unknown."""
        return tuple(variable.shape for variable in self._outputs)

    @property
    def prev_ops(self) -> list[OnnxNode]:
        """The nodes that write its inputs, each once, in the order of the inputs."""
        writers = (variable.src_op for variable in self._inputs)
        return list(dict.fromkeys(node for node in writers if node is not None))

    @property
    def next_ops(self) -> list[OnnxNode]:
        """The nodes that read its outputs, each once: output by output, in graph order."""
        return list(dict.fromkeys(n for variable in self._outputs for n in variable.dest_ops))

    @property
    def is_used(self) -> bool:
        """Whether anything reads one of its outputs."""
        return any(variable.is_used for variable in self._outputs)

    def set_attribute(self, name: str, value: Any) -> None:
        """Set an attribute; None removes it."""
        if value is None:
            self.attributes.pop(name, None)
        else:
            self.attributes[name] = value

    def replace_input(self, index: int, variable: OnnxVariable) -> OnnxNode:
        """Read another tensor; returns the node."""
        if not -len(self._inputs) <= index < len(self._inputs):
            raise ModelError(f"node {self._name!r} has no input {index}")
        self._inputs[index] = self.owning_graph.owned(variable)
        self.owning_graph.changed()
        return self

    def append_input(self, variable: OnnxVariable) -> OnnxNode:
        """Read one more tensor; returns the node."""
        self._inputs.append(self.owning_graph.owned(variable))
        self.owning_graph.changed()
        return self

    def append_output(self, variable: OnnxVariable | None = None) -> OnnxNode:
        """Write one more tensor, a new one unless it is given; returns the node."""
        graph = self.owning_graph
        self._outputs.append(graph.owned(variable or graph.create_variable(name=self._name)))
        graph.changed()
        return self

    def insert_before(self, node: OnnxNode) -> OnnxNode:
        """Stand right before a node, as far as what both read and write allows; returns this."""
        self.owning_graph.move(self, before=node)
        return self

    def insert_after(self, node: OnnxNode) -> OnnxNode:
        """Stand right behind a node, as far as what both read and write allows; returns this."""
        self.owning_graph.move(self, behind=node)
        return self

    def replace_all_uses_with(self, other: OnnxNode) -> None:
        """Make everything that reads this node's outputs read another node's."""
        for mine, theirs in zip(self._outputs, other.outputs, strict=False):
            mine.replace_all_uses_with(theirs)

    def destroy(self) -> None:
        """Take the node out of the graph.

        Raises:
          ModelError: Something still reads it.
        """
        if self.is_used:
            readers = ", ".join(repr(node.name) for node in self.next_ops) or "a graph output"
            raise ModelError(
                f"node {self._name!r} cannot be destroyed",
                why=f"it is read by {readers}",
                hint="replace those inputs first",
            )
        self.owning_graph.remove(self)
        self._graph = None

    def freeze(self) -> Node:
        """Return the node as immutable data."""
        return Node(
            name=self._name,
            op=self._op_type,
            domain=self._domain,
            inputs=self.input_names,
            outputs=self.output_names,
            attributes={key: _plain(value) for key, value in self.attributes.items()},
        )

    def attributes_from(self, node: Node) -> None:
        """Take over the attributes of immutable data."""
        self.attributes.clear()  # in place: a script may hold them
        self.attributes.update(node.attributes)


def _plain(value: Any) -> Any:
    """Return an attribute as `jptq.ir.Node` holds it: lists as tuples, numbers as Python's."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list | tuple):
        return tuple(_plain(item) for item in value)
    # An array without axes is a tensor: the value of a Constant.
    return value.item() if isinstance(value, np.generic) else value
