"""ONNX graphs under construction, with names as exporters give them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

IR_VERSION = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A graph and the roles of its constants.

    Attributes:
      proto: The model.
      trained: Names of the initializers that the optimizer changes.
      statistics: ``{initializer: graph output with its value in this batch}``, what is measured
        on data instead; empty for inference.
    """

    proto: onnx.ModelProto
    trained: tuple[str, ...]
    statistics: Mapping[str, str]


class Graph:
    """A graph under construction; every method returns the name of the tensor it makes.

    Attributes:
      rng: Source of the weights.
    """

    def __init__(self, name: str, seed: int, *, opset: int) -> None:
        self.rng = np.random.default_rng(seed)
        self._name, self._opset = name, opset
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, np.ndarray] = {}
        self._trained: list[str] = []
        self._statistics: dict[str, str] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: dict[str, Sequence[int | str]] = {}

    def input(self, name: str, dtype: int, shape: Sequence[int | str]) -> str:
        """Declare a graph input; ``dtype`` is a member of ``TensorProto.DataType``."""
        self._inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def node(
        self, op: str, name: str, inputs: Sequence[str], *, extra: int = 0, **attributes: Any
    ) -> str:
        """Append a node with one output, or ``1 + extra``; return the first."""
        outputs = [f"{name}_output_{i}" for i in range(1 + extra)]
        self._nodes.append(helper.make_node(op, inputs, outputs, name, **attributes))
        return outputs[0]

    def outputs_of_last(self) -> list[str]:
        """Return all outputs of the node that was appended last."""
        return list(self._nodes[-1].output)

    def constant(self, name: str, value: np.ndarray, *, trained: bool = False) -> str:
        """Add an initializer."""
        self._initializers[name] = value
        if trained:
            self._trained.append(name)
        return name

    def weight(
        self, name: str, shape: Sequence[int], *, fan_in: int | None = None, gain: float = 1.0
    ) -> str:
        """Add normally distributed weights, variance ``gain ** 2 / fan_in``.

        Args:
          name: Of the initializer.
          shape: Of the weights.
          fan_in: Values that one output adds up; the first length if absent.
          gain: 1 keeps the variance of a linear layer's inputs.
        """
        spread = gain / math.sqrt(fan_in or shape[0])
        value = spread * self.rng.standard_normal(tuple(shape))
        return self.constant(name, value.astype(np.float32), trained=True)

    def bias(self, name: str, length: int) -> str:
        """Add trained zeros."""
        return self.constant(name, np.zeros(length, np.float32), trained=True)

    def integers(self, name: str, *values: int) -> str:
        """Add ``int64`` constants, a vector."""
        return self.constant(name, np.array(values, np.int64))

    def scalar(self, name: str, value: float) -> str:
        """Add a ``float32`` constant without axes."""
        return self.constant(name, np.array(value, np.float32))

    def statistic(self, constant: str, tensor: str, shape: Sequence[int]) -> None:
        """Make a tensor an output of the graph: what a constant shall be, in this batch."""
        self._statistics[constant] = tensor
        self._outputs[tensor] = list(shape)

    def output(self, name: str, tensor: str, shape: Sequence[int | str]) -> None:
        """Give a tensor the name of a graph output, in the node that makes it."""
        for node in self._nodes:
            for field in (node.input, node.output):
                for i, old in enumerate(field):
                    if old == tensor:
                        field[i] = name
        self._outputs[name] = shape

    def finish(self) -> Network:
        """Return the checked network."""
        outputs = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in self._outputs.items()
        ]
        tensors = [numpy_helper.from_array(v, k) for k, v in self._initializers.items()]
        graph = helper.make_graph(self._nodes, self._name, self._inputs, outputs, tensors)
        proto = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", self._opset)],
            ir_version=IR_VERSION,
            producer_name="jptq tools/zoo",
        )
        onnx.checker.check_model(proto, full_check=True)
        return Network(proto=proto, trained=tuple(self._trained), statistics=dict(self._statistics))


def with_weights(proto: onnx.ModelProto, weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """Return a copy of a model in which the named initializers have new values."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for tensor in copy.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    return copy
