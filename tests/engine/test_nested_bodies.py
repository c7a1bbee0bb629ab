"""Bodies inside bodies are lowered once each, however deep they lie."""

from __future__ import annotations

import importlib

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from jptq.engine.trace import trace
from jptq.ir import from_bytes
from tests.graphs import Graph

lowering = importlib.import_module("jptq.engine.lower")  # the package exports its function


def nested(depth: int) -> onnx.ModelProto:
    """Return a network of `depth` data-dependent Ifs, one in the then-branch of the other."""

    def branch(level: int) -> onnx.GraphProto:
        last = f"o{level}"
        if level == 0:
            nodes = [helper.make_node("Add", ["x", "x"], [last])]
        else:
            other = helper.make_graph(
                [helper.make_node("Relu", ["x"], [f"e{level}"])],
                f"else{level}",
                [],
                [helper.make_tensor_value_info(f"e{level}", 1, None)],
            )
            nodes = [
                helper.make_node("ReduceMax", ["x"], [f"m{level}"], keepdims=0),
                helper.make_node("Greater", [f"m{level}", "zero"], [f"c{level}"]),
                helper.make_node(
                    "If", [f"c{level}"], [last], then_branch=branch(level - 1), else_branch=other
                ),
            ]
        result = helper.make_tensor_value_info(last, 1, None)
        return helper.make_graph(nodes, f"then{level}", [], [result])

    g = Graph()
    g.input("x", (1, 4))
    g.constant(0.0, "zero")
    whole = branch(depth)
    g.nodes = list(whole.node)
    g.outputs = list(whole.output)
    return g.proto()


def test_the_work_grows_with_the_depth_not_with_its_power(monkeypatch: pytest.MonkeyPatch) -> None:
    lowered = []
    plain = lowering._Lowering.program

    def counted(self: object) -> object:
        lowered.append(self)
        return plain(self)

    monkeypatch.setattr(lowering._Lowering, "program", counted)
    counts = []
    for depth in (4, 8):
        proto = nested(depth)
        x = np.full((1, 4), 1.5, np.float32)
        lowered.clear()
        y = trace(from_bytes(proto.SerializeToString()), {"x": x})({"x": x})
        counts.append(len(lowered))
        want = ort.InferenceSession(proto.SerializeToString()).run(None, {"x": x})[0]
        np.testing.assert_allclose(np.asarray(y[f"o{depth}"]), want)
    assert counts[1] <= 2 * counts[0] + 2
