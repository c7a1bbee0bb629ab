"""The network as plain, immutable data: what passes, placement and the engine work on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TypeAlias

import numpy as np

from jptq.ir.versions import VENDOR_IR

HORIZON = "horizon"
"""Domain of the vendor's operators (hmct-spec 1.3, 1.4)."""

CALIBRATION = "HzCalibration"

Dimension: TypeAlias = int | str | None
"""A length, a name, or unknown."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tensor:
    """A graph input or output, or the type that an attribute holds.

    Attributes:
      name: Its name; "" in an attribute.
      dtype: NumPy dtype, or None where the file does not say.
      shape: Lengths, names or None per axis; None if even the rank is unknown.
      container: What wraps the tensor, outermost first: "sequence", "optional".
    """

    name: str
    dtype: np.dtype | None
    shape: tuple[Dimension, ...] | None
    container: tuple[str, ...] = ()


Attribute: TypeAlias = (
    "int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | np.ndarray"
    " | Tensor | Model"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Node:
    """One operator.

    Attributes:
      name: Unique in its graph; never empty.
      op: Operator type.
      domain: "" for ONNX's own operators.
      inputs: Tensor names; "" for an absent optional input.
      outputs: Tensor names; "" for an unused output.
      attributes: Python values; tensors as ndarray, types as `Tensor`, subgraphs as `Model`.
    """

    name: str
    op: str
    domain: str = ""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = dataclasses.field(default_factory=dict)

    @property
    def is_calibration(self) -> bool:
        """Tell whether this node is a quantizer."""
        return self.op == CALIBRATION and self.domain == HORIZON

    @property
    def subgraphs(self) -> tuple[Model, ...]:
        """The graphs among the attributes (the branches of If, the body of Loop)."""
        return tuple(value for value in self.attributes.values() if isinstance(value, Model))

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """Every tensor the node needs: its inputs, then what its subgraphs take from outside."""
        captured = [name for subgraph in self.subgraphs for name in subgraph.captured]
        return tuple(dict.fromkeys([*filter(None, self.inputs), *captured]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A graph in topological order with its constants.

    Attributes:
      name: Graph name.
      inputs: What a caller feeds; initializers are not inputs.
      outputs: What a caller gets.
      nodes: In topological order.
      initializers: Constants by tensor name.
      opsets: Version by domain.
      ir_version: Of the file it came from; `jptq.ir.versions` says which one is written.
      metadata: Free text by key; kept when saving.
    """

    name: str = "graph"
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    nodes: tuple[Node, ...]
    initializers: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    opsets: Mapping[str, int] = dataclasses.field(default_factory=dict)
    ir_version: int = VENDOR_IR
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @cached_property
    def producers(self) -> Mapping[str, Node]:
        """The node that writes each tensor."""
        return {name: node for node in self.nodes for name in node.outputs if name}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[tuple[Node, int], ...]]:
        """The nodes that read each tensor, with the input's index, in graph order."""
        found: dict[str, list[tuple[Node, int]]] = {}
        for node in self.nodes:
            for index, name in enumerate(node.inputs):
                if name:
                    found.setdefault(name, []).append((node, index))
        return {name: tuple(users) for name, users in found.items()}

    @cached_property
    def by_name(self) -> Mapping[str, Node]:
        """Nodes by name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def names(self) -> frozenset[str]:
        """Every name that a node or a tensor has."""
        return frozenset((*self.input_names, *self.initializers, *self.producers, *self.by_name))

    @cached_property
    def captured(self) -> tuple[str, ...]:
        """Tensors that a subgraph takes from the graph around it; none for a whole model."""
        inside = {*self.input_names, *self.initializers, *self.producers}
        read = [name for node in self.nodes for name in node.reads] + list(self.output_names)
        return tuple(dict.fromkeys(name for name in read if name not in inside))

    @cached_property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return tuple(tensor.name for tensor in self.outputs)

    @cached_property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        return tuple(tensor.name for tensor in self.inputs)

    def operators(self) -> Iterator[Node]:
        """Yield the nodes that are not quantizers."""
        return (node for node in self.nodes if not node.is_calibration)

    def opset(self, domain: str) -> int:
        """Return the version of a domain; 1 where the file does not import it."""
        return self.opsets.get(domain, self.opsets.get("ai.onnx", 1) if domain == "" else 1)
