"""Tensors of a graph under the vendor's names: what a node reads, writes or holds as a constant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from jptq.errors import ModelError

if TYPE_CHECKING:
    from jptq.hmct.graph import OnnxGraph
    from jptq.hmct.node import OnnxNode

Shape: TypeAlias = tuple[int | str | None, ...]


class OnnxVariable:
    """A tensor of an `OnnxGraph`; made by `OnnxGraph.create_variable` and by nodes.

    Args:
      graph: Owner.
      name: Unique in the graph; "" for an optional input that is left out.
      dtype: Element type, if it is known.
      shape: Lengths, names or None per axis; None if even the rank is unknown.
      value: Makes it a constant.
      container: What wraps the tensor, outermost first ("sequence", "optional").
    """

    def __init__(
        self,
        graph: OnnxGraph,
        name: str,
        *,
        dtype: np.dtype | None = None,
        shape: Shape | None = None,
        value: np.ndarray | None = None,
        container: tuple[str, ...] = (),
    ) -> None:
        self._graph = graph
        self._name = name
        self._value = value
        self.declared_dtype = dtype
        self.declared_shape = shape
        self.container = container

    def __repr__(self) -> str:
        return f"OnnxVariable({self._name!r})"

    @property
    def name(self) -> str:
        """Name of the tensor."""
        return self._name

    @property
    def is_param(self) -> bool:
        """Whether the tensor is a constant of the graph."""
        return self._value is not None

    @property
    def is_dummy(self) -> bool:
        """Whether it stands for an optional input that is left out."""
        return not self._name

    @property
    def value(self) -> np.ndarray | None:
        """The constant, read-only (``value.copy()`` can be written to); None for other tensors.

        Setting it replaces the constant.

        Raises:
          ModelError: (when set) the tensor is not a constant.
        """
        return self._value

    @value.setter
    def value(self, value: np.ndarray | Sequence[float] | float) -> None:
        if self._value is None:
            raise ModelError(
                f"tensor {self._name!r} has no value to set",
                why="only constants have one (is_param)",
                hint="graph.create_variable(is_param=True, value=...) makes a constant",
            )
        self._value = frozen(value)
        self._graph.changed(structure=False)

    @property
    def dtype(self) -> np.dtype | None:
        """NumPy dtype; None where neither the file nor shape inference tells."""
        if self._value is not None:
            return self._value.dtype
        if self.declared_dtype is not None:
            return self.declared_dtype
        found = self._graph.inferred.get(self._name)
        return None if found is None else found[0]

    @property
    def shape(self) -> Shape | None:
        """Lengths per axis; None where neither the file nor shape inference tells."""
        if self._value is not None:
            return self._value.shape
        found = self._graph.inferred.get(self._name)
        return self.declared_shape if found is None else found[1]

    @property
    def src_op(self) -> OnnxNode | None:
        """The node that writes it; None for inputs and constants."""
        return self._graph.wiring.writers.get(self)

    @property
    def dest_infos(self) -> list[tuple[OnnxNode, int]]:
        """The nodes that read it with the index of the input, in graph order."""
        return list(self._graph.wiring.readers.get(self, ()))

    @property
    def dest_ops(self) -> list[OnnxNode]:
        """The nodes that read it, each once, in graph order."""
        return list(dict.fromkeys(node for node, _ in self.dest_infos))

    @property
    def dest_op(self) -> OnnxNode | None:
        """The node that alone reads it; None if nothing does.

        Raises:
          ModelError: Several nodes read it.
        """
        found = self.dest_ops
        if len(found) > 1:
            raise ModelError(
                f"{len(found)} nodes read tensor {self._name!r}", hint="dest_ops lists them all"
            )
        return found[0] if found else None

    @property
    def is_used(self) -> bool:
        """Whether a node reads it or the graph gives it out."""
        wiring = self._graph.wiring
        outputs = self._graph.outputs
        return self in wiring.readers or self in outputs or self._name in wiring.captured

    def replace_all_uses_with(self, other: OnnxVariable) -> None:
        """Make everything that reads this tensor read another one, graph outputs included."""
        for node, index in self.dest_infos:
            node.replace_input(index, other)
        self._graph.replace_output(self, other)


def frozen(value: np.ndarray | Sequence[float] | float) -> np.ndarray:
    """Return a constant that nobody else can change; Python numbers become float32 or int64."""
    array = np.array(value)
    if array.dtype == np.float64 and not isinstance(value, np.ndarray | np.generic):
        array = array.astype(np.float32)
    array.flags.writeable = False
    return array
