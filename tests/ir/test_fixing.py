"""Inputs that become constants: what folds, and which values fit."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from jptq.errors import ModelError, ShapeError, UnknownNameError
from jptq.ir import Model, expand_units, fix_values, optimize, to_bytes
from tests.graphs import Graph
from tests.ir.agreement import loaded, ops
from tests.oracles import run_onnx

INT64 = onnx.TensorProto.INT64
BOOL = onnx.TensorProto.BOOL
X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(1, 12)


def by_rate() -> onnx.ModelProto:
    """Return a network that computes something else, in other shapes, per sampling rate."""

    def branch(name: str, op: str, weight: np.ndarray) -> onnx.GraphProto:
        y = helper.make_tensor_value_info(f"{name}_y", onnx.TensorProto.FLOAT, None)
        nodes = [
            helper.make_node("MatMul", ["x", f"{name}_w"], [f"{name}_m"]),
            helper.make_node(op, [f"{name}_m"], [f"{name}_y"]),
        ]
        constants = [onnx.numpy_helper.from_array(weight, f"{name}_w")]
        return helper.make_graph(nodes, name, [], [y], constants)

    g = Graph()
    g.input("x", (1, 12))
    g.input("rate", (), INT64)
    fast = g.add("Equal", "rate", g.constant(np.array(16000, np.int64)))
    rng = np.random.default_rng(0)
    wide, narrow = (rng.standard_normal((12, n)).astype(np.float32) for n in (7, 3))
    g.output(
        g.add(
            "If",
            fast,
            then_branch=branch("wide", "Relu", wide),
            else_branch=branch("narrow", "Tanh", narrow),
        )
    )
    return g.proto()


def takes(shape: tuple[int | str, ...] | None, dtype: int = onnx.TensorProto.FLOAT) -> Model:
    """Return a network with an input ``k`` to fix."""
    g = Graph()
    g.input("x", (1, 3))
    g.input("k", shape, dtype)
    g.output(g.add("Mul", "x", g.add("Cast", "k", to=onnx.TensorProto.FLOAT)))
    return loaded(g.proto())


@pytest.mark.parametrize(("rate", "op", "width"), [(16000, "Relu", 7), (8000, "Tanh", 3)])
def test_the_branch_that_a_fixed_input_chooses_is_what_stays(
    rate: int, op: str, width: int
) -> None:
    proto = by_rate()
    model = optimize(fix_values(loaded(proto), {"rate": rate}), input_shapes={})
    assert ops(model) == ["MatMul", op]
    assert model.input_names == ("x",)
    (expected,) = run_onnx(proto, {"x": X, "rate": np.array(rate)}).values()
    (actual,) = run_onnx(to_bytes(expand_units(model)), {"x": X}).values()
    assert actual.shape == (1, width)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_a_single_number_fills_an_input() -> None:
    model = fix_values(takes((2, 3)), {"k": 1.5})
    np.testing.assert_array_equal(model.initializers["k"], np.full((2, 3), 1.5, np.float32))


def test_a_row_of_numbers_takes_the_inputs_shape() -> None:
    model = fix_values(takes((2, 3), INT64), {"k": [1, 2, 3, 4, 5, 6]})
    found = model.initializers["k"]
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize("shape", [("rows", 3), None])
def test_an_array_says_how_long_open_axes_are(shape: tuple[int | str, ...] | None) -> None:
    model = fix_values(takes(shape), {"k": np.ones((4, 3))})
    assert model.initializers["k"].shape == (4, 3)


def test_zero_and_one_are_booleans_where_the_input_is_one() -> None:
    found = fix_values(takes((), BOOL), {"k": 1}).initializers["k"]
    assert found.dtype == np.bool_
    assert found


def test_an_input_that_is_an_output_too_can_be_fixed() -> None:
    g = Graph()
    g.input("x", (1, 3))
    g.input("k", (3,))
    g.output(g.add("Relu", "x"), "k")
    model = optimize(fix_values(loaded(g.proto()), {"k": [1, 2, 3]}), input_shapes={})
    found = run_onnx(to_bytes(model), {"x": X[:, :3]})
    np.testing.assert_array_equal(found["k"], [1, 2, 3])


@pytest.mark.parametrize(
    ("shape", "dtype", "value", "error", "said"),
    [
        ((2,), INT64, [1, 2, 3], ShapeError, r"shape \[3\]"),
        (("n",), INT64, 1, ShapeError, "not known"),
        (("n", 3), INT64, np.ones((4, 2)), ShapeError, "not known"),
        ((), INT64, 0.5, ModelError, "cannot hold"),
        ((), BOOL, 2, ModelError, "cannot hold"),
        ((), onnx.TensorProto.FLOAT, 1e60, ModelError, "cannot hold"),
        ((), INT64, np.array("many"), ModelError, "no number"),
        ((), onnx.TensorProto.STRING, 1, ModelError, "no numeric tensor"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(
    shape: tuple[int | str, ...],
    dtype: int,
    value: object,
    error: type[Exception],
    said: str,
) -> None:
    g = Graph()
    g.input("x", (1, 3))
    g.input("k", shape, dtype)
    g.output(g.add("Relu", "x"))
    with pytest.raises(error, match=said):
        fix_values(loaded(g.proto()), {"k": value})  # type: ignore[dict-item]


def test_an_unknown_input_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown input 'rat'") as caught:
        fix_values(loaded(by_rate()), {"rat": 1})
    assert "'rate'" in caught.value.hint
