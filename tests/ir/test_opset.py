from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper

from jptq.errors import ModelError
from jptq.ir import Model, raise_opset, to_bytes
from tests.graphs import Graph
from tests.ir.agreement import loaded, ops
from tests.oracles import run_onnx, run_reference

X = np.random.default_rng(5).standard_normal((2, 4, 6, 6)).astype(np.float32)
LATEST = 21
Build = Callable[[Graph, str], str]


def _batch_norm(g: Graph, x: str) -> str:
    parameters = [g.constant(np.linspace(0.5, 2.0, 4).astype(np.float32)) for _ in range(4)]
    return g.add("BatchNormalization", x, *parameters)


CASES: dict[str, tuple[int, Build]] = {
    "Clip by attributes": (9, lambda g, x: g.add("Clip", x, min=-0.5, max=0.25)),
    "Clip from below": (9, lambda g, x: g.add("Clip", x, min=0.1)),
    "Clip without limits": (9, lambda g, x: g.add("Clip", x)),
    "Pad": (9, lambda g, x: g.add("Pad", x, pads=[0, 0, 1, 2, 0, 0, 0, 1], value=0.5)),
    "Pad by reflection": (9, lambda g, x: g.add("Pad", x, pads=[0, 0, 1, 2] * 2, mode="reflect")),
    "Slice": (9, lambda g, x: g.add("Slice", x, starts=[1, 0], ends=[3, -1], axes=[1, 3])),
    "Slice without axes": (9, lambda g, x: g.add("Slice", x, starts=[0, 1], ends=[1, 9])),
    "TopK": (9, lambda g, x: g.add("TopK", x, k=3, n_outputs=2)),
    "Dropout": (10, lambda g, x: g.add("Dropout", x, ratio=0.3)),
    "BatchNormalization": (7, _batch_norm),
    "Softmax over several axes": (11, lambda g, x: g.add("Softmax", x, axis=2)),
    "Softmax by default": (11, lambda g, x: g.add("Softmax", x)),
    "Softmax over the last axis": (11, lambda g, x: g.add("Softmax", x, axis=-1)),
    "LogSoftmax": (9, lambda g, x: g.add("LogSoftmax", x, axis=1)),
    "Squeeze": (11, lambda g, x: g.add("Squeeze", g.add("Unsqueeze", x, axes=[1]), axes=[1])),
    "ReduceSum": (11, lambda g, x: g.add("ReduceSum", x, axes=[1, -1], keepdims=0)),
    "ReduceMean": (13, lambda g, x: g.add("ReduceMean", x, axes=[2])),
    "ReduceMax over everything": (13, lambda g, x: g.add("ReduceMax", x)),
    "Split by sizes": (11, lambda g, x: g.add("Split", x, axis=1, split=[1, 3], n_outputs=2)),
    "Split in halves": (13, lambda g, x: g.add("Split", x, axis=1, n_outputs=2)),
    "Upsample by an attribute": (
        8,
        lambda g, x: g.add("Upsample", x, scales=[1.0, 1.0, 2.0, 3.0], mode="nearest"),
    ),
    "Upsample": (
        9,
        lambda g, x: g.add("Upsample", x, g.constant(np.float32([1, 1, 2, 2])), mode="linear"),
    ),
    "Resize down": (10, lambda g, x: g.add("Resize", x, g.constant(np.float32([1, 1, 0.5, 0.6])))),
    "Resize up": (
        10,
        lambda g, x: g.add("Resize", x, g.constant(np.float32([1, 1, 1.5, 2])), mode="linear"),
    ),
    "GridSample": (
        16,
        lambda g, x: g.add(
            "GridSample",
            x,
            g.constant(np.random.default_rng(1).uniform(-1, 1, (2, 3, 3, 2)).astype(np.float32)),
            mode="bicubic",
        ),
    ),
    "RoiAlign": (
        10,
        lambda g, x: g.add(
            "RoiAlign",
            x,
            g.constant(np.float32([[0, 0, 4, 4], [1, 2, 5, 5]])),
            g.constant([0, 1]),
            output_height=2,
            output_width=2,
        ),
    ),
    "Scatter": (
        9,
        lambda g, x: g.add("Scatter", x, g.constant(np.zeros((1, 1, 1, 3), np.int64)), g.constant(
            np.ones((1, 1, 1, 3), np.float32)), axis=1),
    ),
    "Hardmax": (11, lambda g, x: g.add("Hardmax", x, axis=3)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_operator_computes_the_same_in_the_later_opset(case: str) -> None:
    opset, build = CASES[case]
    g = Graph(opset)
    g.input("x", X.shape)
    g.output(build(g, "x"))
    proto = g.proto()
    raised = raise_opset(loaded(proto), LATEST)
    assert raised.opset("") == LATEST
    expected, found = run_onnx(proto, {"x": X}), run_onnx(to_bytes(raised), {"x": X})
    assert list(found) == list(expected)
    for name, array in found.items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("case", CASES)
def test_an_opset_in_between_is_met_or_refused(case: str) -> None:
    opset, build = CASES[case]
    g = Graph(opset)
    g.input("x", X.shape)
    g.output(build(g, "x"))
    expected = run_onnx(g.proto(), {"x": X})
    for version in range(opset + 1, LATEST):
        try:
            raised = raise_opset(loaded(g.proto()), version)
        except ModelError:
            continue
        for name, array in run_onnx(to_bytes(raised), {"x": X}).items():
            np.testing.assert_allclose(array, expected[name], rtol=1e-6, atol=1e-7)


def test_the_axis_of_a_transform_becomes_an_input() -> None:
    g = Graph(17)
    g.input("x", (2, 6, 1))
    g.output(g.add("DFT", "x", axis=1))
    (node,) = (raised := raise_opset(loaded(g.proto()), 20)).nodes
    assert node.inputs[:2] == ("x", "")
    assert raised.initializers[node.inputs[2]] == 1
    assert "axis" not in node.attributes


def test_the_branches_of_an_if_are_raised_too() -> None:
    proto = _if_model()
    raised = raise_opset(loaded(proto), LATEST)
    (node,) = (node for node in raised.nodes if node.op == "If")
    assert all(body.opset("") == LATEST for body in node.subgraphs)
    for flag in (True, False):
        feeds = {"x": X, "flag": np.array(flag)}
        expected, found = run_onnx(proto, feeds), run_onnx(to_bytes(raised), feeds)
        np.testing.assert_array_equal(found["y"], expected["y"])


def _if_model() -> onnx.ModelProto:
    def branch(name: str, **limits: float) -> onnx.GraphProto:
        node = helper.make_node("Clip", ["x"], [name], name=name, **limits)
        value = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, X.shape)
        return helper.make_graph([node], name, [], [value])

    node = helper.make_node(
        "If",
        ["flag"],
        ["y"],
        then_branch=branch("low", max=0.0),
        else_branch=branch("high", min=0.0),
    )
    graph = helper.make_graph(
        [node],
        "network",
        [
            helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, X.shape),
            helper.make_tensor_value_info("flag", onnx.TensorProto.BOOL, ()),
        ],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, X.shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 10)], ir_version=5)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_an_attribute_becomes_a_constant_of_the_type_of_the_tensor(dtype: type) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    g = Graph(9)
    g.input("x", X.shape)
    y = g.add("Relu", g.add("Cast", "x", to=kind))
    y = g.add("Transpose", g.add("Clip", y, min=0.1), perm=[0, 1, 3, 2])
    g.output(g.add("Pad", y, pads=[0, 0, 1, 0, 0, 0, 0, 2], value=0.5), dtype=kind)
    proto = g.proto()
    (expected,) = run_reference(proto, {"x": X}).values()
    (found,) = run_onnx(to_bytes(raise_opset(loaded(proto), LATEST)), {"x": X}).values()
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)


