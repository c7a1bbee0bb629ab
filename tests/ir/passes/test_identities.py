"""Nodes that do nothing are removed; nodes that nearly do nothing are not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from tests.graphs import Graph
from tests.ir.agreement import ops, optimized

Body = Callable[[Graph, str], str]

IDLE: dict[str, Body] = {
    "identity": lambda g, x: g.add("Identity", x),
    "dropout": lambda g, x: g.add("Dropout", x),
    "dropout, mask unused": lambda g, x: g.add("Dropout", x, n_outputs=2),
    "cast": lambda g, x: g.add("Cast", x, to=onnx.TensorProto.FLOAT),
    "castlike": lambda g, x: g.add("CastLike", x, g.constant(1.0)),
    "reshape": lambda g, x: g.add("Reshape", x, g.constant([2, -1, 4])),
    "transpose": lambda g, x: g.add("Transpose", x, perm=[0, 1, 2]),
    "pad": lambda g, x: g.add("Pad", x, g.constant([0] * 6)),
    "slice": lambda g, x: g.add("Slice", x, g.constant([0]), g.constant([99]), g.constant([1])),
    "concat": lambda g, x: g.add("Concat", x, axis=1),
    "expand": lambda g, x: g.add("Expand", x, g.constant([1, 3, 1])),
    "tile": lambda g, x: g.add("Tile", x, g.constant([1, 1, 1])),
    "times one": lambda g, x: g.add("Mul", g.constant(np.ones((3, 1), np.float32)), x),
    "by one": lambda g, x: g.add("Div", x, g.constant(1.0)),
    "plus zero": lambda g, x: g.add("Add", x, g.constant(0.0)),
    "minus zero": lambda g, x: g.add("Sub", x, g.constant(np.zeros(4, np.float32))),
    "sum of one": lambda g, x: g.add("Sum", x),
    "mean of one": lambda g, x: g.add("Mean", x),
    "squeeze of nothing": lambda g, x: g.add("Squeeze", x),
}

BUSY: dict[str, Body] = {
    "reversed": lambda g, x: g.add(
        "Slice", x, g.constant([-1]), g.constant([-99]), g.constant([1]), g.constant([-1])
    ),
    "shifted": lambda g, x: g.add("Pad", x, g.constant([0, 1, 0, 0, -1, 0])),
    "transposed": lambda g, x: g.add("Transpose", x, perm=[0, 2, 1]),
    "one less": lambda g, x: g.add("Sub", g.constant(0.0), x),
    "inverse": lambda g, x: g.add("Div", g.constant(1.0), x),
    "widened": lambda g, x: g.add("Mul", x, g.constant(np.ones((1, 1, 1, 1), np.float32))),
    "partly one": lambda g, x: g.add("Mul", x, g.constant(np.array([1, 1, 1, 2], np.float32))),
    "repeated": lambda g, x: g.add("Tile", x, g.constant([1, 2, 1])),
}


def between_two(body: Body) -> onnx.ModelProto:
    g = Graph()
    g.input("x", (2, 3, 4))
    g.output(g.add("Exp", body(g, g.add("Neg", "x"))))
    return g.proto()


@pytest.mark.parametrize("text", IDLE)
def test_an_idle_node_is_removed(text: str) -> None:
    assert ops(optimized(between_two(IDLE[text]))) == ["Neg", "Exp"]


@pytest.mark.parametrize("text", BUSY)
def test_a_busy_node_stays(text: str) -> None:
    assert len(ops(optimized(between_two(BUSY[text])))) == 3


@pytest.mark.parametrize("text", IDLE)
def test_an_idle_node_at_the_end_leaves_its_name_to_the_output(text: str) -> None:
    g = Graph()
    g.input("x", (2, 3, 4))
    last = IDLE[text](g, g.add("Neg", "x"))
    g.output(last)
    model = optimized(g.proto())
    assert ops(model) == ["Neg"]
    assert model.output_names == (last,)


def test_an_idle_node_between_input_and_output_stays() -> None:
    g = Graph()
    g.input("x", (2,))
    g.output(g.add("Identity", "x"))
    assert ops(optimized(g.proto())) == ["Identity"]


def test_a_dropout_whose_mask_is_read_stays() -> None:
    g = Graph()
    g.input("x", (2,))
    g.output(g.add("Relu", g.add("Dropout", "x", n_outputs=2, name="d")))
    g.output("d:1", dtype=onnx.TensorProto.BOOL)
    assert "Dropout" in ops(optimized(g.proto()))
