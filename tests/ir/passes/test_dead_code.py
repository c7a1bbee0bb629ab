"""What no output needs is removed, whoever reads it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.graphs import Graph
from tests.ir.agreement import ops, optimized


def _body(name: str, tensor: str) -> onnx.GraphProto:
    out = helper.make_tensor_value_info(f"{name}_out", onnx.TensorProto.FLOAT, None)
    node = helper.make_node("Neg", [tensor], [f"{name}_out"], name=name)
    return helper.make_graph([node], name, [], [out])


@pytest.mark.parametrize("behind", [False, True])
def test_what_only_a_dead_branch_reads_is_dead(behind: bool) -> None:
    g = Graph()
    x = g.input("x", (1, 2, 4, 4))
    g.input("c", (), onnx.TensorProto.BOOL)
    unused = g.conv(x, 2, 2)
    choice = g.add("If", "c", then_branch=_body("a", unused), else_branch=_body("b", unused))
    if behind:
        g.add("Relu", choice)
    g.output(g.add("Sigmoid", x))
    feeds = {"x": np.ones((1, 2, 4, 4), np.float32), "c": np.asarray(True)}
    assert ops(optimized(g.proto(), feeds=feeds)) == ["Sigmoid"]