def test_a_limit_of_unknown_type_is_refused() -> None:
    g = Graph(9)
    g.input("x", X.shape)
    g.output(g.add("Clip", g.add("Swirl", "x", name="unheard"), min=0.1, name="limits"))
    with pytest.raises(ModelError) as caught:
        raise_opset(loaded(g.proto()), LATEST)
    assert "'limits' (Clip): its input has no known type" in caught.value.where


def test_nodes_keep_their_names_and_added_parts_carry_them() -> None:
    raised = raise_opset(_softmax_of_clip(), LATEST)
    assert [node.name for node in raised.nodes] == [
        "limits",
        "end/shape",
        "end/flat",
        "end",
        "end/Reshape",
    ]
    assert ops(raised) == ["Clip", "Shape", "Flatten", "Softmax", "Reshape"]
    assert set(raised.initializers) == {"limits/min", "limits/max"}


def _softmax_of_clip() -> Model:
    g = Graph(9)
    g.input("x", X.shape)
    g.output(g.add("Softmax", g.add("Clip", "x", min=0.0, max=1.0, name="limits"), name="end"))
    return loaded(g.proto())


def test_a_model_of_a_later_opset_stays_as_it_is() -> None:
    g = Graph(22)
    g.input("x", X.shape)
    g.output(g.add("Relu", "x"))
    model = loaded(g.proto())
    assert raise_opset(model, LATEST) is model


def test_vendor_operators_are_left_alone() -> None:
    g = Graph(11)
    g.input("x", X.shape)
    g.output(g.add("HzSwish", "x", domain="horizon"))
    raised = raise_opset(loaded(g.proto()), LATEST)
    assert ops(raised) == ["HzSwish"]
    assert raised.opsets["horizon"] == 1


def test_everything_that_cannot_be_raised_is_named_at_once() -> None:
    g = Graph(18)
    x = g.input("x", X.shape)
    scale = g.constant(np.ones(2, np.float32))
    y = g.add("GroupNormalization", x, scale, scale, num_groups=2, name="grouped")
    y = g.add("Relu", y, name="crooked", slope=0.5)
    g.output(g.add("Swirl", y, name="unheard"))
    with pytest.raises(ModelError, match="3 nodes") as caught:
        raise_opset(loaded(g.proto()), LATEST)
    for words in ("'grouped'", "per channel", "'crooked'", "no attribute slope", "'unheard'"):
        assert words in caught.value.where


def test_an_opset_before_numpy_broadcasting_is_refused() -> None:
    g = Graph(6)
    g.input("x", X.shape)
    g.output(g.add("Relu", "x"))
    with pytest.raises(ModelError, match="opset 6"):
        raise_opset(loaded(g.proto()), LATEST)
