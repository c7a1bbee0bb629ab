"""What is computed ahead of time, what is not, and shapes as constants."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from jptq.engine import trace
from jptq.ir import Model, optimize
from tests.graphs import Graph
from tests.ir.agreement import loaded, ops, optimized
from tests.oracles import run_onnx


@pytest.mark.parametrize("opset", [9, 12, 13, 17])
def test_constant_nodes_and_what_they_feed_disappear(opset: int) -> None:
    g = Graph(opset)
    g.input("x", (2, 3))
    node = helper.make_node(
        "Constant", [], ["c"], value=onnx.numpy_helper.from_array(np.ones((2, 3), np.float32))
    )
    g.nodes.append(node)
    weight = g.add("Transpose", g.add("Exp", g.add("Neg", "c")), perm=[1, 0])
    g.output(g.add("MatMul", "x", weight))
    model = optimized(g.proto())
    assert ops(model) == ["MatMul"]
    assert len(model.initializers) == 1


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("value_float", 2.5),
        ("value_floats", [1.0, 2.0, 3.0]),
        ("value_int", 2),
        ("value_ints", [3]),
    ],
)
def test_every_spelling_of_a_constant_is_read(attribute: str, value: object) -> None:
    g = Graph()
    g.input("x", (2, 3))
    g.nodes.append(helper.make_node("Constant", [], ["c"], **{attribute: value}))
    constant = g.add("Cast", "c", to=onnx.TensorProto.FLOAT)
    g.output(g.add("Pow", g.add("Abs", "x"), constant))
    assert ops(optimized(g.proto())) == ["Abs", "Pow"]


@pytest.mark.parametrize("batch", [1, 4])
def test_shape_arithmetic_vanishes_once_the_input_is_fixed(batch: int) -> None:
    g = Graph()
    g.input("x", ("n", 4, 6))
    shape = g.add("Shape", "x")
    rows = g.add(
        "Mul",
        g.add("Gather", shape, g.constant([0])),
        g.add("Slice", shape, g.constant([1]), g.constant([2])),
    )
    flat = g.add("Reshape", "x", g.add("Concat", rows, g.constant([-1]), axis=0))
    half = g.add("Div", g.add("Size", flat), g.constant(np.array(2, np.int64)))
    index = g.add(
        "Cast",
        g.add(
            "Range",
            g.constant(np.array(0, np.int64)),
            g.constant(np.array(6, np.int64)),
            g.constant(np.array(1, np.int64)),
        ),
        to=1,
    )
    scaled = g.add("Mul", flat, g.add("Cast", half, to=1))
    g.output(g.add("Add", scaled, index))
    assert ops(optimized(g.proto(), n=batch)) == ["Reshape", "Mul", "Add"]


def test_part_of_a_shape_is_folded() -> None:
    g = Graph(15)
    g.input("x", (2, 3, 4))
    shape = g.add("Shape", "x", start=-2, end=3)
    g.output(g.add("Expand", g.add("ReduceMax", "x", axes=[0, 1, 2]), shape))
    model = optimized(g.proto())
    assert ops(model) == ["ReduceMax", "Expand"]
    assert model.initializers[model.nodes[1].inputs[1]].tolist() == [3, 4]


def test_a_large_expansion_of_a_small_constant_stays_a_node() -> None:
    g = Graph()
    g.input("x", (1024, 1025))
    g.output(g.add("Add", "x", g.add("Expand", g.random(1, 1), g.constant([1024, 1025]))))
    model = optimized(g.proto())
    assert ops(model) == ["Expand", "Add"]
    assert sum(array.nbytes for array in model.initializers.values()) < 100


def test_a_large_transposed_weight_is_folded() -> None:
    g = Graph()
    g.input("x", (1, 1025))
    g.output(g.add("MatMul", "x", g.add("Transpose", g.random(1030, 1025), perm=[1, 0])))
    assert ops(optimized(g.proto(), tolerance=1e-5)) == ["MatMul"]


def test_a_large_weight_that_is_stored_in_half_the_bytes_is_folded() -> None:
    g = Graph()
    g.input("x", (1, 1025))
    half = g.constant(np.ones((1025, 1030), np.float16))
    g.output(g.add("MatMul", "x", g.add("Cast", half, to=onnx.TensorProto.FLOAT)))
    assert ops(optimized(g.proto(), tolerance=1e-5)) == ["MatMul"]


def test_a_size_that_would_fill_the_memory_is_never_computed() -> None:
    g = Graph()
    g.input("x", (1,))
    giant = g.add("ConstantOfShape", g.constant([1 << 20, 1 << 20]))
    g.output(g.add("Add", "x", g.add("ReduceMax", giant, keepdims=0)))
    model = optimize(loaded(g.proto()), input_shapes={})
    assert "ConstantOfShape" in ops(model)


def test_random_numbers_and_quantizers_are_not_folded() -> None:
    g = Graph()
    g.input("x", (2, 3))
    noise = g.add("RandomNormalLike", g.random(2, 3))
    scale, zero = g.constant(0.1), g.constant(np.array(0, np.int8))
    quantized = g.add("QuantizeLinear", g.random(2, 3), scale, zero)
    weight = g.add("DequantizeLinear", quantized, scale, zero)
    g.output(g.add("Add", g.add("Add", "x", noise), weight))
    found = ops(optimize(loaded(g.proto()), input_shapes={}))
    assert {"RandomNormalLike", "QuantizeLinear", "DequantizeLinear"} <= set(found)


def test_a_constant_graph_output_keeps_its_name() -> None:
    g = Graph()
    g.input("x", (2, 3))
    g.output(g.add("Relu", "x"))
    g.output(g.add("Exp", g.random(2)))
    assert optimized(g.proto()).output_names == ("Relu_0:0", "Exp_1:0")


@pytest.mark.parametrize("taken", [True, False])
def test_a_decided_if_gives_way_to_its_branch(taken: bool) -> None:
    real = onnx.TensorProto.FLOAT
    info = helper.make_tensor_value_info
    then = helper.make_graph(
        [helper.make_node("Squeeze", ["y", "axes"], ["out"], name="then")],
        "then",
        [],
        [info("out", real, None)],
        [helper.make_tensor("axes", onnx.TensorProto.INT64, (1,), [1])],
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["y"], ["out"], name="else")],
        "else",
        [],
        [info("out", real, None)],
    )
    g = Graph()
    g.input("x", ("n", "k", 4))
    y = g.add("Relu", "x", name="first")
    g.nodes[-1].output[0] = y = "y"
    length = g.add("Gather", g.add("Shape", y), g.constant([1]))
    condition = g.add("Equal", length, g.constant([1]))
    result = g.add("If", condition, name="choice", then_branch=then, else_branch=other)
    negated = g.add("Neg", result)
    g.output(negated, result)
    model = optimized(g.proto(), k=1 if taken else 2)
    assert ops(model) == (["Relu", "Squeeze", "Neg"] if taken else ["Relu", "Neg"])
    assert model.output_names == (negated, "choice:0")


def _folded(op: str, arrays: list[np.ndarray], opset: int, attributes: dict[str, object]) -> Model:
    """Return ``x + op(constants)`` optimised, having seen that it computes the same."""
    g = Graph(opset)
    g.input("x", (1,))
    g.output(g.add("Add", "x", g.add(op, *map(g.constant, arrays), **attributes)))
    return optimized(g.proto(), tolerance=1e-5)


def _floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
def test_a_constant_softmax_is_that_of_its_opset(op: str, opset: int) -> None:
    model = _folded(op, [_floats(2, 3, 2)], opset, {"axis": 1})
    assert ops(model) == (["Add"] if opset >= 13 else [op, "Add"])


@pytest.mark.parametrize(
    ("op", "arrays", "opset", "attributes"),
    [
        (
            "RoiAlign",
            [
                _floats(1, 2, 6, 6),
                np.array([[0, 0, 3, 3.5], [1, 1, 4, 5]], np.float32),
                np.array([0, 0]),
            ],
            10,
            {"output_height": 2, "output_width": 3, "sampling_ratio": 2},
        ),
        ("BatchNormalization", [_floats(2, 3), *[abs(_floats(3))] * 4], 9, {}),
        (
            "LpPool",
            [_floats(1, 1, 5, 4)],
            18,
            {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
        ),
    ],
)
def test_what_the_evaluator_computes_otherwise_than_onnxruntime_stays_a_node(
    op: str, arrays: list[np.ndarray], opset: int, attributes: dict[str, object]
) -> None:
    model = _folded(op, arrays, opset, attributes)
    assert op in ops(model)


def test_weights_that_stay_computed_are_computed_by_the_engine() -> None:
    g = Graph(11)
    x = g.input("x", (1, 2, 6, 6))
    y = g.add("Conv", x, g.add("Softmax", g.random(4, 2, 3, 3), axis=1))
    g.output(g.add("Relu", g.batch_norm(y, 4)))
    feeds = {"x": _floats(1, 2, 6, 6)}
    model = optimize(loaded(g.proto()), input_shapes={})
    (expected,) = run_onnx(g.proto(), feeds).values()
    (actual,) = trace(model, feeds)(feeds).values()
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_a_reduction_over_no_axes_is_folded_as_onnxruntime_computes_it() -> None:
    empty = helper.make_attribute("axes", [], attr_type=onnx.AttributeProto.INTS)
    g = Graph(11)
    g.input("x", (1,))
    total = g.add("ReduceSum", g.random(2, 3))
    g.nodes[-1].attribute.append(empty)
    g.output(g.add("Add", "x", total))
    assert ops(optimized(g.proto())) == ["Add"]
