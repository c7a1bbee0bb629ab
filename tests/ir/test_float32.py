from __future__ import annotations

import logging

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jptq.ir import from_bytes, inputs_before, optimize, to_proto
from jptq.ir.float32 import has_others, in_float32, note, types_before
from jptq.ir.model import Model
from tests.graphs import Graph
from tests.oracles import relative_error, run_onnx, run_reference

SHAPE = (1, 3, 6, 6)
ROUNDING = {TensorProto.FLOAT16: 2**-10, TensorProto.DOUBLE: 2**-23, TensorProto.BFLOAT16: 2**-7}
"""Relative step of what a type or float32, whichever is coarser, rounds to."""


def network(opset: int = 17) -> Graph:
    g = Graph(opset=opset, seed=5)
    x = g.add("Relu", g.conv(g.input("x", SHAPE), 3, 4, name="stem"), name="relu")
    g.output(g.conv(x, 4, 2, 1, name="head"))
    return g


def of_type(proto: onnx.ModelProto, code: int) -> onnx.ModelProto:
    """Return a float32 network in another type, inputs and outputs too."""
    for array in proto.graph.initializer:
        if array.data_type == TensorProto.FLOAT:
            dtype = helper.tensor_dtype_to_np_dtype(code)
            values = numpy_helper.to_array(array).astype(dtype)
            array.CopyFrom(numpy_helper.from_array(values, array.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = code
    return proto


def loaded(proto: onnx.ModelProto) -> Model:
    return from_bytes(proto.SerializeToString())


def sample(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)


@pytest.mark.parametrize("code", list(ROUNDING))
def test_a_network_of_another_type_computes_the_same_in_float32(code: int) -> None:
    proto = of_type(network(opset=22).proto(), code)
    dtype = helper.tensor_dtype_to_np_dtype(code)
    converted = optimize(loaded(proto), input_shapes={}, float32=True)
    assert {t.dtype for t in (*converted.inputs, *converted.outputs)} == {np.dtype(np.float32)}
    assert {a.dtype for a in converted.initializers.values()} == {np.dtype(np.float32)}
    x = sample().astype(dtype)
    # Not every kernel of onnxruntime takes these types: ONNX's own evaluator does.
    (theirs,) = run_reference(proto, {"x": x}).values()
    (ours,) = run_onnx(to_proto(converted), {"x": x.astype(np.float32)}).values()
    # Each sum of 27 terms and each result is rounded once, at most by half a step.
    assert relative_error(ours, theirs.astype(np.float32)) < 4 * ROUNDING[code]


def test_constants_of_16_bits_keep_their_values() -> None:
    proto = of_type(network().proto(), TensorProto.FLOAT16)
    converted = in_float32(loaded(proto))
    for array in proto.graph.initializer:
        stored = numpy_helper.to_array(array)
        np.testing.assert_array_equal(converted.initializers[array.name], stored.astype(np.float32))


def island() -> onnx.ModelProto:
    """Return a float32 network with a convolution of float16 between casts."""
    g = network()
    inner = g.add("Cast", g.outputs.pop().name, to=TensorProto.FLOAT16, name="down")
    weight = g.constant(g.rng.standard_normal((2, 2, 1, 1)).astype(np.float16))
    inner = g.add("Conv", inner, weight, name="inner")
    g.output(g.add("Cast", inner, to=TensorProto.FLOAT, name="up"))
    return g.proto()


def test_an_island_of_float16_becomes_part_of_the_network(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        converted = optimize(loaded(island()), input_shapes={}, float32=True)
    assert [node.op for node in converted.nodes] == ["Conv", "Relu", "Conv", "Conv"]
    assert "float16 of the network is computed and written as float32" in caplog.text
    assert types_before(converted) == ("float16",)
    assert inputs_before(converted) == {}
    assert "float16" in note(converted)
    x = {"x": sample()}
    (ours,), (theirs,) = (run_onnx(m, x).values() for m in (to_proto(converted), island()))
    assert relative_error(ours, theirs) < 4 * ROUNDING[TensorProto.FLOAT16]


def test_a_branch_of_float16_is_converted_too() -> None:
    g = Graph()
    x = g.input("x", (2, 3), TensorProto.FLOAT16)
    half = numpy_helper.from_array(np.full(3, 0.1, np.float16), "tenth")
    branches = {
        name: helper.make_graph(
            [helper.make_node(op, [x, "tenth"], [f"{name}_out"], name=f"{name}_{op}")],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT16, [2, 3])],
            [half],
        )
        for name, op in (("then_branch", "Add"), ("else_branch", "Mul"))
    }
    flag = g.input("flag", (), TensorProto.BOOL)
    g.output(g.add("If", flag, name="choice", **branches), dtype=TensorProto.FLOAT16)
    proto = g.proto()
    converted = in_float32(loaded(proto))
    assert not has_others(converted)
    feeds = {"x": np.arange(6, dtype=np.float16).reshape(2, 3), "flag": np.asarray(True)}
    (theirs,) = run_onnx(proto, feeds).values()
    (ours,) = run_onnx(to_proto(converted), {**feeds, "x": feeds["x"].astype(np.float32)}).values()
    assert relative_error(ours, theirs.astype(np.float32)) < ROUNDING[TensorProto.FLOAT16]


def test_shape_arithmetic_in_float64_is_folded_as_it_is_and_not_worth_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    g = Graph()
    x = g.input("x", (1, 3, 6, 6))
    exact = g.add("Cast", g.add("Shape", x), to=TensorProto.DOUBLE)
    # 3 * 0.1 is above 0.3 in float64 alone: floor(10 * 0.3) tells the types apart.
    scaled = g.add("Mul", exact, g.constant(np.array([1, 1, 0.7, 1.1], np.float64)))
    target = g.add("Cast", g.add("Floor", scaled), to=TensorProto.INT64)
    g.output(g.add("Expand", g.add("ReduceMean", x, axes=[2, 3]), target))
    with caplog.at_level(logging.WARNING):
        converted = optimize(loaded(g.proto()), input_shapes={}, float32=True)
    assert not caplog.records
    assert types_before(converted) == ()
    assert converted.outputs[0].shape == (1, 3, 4, 6)


def test_float64_beyond_float32_becomes_its_largest_number() -> None:
    g = Graph()
    mask = g.constant(np.array([-1e300, 0.0, -np.inf]))
    g.output(
        g.add("Add", g.input("x", (3,), TensorProto.DOUBLE), mask, name="mask"),
        dtype=TensorProto.DOUBLE,
    )
    (array,) = in_float32(loaded(g.proto())).initializers.values()
    largest = np.finfo(np.float32).max
    np.testing.assert_array_equal(array, np.array([-largest, 0, -np.inf], np.float32))


def test_a_float32_network_is_returned_as_it_is() -> None:
    model = loaded(network().proto())
    assert in_float32(model) is model
    assert note(model) == ""


def test_metadata_of_other_programs_is_not_believed() -> None:
    model = in_float32(loaded(of_type(network().proto(), TensorProto.FLOAT16)))
    assert inputs_before(model) == {"x": np.dtype(np.float16)}
    for text in ("[", "[1]", '{"x": 3, "y": "float16"}', '"float16"'):
        spoilt = dict.fromkeys(model.metadata, text)
        other = type(model)(**{**vars_of(model), "metadata": spoilt})
        assert inputs_before(other) == {}
        assert set(types_before(other)) <= {"float16"}


def vars_of(model: Model) -> dict[str, object]:
    return {name: getattr(model, name) for name in model.__dataclass_fields__}


def test_bfloat16_has_a_name() -> None:
    model = in_float32(loaded(of_type(network(opset=22).proto(), TensorProto.BFLOAT16)))
    assert types_before(model) == ("bfloat16",)
    assert inputs_before(model) == {"x": np.dtype(ml_dtypes.bfloat16)}
