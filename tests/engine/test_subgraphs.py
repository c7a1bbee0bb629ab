from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jptq.engine import subgraphs, trace
from jptq.errors import ShapeError, StaticInputError
from jptq.ir.model import Model
from tests.engine.programs import check, lowered, normal
from tests.graphs import Graph
from tests.oracles import relative_error, run_onnx
from tests.quant.networks import float_model


def _info(name: str, kind: int = TensorProto.FLOAT, shape: list[int] | None = None) -> object:
    return helper.make_tensor_value_info(name, kind, shape)


def _branch(*nodes: onnx.NodeProto, output: str, **constants: np.ndarray) -> onnx.GraphProto:
    arrays = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    return helper.make_graph(list(nodes), "branch", [], [_info(output)], arrays)


def _if(flag: str | np.ndarray) -> Graph:
    """Two branches that read ``x`` and a weight from outside, and constants of their own."""
    g = Graph()
    x = g.conv(g.input("x", (1, 3, 4, 4)), 3, 4)
    g.random(4, 1, 1, name="outside")
    condition = g.input(flag, (), TensorProto.BOOL) if isinstance(flag, str) else g.constant(flag)
    then = _branch(
        helper.make_node("Add", [x, "outside"], ["t0"], name="add"),
        helper.make_node("Relu", ["t0"], ["t1"], name="relu"),
        output="t1",
    )
    other = _branch(
        helper.make_node("Mul", [x, "own"], ["e0"], name="mul"),
        output="e0",
        own=np.float32([2.0]),
    )
    chosen = g.add("If", condition, then_branch=then, else_branch=other)
    g.output(g.conv(chosen, 4, 2))
    return g


@pytest.mark.parametrize("flag", [True, False])
def test_branches_with_captures_agree_for_a_constant_condition(flag: bool) -> None:
    check(_if(np.array(flag)), {"x": normal(1, 3, 4, 4)})


@pytest.mark.parametrize("flag", [True, False])
def test_branches_with_captures_agree_for_a_fed_condition(flag: bool) -> None:
    check(_if("flag"), {"x": normal(1, 3, 4, 4), "flag": np.array(flag)})


def test_the_condition_of_a_traced_graph_is_data() -> None:
    g = _if("flag")
    feeds = {"x": normal(1, 3, 4, 4), "flag": np.array(True)}
    forward = trace(float_model(g), feeds)
    for flag in (True, False):
        feeds["flag"] = np.array(flag)
        (found,) = forward(feeds).values()
        (want,) = run_onnx(g.proto(), feeds).values()
        assert relative_error(np.asarray(found), want) < 2e-6


def test_a_branch_in_a_branch_reads_from_both_graphs_around_it() -> None:
    g = Graph()
    x = g.add("Relu", g.input("x", (3,)))
    inner_then = _branch(helper.make_node("Add", [x, "mid"], ["i0"], name="ia"), output="i0")
    inner_else = _branch(helper.make_node("Sub", [x, "mid"], ["i1"], name="is"), output="i1")
    flag = numpy_helper.from_array(np.array(False), "inner_flag")
    nodes = [
        helper.make_node("Neg", [x], ["mid"], name="neg"),
        helper.make_node(
            "If", ["inner_flag"], ["o"], name="if", then_branch=inner_then, else_branch=inner_else
        ),
    ]
    outer = helper.make_graph(nodes, "outer", [], [_info("o")], [flag])
    other = _branch(helper.make_node("Identity", [x], ["p"], name="id"), output="p")
    g.output(g.add("If", g.constant(np.array(True)), then_branch=outer, else_branch=other))
    check(g, {"x": normal(3)})


@pytest.mark.parametrize("flag", [True, False])
def test_a_branch_that_is_fed_may_read_shapes_from_outside(flag: bool) -> None:
    g = Graph()
    x, condition = g.input("x", (2, 3)), g.input("flag", (), TensorProto.BOOL)
    g.constant([0, 1, 0, 0], "pads")
    g.constant([2, 4], "target")
    then = _branch(helper.make_node("Pad", [x, "pads"], ["t0"], name="pad"), output="t0")
    other = _branch(
        helper.make_node("Shape", [x], ["lengths"], name="shape"),
        helper.make_node("Equal", ["lengths", "expected"], ["fits"], name="fits"),
        helper.make_node("Gather", ["fits", "zero"], ["rows"], name="rows"),
        helper.make_node(
            "If",
            ["rows"],
            ["e0"],
            name="inner",
            then_branch=_branch(
                helper.make_node("Expand", ["one", "target"], ["i0"], name="ones"), output="i0"
            ),
            else_branch=_branch(
                helper.make_node("Identity", ["one"], ["i1"], name="one"), output="i1"
            ),
        ),
        output="e0",
        expected=np.array([2, 3]),
        zero=np.array(0),
        one=np.float32([1.0]),
    )
    g.output(g.add("If", condition, then_branch=then, else_branch=other))
    check(g, {"x": normal(2, 3), "flag": np.array(flag)})


