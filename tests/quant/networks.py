"""Small networks with quantizers placed in them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx

from jptq.ir import load
from jptq.ir.model import Model
from jptq.quant.placement import place
from jptq.targets import Target, load_target
from tests.graphs import Graph

TARGET: Target = load_target("nash-e")


def floats_of(proto: onnx.ModelProto) -> frozenset[str]:
    """Return the names of the float32 tensors by ONNX's own inference."""
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    values = (*inferred.input, *inferred.output, *inferred.value_info)
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    kinds.update({array.name: array.data_type for array in inferred.initializer})
    return frozenset(name for name, kind in kinds.items() if kind == onnx.TensorProto.FLOAT)


def float_model(graph: Graph) -> Model:
    """Return the network without quantizers."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(graph.proto(), path)
        return load(path)


def placed(graph: Graph, **options: bool) -> Model:
    """Return the network with quantizers."""
    return place(float_model(graph), TARGET, floats=floats_of(graph.proto()), **options)


def quantized(model: Model) -> set[str]:
    """Return the tensors that carry a quantizer, by the names of the float model."""
    return {node.name.removesuffix("_HzCalibration") for node in model.nodes if node.is_calibration}


def attention(width: int = 4, tokens: int = 6) -> Graph:
    """Return a residual block of self-attention on ``x`` of shape [1, tokens, width]."""
    g = Graph()
    x = g.input("x", (1, tokens, width))

    def project(name: str, source: str) -> str:
        return g.add(
            "Add", g.add("MatMul", source, g.random(width, width), name=name), g.random(width)
        )

    query, key, value = (project(name, x) for name in ("query", "key", "value"))
    scores = g.add("MatMul", query, g.add("Transpose", key, perm=[0, 2, 1]), name="scores")
    scaled = g.add("Mul", scores, g.constant(0.5), name="scaled")
    mixed = g.add("MatMul", g.add("Softmax", scaled, axis=-1), value, name="mixed")
    residual = g.add("Add", x, project("out", mixed), name="residual")
    g.output(g.add("Softmax", residual, axis=-1, name="end"))
    return g


def branches() -> Graph:
    """Return a network with a fused residual, pooling, Concat and Resize on ``x`` [1, 4, 8, 8]."""
    g = Graph()
    x = g.input("x", (1, 4, 8, 8))
    stem = g.add("Relu", g.conv(x, 4, 4, name="stem"), name="stem_relu")
    residual = g.add("Add", g.conv(stem, 4, 4, name="body"), stem, name="residual")
    pooled = g.add("MaxPool", residual, kernel_shape=[2, 2], strides=[2, 2], name="pool")
    scales = g.constant(np.array([1, 1, 2, 2], np.float32))
    large = g.add("Resize", pooled, "", scales, mode="linear", name="resize")
    joined = g.add("Concat", large, g.add("Sigmoid", residual, name="gate"), axis=1, name="concat")
    first = g.conv(joined, 8, 4, 1, name="head")
    g.output(first, g.add("Tanh", joined, name="squashed"))
    return g
