"""A graph that scripts edit in place, under the vendor's names; `freeze` gives it to the engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jptq.engine import lower
from jptq.errors import JptqError, ModelError
from jptq.hmct.calibration import CalibrationNode
from jptq.hmct.node import OnnxNode
from jptq.hmct.variable import OnnxVariable, Shape, frozen
from jptq.hmct.wiring import NodesByType, Wiring
from jptq.ir import CALIBRATION, HORIZON, Model, Node, Tensor, with_nodes

_HORIZON_PREFIX = "Hz"


class OnnxGraph:
    """Nodes and tensors of a model.

    Args:
      model: What it holds at first.
    """

    def __init__(self, model: Model) -> None:
        self._base = model
        self._variables: dict[str, OnnxVariable] = {}
        self._dummy = OnnxVariable(self, "")
        self._nodes: dict[str, OnnxNode] = {}
        self._cache: dict[str, Any] = {}
        self._inputs = [self._described(tensor) for tensor in model.inputs]
        for name, array in model.initializers.items():
            self._variables[name] = OnnxVariable(self, name, value=array)
        for node in model.nodes:
            for name in node.outputs:
                self._variable(name)
        self._outputs = [self._described(tensor) for tensor in model.outputs]
        for node in model.nodes:
            self._add(node)

    # --- reading ----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Name of the graph."""
        return self._base.name

    @property
    def nodes(self) -> tuple[OnnxNode, ...]:
        """All nodes in topological order."""
        return self.wiring.nodes

    @property
    def node_names(self) -> tuple[str, ...]:
        """Names of the nodes, in their order."""
        return tuple(node.name for node in self.nodes)

    @property
    def node_mappings(self) -> Mapping[str, OnnxNode]:
        """Nodes by name."""
        return {node.name: node for node in self.nodes}

    @property
    def type2nodes(self) -> NodesByType:
        """Nodes by operator type; one that does not occur has none."""
        found: dict[str, dict[OnnxNode, None]] = {}
        for node in self.nodes:
            found.setdefault(node.op_type, {})[node] = None
        return NodesByType({op_type: nodes.keys() for op_type, nodes in found.items()})

    @property
    def inputs(self) -> tuple[OnnxVariable, ...]:
        """What a caller feeds."""
        return tuple(self._inputs)

    @property
    def outputs(self) -> tuple[OnnxVariable, ...]:
        """What a caller gets."""
        return tuple(self._outputs)

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs."""
        return [variable.name for variable in self._inputs]

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs."""
        return [variable.name for variable in self._outputs]

    @property
    def input_mappings(self) -> Mapping[str, OnnxVariable]:
        """Inputs by name."""
        return {variable.name: variable for variable in self._inputs}

    @property
    def input_shapes(self) -> list[Shape | None]:
        """Shapes of the inputs."""
        return [variable.shape for variable in self._inputs]

    @property
    def input_dtypes(self) -> list[np.dtype | None]:
        """Dtypes of the inputs."""
        return [variable.dtype for variable in self._inputs]

    @property
    def output_shapes(self) -> list[Shape | None]:
        """Shapes of the outputs; None where unknown."""
        return [variable.shape for variable in self._outputs]

    @property
    def output_dtypes(self) -> list[np.dtype | None]:
        """Dtypes of the outputs; None where unknown."""
        return [variable.dtype for variable in self._outputs]

    @property
    def variables(self) -> tuple[OnnxVariable, ...]:
        """All tensors."""
        return tuple(self._variables.values())

    @property
    def variable_mappings(self) -> Mapping[str, OnnxVariable]:
        """All tensors by name."""
        return dict(self._variables)

    # --- changing ---------------------------------------------------------------------------

    def create_variable(
        self,
        name: str | None = None,
        is_param: bool = False,
        value: np.ndarray | Sequence[float] | float | None = None,
    ) -> OnnxVariable:
        """Return a new tensor.

        Args:
          name: Gets a suffix if another tensor has it.
          is_param: Whether it is a constant.
          value: Of a constant.

        Raises:
          ModelError: A constant without a value, or a value without a constant.
        """
        if is_param != (value is not None):
            raise ModelError(
                "a constant needs a value" if is_param else "only a constant has a value",
                hint="create_variable(is_param=True, value=array)",
            )
        unique = self._free(name or "variable", self._variables)
        constant = None if value is None else frozen(value)
        made = self._variables[unique] = OnnxVariable(self, unique, value=constant)
        self.changed()
        return made

    def create_node(
        self,
        op_type: str,
        domain: str | None = None,
        name: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        inputs: Sequence[OnnxVariable] = (),
        outputs: Sequence[OnnxVariable] | None = None,
        num_outputs: int = 1,
    ) -> OnnxNode:
        """Return a new node; `OnnxNode.insert_before` gives it a place among its equals.

        Args:
          op_type: Operator type.
          domain: Operator set; ``horizon`` for types that begin with ``Hz``, else ONNX's own.
          name: Gets a suffix if another node has it; made from the type if None.
          attributes: Copied.
          inputs: Tensors of this graph.
          outputs: Tensors of this graph that nothing writes; new ones if None.
          num_outputs: How many new ones.
        """
        wanted = name or f"{op_type}_{len(self._nodes)}"
        unique = self._free(wanted, self._nodes)
        written = outputs
        if written is None:
            suffixes = [""] if num_outputs == 1 else [f"_{i}" for i in range(num_outputs)]
            written = [self.create_variable(f"{unique}_output{suffix}") for suffix in suffixes]
        if domain is None:
            domain = HORIZON if op_type.startswith(_HORIZON_PREFIX) else ""
        node = _class_of(op_type, domain)(
            self,
            name=unique,
            op_type=op_type,
            domain=domain,
            attributes=attributes or {},
            inputs=[self.owned(variable) for variable in inputs],
            outputs=[self.owned(variable) for variable in written],
        )
        self._nodes[unique] = node
        self.changed()
        return node

    def append_output(self, variable: OnnxVariable | str) -> OnnxVariable:
        """Give a tensor out.

        Raises:
          ModelError: There is no such tensor, or it is given out already.
        """
        found = self.owned(variable) if not isinstance(variable, str) else self._named(variable)
        if found in self._outputs:
            raise ModelError(f"tensor {found.name!r} is a graph output already")
        self._outputs.append(found)
        self.changed()
        return found

    def extend_outputs(self, variables: Iterable[OnnxVariable | str]) -> None:
        """Give tensors out, see `append_output`."""
        for variable in variables:
            self.append_output(variable)

    def replace_output(self, variable: OnnxVariable, other: OnnxVariable) -> None:
        """Give another tensor out in the place of one; nothing if that is no output."""
        self.owned(other)
        self._outputs = [other if output is variable else output for output in self._outputs]
        self.changed()

    def move(
        self, node: OnnxNode, *, before: OnnxNode | None = None, behind: OnnxNode | None = None
    ) -> None:
        """Give a node another place; `OnnxNode.insert_before` and `insert_after` call it."""
        anchor = before or behind
        others = [other for other in self._nodes.values() if other is not node]
        if anchor is None or anchor not in others:
            raise ModelError(f"there is no other node {anchor and anchor.name!r} to stand beside")
        at = others.index(anchor) + (behind is not None)
        self._nodes = {n.name: n for n in [*others[:at], node, *others[at:]]}
        self.changed()

    def remove(self, node: OnnxNode) -> None:
        """Drop a node and the tensors that it writes; `OnnxNode.destroy` calls it."""
        del self._nodes[node.name]
        for variable in node.outputs:
            self._variables.pop(variable.name, None)
        self.changed()

    def changed(self, *, structure: bool = True) -> None:
        """Forget what was derived from the state before; whoever changes the graph calls it."""
        if structure:
            self._cache.pop("wiring", None)
        self._cache.pop("inferred", None)

    def owned(self, variable: OnnxVariable) -> OnnxVariable:
        """Return a tensor of this graph.

        Raises:
          ModelError: It belongs to another graph, or has been removed.
        """
        if variable is self._dummy or self._variables.get(variable.name) is variable:
            return variable
        raise ModelError(
            f"tensor {variable.name!r} is not of this graph",
            hint="graph.create_variable makes one, graph.variable_mappings holds all",
        )

    # --- deriving ---------------------------------------------------------------------------

    @property
    def wiring(self) -> Wiring:
        """Who writes and reads what."""
        if "wiring" not in self._cache:
            self._cache["wiring"] = self._wire()
        found: Wiring = self._cache["wiring"]
        return found

    @property
    def inferred(self) -> Mapping[str, tuple[np.dtype, tuple[int, ...]]]:
        """Dtype and shape by tensor; empty where inputs have open shapes (see `infer`)."""
        if "inferred" not in self._cache:
            self._cache["inferred"] = {}  # a failure is not tried again
            try:
                self.infer()
            except JptqError:
                return {}
        found: Mapping[str, tuple[np.dtype, tuple[int, ...]]] = self._cache["inferred"]
        return found

    def infer(self) -> None:
        """Find dtypes and shapes of all tensors.

        Raises:
          ModelError: A shape of an input is open, or an operator does not fit what it reads.
        """
        model = self.freeze()
        example = {}
        for tensor in model.inputs:
            lengths = [n for n in tensor.shape or () if isinstance(n, int)]
            if tensor.dtype is None or tensor.shape is None or len(lengths) < len(tensor.shape):
                raise ModelError(f"the shape of input {tensor.name!r} is open")
            example[tensor.name] = np.broadcast_to(np.zeros((), tensor.dtype), lengths)
        program = lower(model, example)
        self._cache["inferred"] = {
            name: (dtype, program.shapes[name]) for name, dtype in program.dtypes.items()
        }

    def freeze(self) -> Model:
        """Return the graph as immutable data.

        Raises:
          ModelError: A tensor is read but not written, or depends on itself.
        """
        domains = {node.domain for node in self._nodes.values()} - {"", *self._base.opsets}
        changed = dataclasses.replace(
            self._base,
            inputs=tuple(_tensor(variable) for variable in self._inputs),
            outputs=tuple(_tensor(variable) for variable in self._outputs),
            opsets={**self._base.opsets, **dict.fromkeys(sorted(domains), 1)},
        )
        constants = {
            name: variable.value
            for name, variable in self._variables.items()
            if variable.value is not None
        }
        nodes = [node.freeze() for node in self._nodes.values()]
        return with_nodes(changed, nodes, initializers=constants)

    def _wire(self) -> Wiring:
        writers = {v: node for node in self._nodes.values() for v in node.outputs if v.name}
        readers: dict[OnnxVariable, list[tuple[OnnxNode, int]]] = {}
        captured: set[str] = set()
        frozen_model = self.freeze()
        nodes = tuple(self._nodes[node.name] for node in frozen_model.nodes)
        for node, plain in zip(nodes, frozen_model.nodes, strict=True):
            captured.update(set(plain.reads).difference(plain.inputs))
            for index, variable in enumerate(node.inputs):
                if not variable.is_dummy:
                    readers.setdefault(variable, []).append((node, index))
        return Wiring(nodes=nodes, writers=writers, readers=readers, captured=captured)

    def _add(self, node: Node) -> None:
        self._nodes[node.name] = _class_of(node.op, node.domain)(
            self,
            name=node.name,
            op_type=node.op,
            domain=node.domain,
            attributes=node.attributes,
            inputs=[self._variable(name) for name in node.inputs],
            outputs=[self._variable(name) for name in node.outputs],
        )

    def _variable(self, name: str) -> OnnxVariable:
        if not name:
            return self._dummy
        return self._variables.setdefault(name, OnnxVariable(self, name))

    def _named(self, name: str) -> OnnxVariable:
        if name not in self._variables:
            raise ModelError(f"there is no tensor {name!r}")
        return self._variables[name]

    def _described(self, tensor: Tensor) -> OnnxVariable:
        variable = self._variable(tensor.name)
        variable.declared_dtype, variable.declared_shape = tensor.dtype, tensor.shape
        variable.container = tensor.container
        return variable

    def _free(self, wanted: str, taken: Mapping[str, object]) -> str:
        name, suffix = wanted, 0
        while name in taken:
            suffix += 1
            name = f"{wanted}_{suffix}"
        return name


def _class_of(op_type: str, domain: str) -> type[OnnxNode]:
    return CalibrationNode if op_type == CALIBRATION and domain == HORIZON else OnnxNode


def _tensor(variable: OnnxVariable) -> Tensor:
    return Tensor(
        name=variable.name,
        dtype=variable.value.dtype if variable.value is not None else variable.declared_dtype,
        shape=variable.value.shape if variable.value is not None else variable.declared_shape,
        container=variable.container,
    )
