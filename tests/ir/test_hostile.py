"""Networks that say impossible things are refused in the user's terms, never by a fault of ours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper

from jptq.engine.lower import lower
from jptq.errors import ModelError
from jptq.ir import from_bytes, optimize
from tests.graphs import Graph

Make = Callable[[Graph, str], str]


def conv(**attributes: object) -> Make:
    return lambda g, x: g.add("Conv", x, g.random(4, 4, 3, 3), name="bad", **attributes)


def plain(op: str, *constants: object, **attributes: object) -> Make:
    """Return a node of an operator on ``x`` and constants."""
    return lambda g, x: g.add(
        op, x, *(g.constant(np.asarray(c)) for c in constants), name="bad", **attributes
    )


NETWORKS: dict[str, tuple[Make, str]] = {
    "no group": (conv(group=0), "'group' is 0"),
    "a negative group": (conv(group=-1), "'group' is -1"),
    "no stride": (conv(strides=[0, 0]), "'strides' is"),
    "a negative stride": (conv(strides=[-1, -1]), "'strides' is"),
    "no dilation": (conv(dilations=[0, 0]), "'dilations' is"),
    "a number as axis": (plain("Softmax", axis=1.5), "'axis' is no INT"),
    "a word as axis": (plain("Softmax", axis="one"), "'axis' is no INT"),
    "no step": (plain("Slice", [0], [4], [1], [0]), "step cannot be zero"),
    "a negative repeat": (plain("Tile", [-1, 1, 1, 1]), "Tile of"),
    "too few repeats": (plain("Tile", [2]), "Tile of"),
    "fewer than none": (plain("TopK", [-1]), "nonnegative"),
    "no number as scale": (
        lambda g, x: g.add("Resize", x, "", g.constant(np.full(4, np.nan, np.float32)), name="bad"),
        "NaN",
    ),
    "an unknown type": (plain("Cast", to=9999), "9999 is not supported"),
    "a kernel without axes": (
        lambda g, x: g.add("Conv", x, g.constant(np.float32(1)), name="bad"),
        "Conv does not fit",
    ),
    "an equation of nothing": (plain("Einsum", equation=""), "Einsum does not fit"),
    "no block": (plain("DepthToSpace", blocksize=0), "'blocksize' is 0"),
}


def lowered(g: Graph) -> object:
    model = optimize(from_bytes(g.proto().SerializeToString()), input_shapes={})
    return lower(model, {"x": np.ones((1, 4, 8, 8), np.float32)})


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_impossible_is_said_with_its_node(name: str) -> None:
    make, said = NETWORKS[name]
    g = Graph()
    x = g.input("x", (1, 4, 8, 8))
    g.output(make(g, x), dtype=onnx.TensorProto.UNDEFINED)
    with pytest.raises(ModelError) as caught:
        lowered(g)
    assert said in str(caught.value)
    assert "node 'bad'" in str(caught.value)


def branching(body: onnx.GraphProto) -> bytes:
    g = Graph()
    x = g.input("x", (1, 4))
    flag = g.add("Cast", g.add("ReduceMax", x, keepdims=0), to=onnx.TensorProto.BOOL)
    g.output(g.add("If", flag, then_branch=body, else_branch=body, name="choice"))
    return g.proto().SerializeToString()


def body_of(*nodes: onnx.NodeProto, result: str) -> onnx.GraphProto:
    return helper.make_graph(
        list(nodes), "body", [], [helper.make_tensor_value_info(result, 1, None)]
    )


def test_a_body_that_hangs_on_itself_is_refused() -> None:
    relu = helper.make_node("Relu", ["x"], ["x"], name="inside")
    with pytest.raises(ModelError, match=r"cycle\n.*'inside'"):
        from_bytes(branching(body_of(relu, result="x")))


def test_a_body_whose_nodes_are_not_in_order_is_refused() -> None:
    nodes = [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Tanh", ["x"], ["a"])]
    with pytest.raises(ModelError, match=r"not in order\n.*'choice'"):
        from_bytes(branching(body_of(*nodes, result="b")))


def test_a_body_of_another_number_of_inputs_is_refused() -> None:
    body = helper.make_graph([], "body", [], [])
    g = Graph()
    trips = g.constant([3])
    g.output(g.add("Loop", trips, "", g.input("x", (1, 4)), body=body, name="loop"))
    with pytest.raises(ModelError, match=r"body of 3 inputs and at least 2 outputs\n.*'loop'"):
        from_bytes(g.proto().SerializeToString())