def test_a_branch_that_cannot_run_is_refused_with_a_way_out() -> None:
    g = Graph()
    x, condition = g.input("x", (2, 3)), g.input("flag", (), TensorProto.BOOL)
    then = _branch(helper.make_node("MatMul", [x, x], ["t0"], name="no"), output="t0")
    other = _branch(helper.make_node("Relu", [x], ["e0"], name="relu"), output="e0")
    g.output(g.add("If", condition, then_branch=then, else_branch=other))
    with pytest.raises(ShapeError, match="MatMul") as caught:
        lowered(g, {"x": normal(2, 3), "flag": np.array(False)})
    assert "'no'" in caught.value.where
    assert "condition of If constant" in caught.value.hint


def _loop(trips: int | str) -> Graph:
    """Sum ``x`` scaled by a captured weight, collecting each partial sum."""
    g = Graph()
    x, factor = g.input("x", (3,)), g.random(3, name="factor")
    count = g.constant(np.array(trips, np.int64)) if isinstance(trips, int) else trips
    if isinstance(trips, str):
        g.input(trips, (), TensorProto.INT64)
    body = helper.make_graph(
        [
            helper.make_node("Mul", [x, factor], ["scaled"], name="scale"),
            helper.make_node("Add", ["carried", "scaled"], ["next"], name="sum"),
            helper.make_node("Identity", ["going"], ["again"], name="again"),
            helper.make_node("Identity", ["next"], ["seen"], name="seen"),
        ],
        "body",
        [
            _info("trip", TensorProto.INT64, []),
            _info("going", TensorProto.BOOL, []),
            _info("carried", shape=[3]),
        ],
        [_info("again", TensorProto.BOOL, []), _info("next", shape=[3]), _info("seen", shape=[3])],
    )
    start = g.constant(np.zeros(3, np.float32))
    last = g.add("Loop", count, g.constant(np.array(True)), start, body=body, n_outputs=2)
    g.output(last, last.replace(":0", ":1"))
    return g


@pytest.mark.parametrize("trips", [1, 3, 20])
def test_loops_with_captures_agree(trips: int) -> None:
    check(_loop(trips), {"x": normal(3)}, tolerance=1e-5)


def test_a_fed_trip_count_is_bound_from_the_example() -> None:
    program = check(_loop("trips"), {"x": normal(3), "trips": np.array(4)})
    assert program.static_inputs == ("trips",)


def test_a_computed_trip_count_is_refused_with_the_node() -> None:
    g = Graph()
    x = g.input("x", (3,))
    body = helper.make_graph(
        [
            helper.make_node("ReduceSum", ["carried"], ["total"], name="total", keepdims=0),
            helper.make_node("Greater", ["total", "limit"], ["again"], name="again"),
            helper.make_node("Neg", ["carried"], ["next"], name="neg"),
        ],
        "body",
        [
            _info("trip", TensorProto.INT64, []),
            _info("going", TensorProto.BOOL, []),
            _info("carried", shape=[3]),
        ],
        [_info("again", TensorProto.BOOL, []), _info("next", shape=[3])],
        [numpy_helper.from_array(np.float32(0), "limit")],
    )
    count, start = g.constant(np.array(5, np.int64)), g.constant(np.array(True))
    g.output(g.add("Loop", count, start, x, body=body, name="/decoder/Loop"))
    with pytest.raises(StaticInputError, match="Loop") as caught:
        lowered(g, {"x": normal(3)})
    assert "/decoder/Loop" in caught.value.where


def test_captures_are_what_a_body_reads_and_does_not_make() -> None:
    model = float_model(_if(np.array(True)))
    (node,) = [n for n in model.nodes if n.op == "If"]
    then, other = node.attributes["then_branch"], node.attributes["else_branch"]
    assert isinstance(then, Model)
    assert isinstance(other, Model)
    conv = model.nodes[0].outputs[0]
    assert set(then.captured) == {conv, "outside"}
    assert set(other.captured) == {conv}


def test_every_node_is_walked_with_the_graph_that_knows_its_opset() -> None:
    model = float_model(_if(np.array(True)))
    found = [(owner, node.op) for owner, node in subgraphs.walk(model)]
    assert sorted(op for _, op in found) == ["Add", "Conv", "Conv", "If", "Mul", "Relu"]
    assert all(owner is model for owner, _ in found)


def test_an_input_that_a_branch_needs_while_tracing_is_bound() -> None:
    flags = [
        helper.make_graph(
            [helper.make_node("Expand", ["x", "lengths"], [f"y{k}"], name=f"expand{k}")],
            "branch",
            [],
            [helper.make_tensor_value_info(f"y{k}", onnx.TensorProto.FLOAT, None)],
        )
        for k in range(2)
    ]
    g = Graph()
    g.input("x", (1, 3))
    lengths = g.input("lengths", (2,), onnx.TensorProto.INT64)
    flag = g.add("Equal", g.add("ReduceMax", lengths, keepdims=0), g.constant(np.int64(4)))
    y = g.add("If", flag, then_branch=flags[0], else_branch=flags[1])
    g.output(g.add("Reshape", y, g.add("Shape", y)))
    feeds = {"x": normal(1, 3), "lengths": np.array([4, 3])}
    forward = trace(float_model(g), feeds)
    assert forward.static_inputs == ("lengths",)
    (found,) = forward(feeds).values()
    np.testing.assert_array_equal(np.asarray(found), np.broadcast_to(feeds["x"], (4, 3)))
