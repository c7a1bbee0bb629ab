"""Small ONNX networks, built in code."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

IR_VERSION = 8
Value = str


class Graph:
    """Collects nodes and constants; every method that adds a node returns its output tensor.

    Args:
      opset: Version of the ONNX operators.
      seed: Of the random weights.
    """

    def __init__(self, opset: int = 17, seed: int = 0) -> None:
        self.opset = opset
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []

    def input(
        self,
        name: str,
        shape: Sequence[int | str | None] | None,
        dtype: int = onnx.TensorProto.FLOAT,
    ) -> Value:
        """Declare an input."""
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def output(self, *values: Value, dtype: int = onnx.TensorProto.FLOAT) -> None:
        """Declare outputs of unknown shape."""
        self.outputs += [helper.make_tensor_value_info(value, dtype, None) for value in values]

    def constant(self, array: np.ndarray | Sequence[int] | float, name: str = "") -> Value:
        """Add an initializer; a float becomes a float32 scalar, a list int64."""
        if isinstance(array, float):
            array = np.float32(array)
        elif not isinstance(array, (np.ndarray, np.generic)):
            array = np.array(array, np.int64)
        name = name or f"constant_{len(self.constants)}"
        self.constants[name] = np.asarray(array)
        return name

    def random(self, *shape: int, scale: float = 1.0, name: str = "") -> Value:
        """Add a random float32 initializer."""
        array = (self.rng.standard_normal(shape) * scale).astype(np.float32)
        return self.constant(array, name)

    def add(
        self,
        op: str,
        *inputs: Value,
        name: str | None = None,
        n_outputs: int = 1,
        domain: str = "",
        **attributes: object,
    ) -> Value:
        """Add a node, called ``<Op>_<index>`` by default; its outputs are named after it."""
        name = f"{op}_{len(self.nodes)}" if name is None else name
        taken = {node.name for node in self.nodes}
        stem = name if name and name not in taken else f"{op}_{len(self.nodes)}_of_many"
        outputs = [f"{stem}:{index}" for index in range(n_outputs)]
        node = helper.make_node(op, list(inputs), outputs, name=name, domain=domain, **attributes)
        self.nodes.append(node)
        return outputs[0]

    def proto(self, metadata: Mapping[str, str] | None = None) -> onnx.ModelProto:
        """Return the model."""
        graph = helper.make_graph(
            self.nodes,
            "network",
            self.inputs,
            self.outputs,
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )
        imports = [helper.make_opsetid("", self.opset)]
        if any(node.domain == "horizon" for node in self.nodes):
            imports.append(helper.make_opsetid("horizon", 1))
        model = helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION)
        helper.set_model_props(model, dict(metadata or {}))
        return model

    # --- parts ------------------------------------------------------------------------------

    def conv(
        self,
        x: Value,
        c_in: int,
        c_out: int,
        kernel: int = 3,
        *,
        name: str | None = None,
        group: int = 1,
        bias: bool = True,
        spatial: int = 2,
    ) -> Value:
        """Add a convolution that keeps the spatial size."""
        fan_in = c_in // group * kernel**spatial
        weight = self.random(c_out, c_in // group, *(kernel,) * spatial, scale=fan_in**-0.5)
        parameters = [weight, *([self.random(c_out, scale=0.1)] if bias else [])]
        pads = [kernel // 2] * (2 * spatial)
        return self.add("Conv", x, *parameters, name=name, pads=pads, group=group)

    def batch_norm(self, x: Value, channels: int, *, name: str | None = None) -> Value:
        """Add a normalisation with random statistics."""
        shift, mean = self.random(channels), self.random(channels)
        scale = self.constant(self.rng.uniform(0.5, 2.0, channels).astype(np.float32))
        variance = self.constant(self.rng.uniform(0.1, 2.0, channels).astype(np.float32))
        return self.add("BatchNormalization", x, scale, shift, mean, variance, name=name)

    def squeeze_excite(self, x: Value, channels: int) -> Value:
        """Add a squeeze-and-excite block: pooled features gate the channels."""
        pooled = self.add("GlobalAveragePool", x)
        hidden = self.add("Relu", self.conv(pooled, channels, max(channels // 4, 1), 1))
        gate = self.add("HardSigmoid", self.conv(hidden, max(channels // 4, 1), channels, 1))
        return self.add("Mul", x, gate)

    def swish(self, x: Value, *, name: str | None = None) -> Value:
        """Add ``x * sigmoid(x)``."""
        return self.add("Mul", x, self.add("Sigmoid", x), name=name)

    def clip(self, x: Value, low: float, high: float) -> Value:
        """Add a Clip as the opset spells it."""
        if self.opset < 11:
            return self.add("Clip", x, min=low, max=high)
        return self.add("Clip", x, self.constant(low), self.constant(high))

    def hard_swish(self, x: Value, *, name: str | None = None) -> Value:
        """Add ``x * clip(x + 3, 0, 6) / 6`` as PaddlePaddle exports it."""
        clipped = self.clip(self.add("Add", x, self.constant(3.0)), 0.0, 6.0)
        return self.add("Div", self.add("Mul", x, clipped), self.constant(6.0), name=name)

    def gelu(self, x: Value, *, name: str | None = None) -> Value:
        """Add ``0.5 * x * (1 + erf(x / sqrt(2)))`` as PyTorch exports it."""
        erf = self.add("Erf", self.add("Div", x, self.constant(math.sqrt(2.0))))
        product = self.add("Mul", x, self.add("Add", erf, self.constant(1.0)))
        return self.add("Mul", product, self.constant(0.5), name=name)

    def gelu_tanh(self, x: Value, *, name: str | None = None) -> Value:
        """Add the approximation of gelu by tanh."""
        cube = self.add("Pow", x, self.constant(3.0))
        bent = self.add("Add", x, self.add("Mul", cube, self.constant(0.044715)))
        tanh = self.add("Tanh", self.add("Mul", bent, self.constant(math.sqrt(2 / math.pi))))
        half = self.add("Mul", x, self.constant(0.5))
        return self.add("Mul", half, self.add("Add", tanh, self.constant(1.0)), name=name)

    def mish(self, x: Value, *, name: str | None = None) -> Value:
        """Add ``x * tanh(softplus(x))``."""
        return self.add("Mul", x, self.add("Tanh", self.add("Softplus", x)), name=name)

    def layer_norm(self, x: Value, channels: int, *, name: str | None = None) -> Value:
        """Add a normalisation over the last axis in elementary operators; opset 17 at most."""
        centred = self.add("Sub", x, self.add("ReduceMean", x, axes=[-1]))
        square = self.add("Pow", centred, self.constant(2.0))
        variance = self.add("ReduceMean", square, axes=[-1])
        root = self.add("Sqrt", self.add("Add", variance, self.constant(1e-5)))
        scaled = self.add("Mul", self.add("Div", centred, root), self.random(channels))
        return self.add("Add", scaled, self.random(channels), name=name)


def conv_net(opset: int = 17, *, size: int = 8) -> onnx.ModelProto:
    """Return a network with a bit of everything that the passes look at; input ``x`` float32."""
    g = Graph(opset)
    x = g.input("x", ("batch", 3, size, size))
    y = g.add("Relu", g.batch_norm(g.conv(x, 3, 8, name="stem", bias=False), 8))
    skip = y
    y = g.hard_swish(g.batch_norm(g.conv(y, 8, 8, group=8, name="depthwise"), 8))
    y = g.swish(g.squeeze_excite(y, 8))
    y = g.add("Add", y, skip, name="/block/residual")
    pooled = g.add("GlobalAveragePool", y)
    batch = g.add("Gather", g.add("Shape", pooled), g.constant([0]), axis=0)
    flat = g.add("Reshape", pooled, g.add("Concat", batch, g.constant([-1]), axis=0))
    weight, bias = g.random(5, 8), g.random(5)
    g.output(g.add("Gemm", flat, weight, bias, transB=1, alpha=0.5, name="head"))
    return g.proto({"author": "jptq"})


def feeds_for(model: onnx.ModelProto, *, seed: int = 0, **lengths: int) -> dict[str, np.ndarray]:
    """Return random float32 feeds; named lengths default to 1."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for value in model.graph.input:
        shape = [
            lengths.get(dim.dim_param, 1) if dim.dim_param else dim.dim_value
            for dim in value.type.tensor_type.shape.dim
        ]
        feeds[value.name] = rng.standard_normal(shape).astype(np.float32)
    return feeds
