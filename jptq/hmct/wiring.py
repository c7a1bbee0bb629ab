"""What follows from the state of an edited graph: orders and indices, made anew after a change."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence, Set

from jptq.hmct.node import OnnxNode
from jptq.hmct.variable import OnnxVariable


class NodesByType(dict[str, Set[OnnxNode]]):
    """Nodes by operator type, each in graph order; a type that does not occur has none."""

    def __missing__(self, op_type: str) -> Set[OnnxNode]:
        return dict[OnnxNode, None]().keys()


@dataclasses.dataclass(frozen=True)
class Wiring:
    """Who writes and who reads what; holds until the next change.

    Attributes:
      nodes: In topological order.
      writers: By tensor.
      readers: By tensor, with the index of the input, in graph order.
      captured: Names of tensors that only subgraphs of nodes read.
    """

    nodes: tuple[OnnxNode, ...]
    writers: Mapping[OnnxVariable, OnnxNode]
    readers: Mapping[OnnxVariable, Sequence[tuple[OnnxNode, int]]]
    captured: Set[str]
