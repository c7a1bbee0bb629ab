from __future__ import annotations

import dataclasses
import itertools

import jax
import numpy as np
import onnx
import pytest

from jptq.engine import lower
from jptq.errors import ModelError, ShapeError, StaticInputError, UnsupportedOpError
from tests.engine.programs import check, lowered, moved, normal, ops
from tests.graphs import Graph, conv_net
from tests.oracles import relative_error, run_onnx
from tests.quant.networks import attention, branches, float_model

INT64 = onnx.TensorProto.INT64


def test_a_chain_of_convolutions_agrees_and_is_transposed_twice() -> None:
    g = Graph()
    x = g.input("x", (1, 3, 8, 8))
    for c_in, c_out in ((3, 6), (6, 6), (6, 4)):
        x = g.add("Relu", g.conv(x, c_in, c_out))
    g.output(x)
    program = check(g, {"x": normal(1, 3, 8, 8)})
    assert moved(program) == 2  # in and out


def test_depthwise_and_grouped_convolutions_agree() -> None:
    g = Graph()
    x = g.conv(g.input("x", (2, 4, 7, 5)), 4, 8, 1)
    x = g.clip(g.conv(x, 8, 8, 3, group=8), 0.0, 6.0)
    g.output(g.conv(x, 8, 6, 3, group=2, bias=False))
    check(g, {"x": normal(2, 4, 7, 5)})


def test_a_constant_is_convolved_by_a_kernel_that_is_fed() -> None:
    g, feeds = Graph(), {}
    for op, group in itertools.product(("Conv", "ConvTranspose"), (1, 4)):
        name = f"{op} {group}"
        feeds[name] = normal(4, 4 // group, 2, 2)
        kernel = g.input(name, feeds[name].shape)
        g.output(g.add("Relu", g.add(op, g.random(2, 4, 3, 5), kernel, group=group)))
    check(g, feeds)


def test_one_and_three_dimensional_convolutions_agree() -> None:
    g = Graph()
    g.output(g.add("Relu", g.conv(g.input("x", (1, 3, 9)), 3, 4, spatial=1)))
    g.output(g.add("Relu", g.conv(g.input("v", (1, 2, 4, 5, 3)), 2, 3, spatial=3)))
    check(g, {"x": normal(1, 3, 9), "v": normal(1, 2, 4, 5, 3)})


def test_a_squeeze_and_excite_block_agrees() -> None:
    g = Graph()
    x = g.conv(g.input("x", (1, 4, 6, 6)), 4, 8)
    pooled = g.add("ReduceMean", x, axes=[2, 3], keepdims=1)
    gate = g.add("Sigmoid", g.conv(g.add("Relu", g.conv(pooled, 8, 2, 1)), 2, 8, 1))
    g.output(g.add("Add", g.add("Mul", x, gate), x))
    check(g, {"x": normal(1, 4, 6, 6)})


@pytest.mark.slow
def test_the_network_with_a_bit_of_everything_agrees() -> None:
    proto = conv_net()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    feeds = {"x": normal(1, 3, 8, 8)}
    g = Graph()
    g.proto = lambda metadata=None: proto  # type: ignore[method-assign]
    check(g, feeds)


@pytest.mark.parametrize("make", [attention, branches])
def test_small_networks_agree(make: object) -> None:
    g = make()  # type: ignore[operator]
    shape = [d.dim_value for d in g.inputs[0].type.tensor_type.shape.dim]
    check(g, {"x": normal(*shape)})


def test_concat_and_split_agree_along_every_axis() -> None:
    g = Graph()
    x = g.conv(g.input("x", (1, 4, 6, 6)), 4, 6)
    bent, constant = g.add("Relu", x), g.constant(normal(1, 6, 6, 6))
    axes = (1, -3, 2, 3)
    for axis in axes:
        joined = g.add("Concat", x, bent, constant, axis=axis)
        first = g.add("Split", joined, g.constant([4, 14]), axis=axis, n_outputs=2)
        second = first.replace(":0", ":1")
        g.output(g.add("Sigmoid", first), g.add("Tanh", second))
    program = check(g, {"x": normal(1, 4, 6, 6)})
    assert moved(program) == 1 + 2 * len(axes)  # in, and all outputs: nothing in between


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_softmax_means_what_its_opset_says(opset: int) -> None:
    g = Graph(opset)
    x = g.conv(g.input("x", (1, 2, 4, 3)), 2, 5)
    g.output(g.add("Softmax", x, axis=1), g.add("Softmax", x), g.add("LogSoftmax", x, axis=2))
    check(g, {"x": normal(1, 2, 4, 3)})


def test_reductions_agree_over_any_axes() -> None:
    g = Graph(17)
    x = g.conv(g.input("x", (2, 3, 4, 5)), 3, 6)
    every: tuple[list[int] | None, ...] = ([1], [2, 3], [-1], [0, 2], [1, 2, 3], None)
    for axes, keepdims in itertools.product(every, (0, 1)):
        chosen = {} if axes is None else {"axes": axes}
        g.output(g.add("ReduceMax", x, keepdims=keepdims, **chosen))
        g.output(g.add("Tanh", g.add("ReduceMean", x, keepdims=keepdims, **chosen)))
    check(g, {"x": normal(2, 3, 4, 5)}, tolerance=1e-5)


def test_argmax_agrees_along_any_axis() -> None:
    g = Graph()
    x = g.conv(g.input("x", (2, 3, 4, 5)), 3, 6)
    for axis, keepdims in itertools.product((0, 1, 2, -1), (0, 1)):
        g.output(g.add("ArgMax", x, axis=axis, keepdims=keepdims), dtype=INT64)
    check(g, {"x": normal(2, 3, 4, 5)})


def test_slices_without_axes_start_at_the_first_axis_of_onnx() -> None:
    g = Graph()
    x = g.conv(g.input("x", (2, 3, 6, 6)), 3, 4)
    g.output(g.add("Slice", x, g.constant([0, 1]), g.constant([1, 3])))
    g.output(g.add("Slice", x, *(g.constant([v]) for v in (-1, -9, 2, -2))))
    check(g, {"x": normal(2, 3, 6, 6)})


def test_squeeze_and_unsqueeze_between_convolutions_agree() -> None:
    g = Graph()
    x = g.conv(g.input("x", (1, 3, 1, 8)), 3, 4, 1)
    flat = g.add("Squeeze", x, g.constant([2]))
    line = g.add("Relu", g.conv(flat, 4, 5, spatial=1))
    g.output(g.conv(g.add("Unsqueeze", line, g.constant([2])), 5, 2, 1), g.add("Squeeze", x))
    check(g, {"x": normal(1, 3, 1, 8)})


def test_transpositions_to_channels_last_and_back_vanish() -> None:
    g = Graph()
    x = g.add("Transpose", g.input("x", (1, 6, 6, 3)), perm=[0, 3, 1, 2])
    y = g.add("Relu", g.conv(x, 3, 5))
    g.output(g.add("Transpose", y, perm=[0, 2, 3, 1]))
    assert moved(check(g, {"x": normal(1, 6, 6, 3)})) == 0


def test_a_channels_last_normalisation_inside_moves_nothing() -> None:
    g = Graph()
    x = g.conv(g.input("x", (1, 3, 6, 6)), 3, 8)
    last = g.add("Transpose", x, perm=[0, 2, 3, 1])
    normed = g.layer_norm(last, 8)
    y = g.conv(g.add("Transpose", normed, perm=[0, 3, 1, 2]), 8, 4)
    g.output(g.add("Add", y, g.conv(x, 8, 4)))
    assert moved(check(g, {"x": normal(1, 3, 6, 6)}, tolerance=1e-5)) == 2


def test_other_transpositions_agree() -> None:
    g = Graph()
    x = g.conv(g.input("x", (2, 3, 4, 5)), 3, 6)
    for perm in ([0, 1, 3, 2], [3, 2, 1, 0], [1, 0, 2, 3], None):
        y = g.add("Transpose", x, **({} if perm is None else {"perm": perm}))
        g.output(g.add("Sigmoid", y))
    g.output(g.add("Relu", x))
    check(g, {"x": normal(2, 3, 4, 5)})


def test_constants_of_any_rank_broadcast_against_channels_last() -> None:
    g = Graph()
    x = g.conv(g.input("x", (2, 3, 4, 5)), 3, 6)
    for shape in ((5,), (6, 1, 1), (1, 6, 1, 1), (4, 5), (1, 1, 1, 1), (1,), ()):
        g.output(g.add("Add", x, g.constant(normal(*shape))))
        g.output(g.add("Mul", g.constant(normal(*shape)), x))
    check(g, {"x": normal(2, 3, 4, 5)})


def test_computed_operands_of_lower_rank_broadcast_against_channels_last() -> None:
    g = Graph()
    x = g.conv(g.input("x", (2, 3, 4, 5)), 3, 6)
    row = g.add("Sigmoid", g.input("row", (5,)))
    plane = g.add("ReduceMean", x, axes=[0], keepdims=0)
    mask = g.add("Greater", x, g.constant(0.0))
    y = g.add("Where", mask, g.add("Add", row, x), plane)
    g.output(y)
    check(g, {"x": normal(2, 3, 4, 5), "row": normal(5)})


def test_matrix_products_and_reshapes_by_shape_arithmetic_agree() -> None:
    g = Graph()
    x = g.input("x", (1, 6, 8))
    heads = g.add("Concat", g.add("Shape", x), g.constant([4]), axis=0)
    split = g.add(
        "Concat",
        g.add("Gather", heads, g.constant([0, 1])),
        g.constant([2, -1]),
        axis=0,
    )
    query = g.add("Reshape", g.add("MatMul", x, g.random(8, 8)), split)
    query = g.add("Transpose", query, perm=[0, 2, 1, 3])
    scores = g.add("MatMul", query, g.add("Transpose", query, perm=[0, 1, 3, 2]))
    mixed = g.add("MatMul", g.add("Softmax", scores, axis=-1), query)
    back = g.add("Reshape", g.add("Transpose", mixed, perm=[0, 2, 1, 3]), g.constant([0, 0, -1]))
    g.output(g.add("Gemm", g.add("Flatten", back), g.random(48, 3), g.random(3)))
    program = check(g, {"x": normal(1, 6, 8)}, tolerance=1e-5)
    assert "Shape" not in ops(program)
    assert "Gather" not in ops(program)


def test_resizing_between_convolutions_agrees() -> None:
    g = Graph()
    x = g.conv(g.input("x", (1, 3, 4, 4)), 3, 5)
    scales = g.constant(np.array([1, 1, 2, 2], np.float32))
    for mode in ("nearest", "linear"):
        y = g.add("Resize", x, "", scales, mode=mode, coordinate_transformation_mode="asymmetric")
        g.output(g.conv(y, 5, 2))
    check(g, {"x": normal(1, 3, 4, 4)})


def test_an_output_that_is_used_inside_too_is_given_out() -> None:
    g = Graph()
    x = g.conv(g.input("x", (1, 3, 4, 4)), 3, 5)
    g.output(x, g.conv(g.add("Relu", x), 5, 2))
    check(g, {"x": normal(1, 3, 4, 4)})


def test_constants_inputs_and_initializers_may_be_outputs() -> None:
    g = Graph()
    x = g.input("x", (1, 3))
    weight = g.random(3, 3, name="weight")
    folded = g.add("Mul", weight, g.constant(2.0))
    y = g.add("MatMul", x, folded)
    g.output(y, weight, folded, x)
    program = check(g, {"x": normal(1, 3)})
    assert set(program.constants) == {weight, folded}
    assert ops(program) == ["MatMul"]


def test_several_inputs_and_outputs_agree() -> None:
    g = Graph()
    x, y = g.input("x", (2, 3)), g.input("y", (2, 3))
    g.output(g.add("Add", x, y), g.add("Mul", x, y))
    check(g, {"x": normal(2, 3), "y": normal(2, 3, seed=1)})


def test_an_input_that_nothing_reads_may_be_there() -> None:
    g = Graph()
    x = g.input("x", (2, 3))
    g.input("unused", (1,))
    g.output(g.add("Relu", x))
    check(g, {"x": normal(2, 3), "unused": normal(1)})


def test_scalars_are_inputs_and_outputs() -> None:
    g = Graph()
    x, factor = g.input("x", (2, 3, 4)), g.input("factor", ())
    scaled = g.add("Mul", x, factor)
    g.output(scaled, g.add("ReduceSum", scaled, keepdims=0))
    check(g, {"x": normal(2, 3, 4), "factor": np.array(3, np.float32)}, tolerance=1e-5)


def test_optional_inputs_and_unused_outputs_may_be_absent() -> None:
    g = Graph()
    x = g.input("x", (1, 2, 6, 6))
    y = g.add("Clip", x, "", g.constant(0.5))
    g.nodes.append(onnx.helper.make_node("Dropout", [y], ["dropped", ""], name="Dropout_1"))
    g.output("dropped")
    check(g, {"x": normal(1, 2, 6, 6)})


def test_a_weight_with_two_consumers_is_packed_for_each() -> None:
    g = Graph()
    x = g.input("x", (1, 4, 6, 6))
    weight = g.random(4, 4, 1, 1, name="weight")
    flat = g.add("MatMul", g.add("Reshape", weight, g.constant([4, 4])), g.random(4, 2))
    y = g.add("Conv", g.add("Conv", x, weight), weight)
    g.output(y, flat)
    check(g, {"x": normal(1, 4, 6, 6)})


def test_the_value_of_an_input_is_bound_from_the_example_if_an_operator_needs_it() -> None:
    g = Graph()
    x, shape = g.input("x", (2, 6)), g.input("shape", (2,), INT64)
    unused = g.input("other", (2,), INT64)
    g.output(g.add("Reshape", g.add("Relu", x), g.add("Add", shape, g.constant([0, 0]))))
    feeds = {"x": normal(2, 6), shape: np.array([3, 4]), unused: np.array([1, 1])}
    program = check(g, feeds)
    assert program.static_inputs == ("shape",)
    assert program.inputs == ("x", "other")


def test_a_value_that_only_running_gives_is_refused_with_the_inputs_it_comes_from() -> None:
    g = Graph()
    x, shape = g.input("x", (2, 6)), g.input("shape", (2,), INT64)
    g.output(g.add("Reshape", x, shape, name="/neck/Reshape"))
    structs = {"x": normal(2, 6), shape: jax.ShapeDtypeStruct((2,), np.int64)}
    with pytest.raises(StaticInputError, match="'shape'") as caught:
        lower(float_model(g), structs)
    assert "/neck/Reshape" in caught.value.where
    assert "graph input shape" in caught.value.why


def test_an_output_whose_length_hangs_on_the_data_is_refused_with_what_to_do() -> None:
    g = Graph()
    x = g.input("image", (2, 6))
    g.output(g.add("NonZero", x, name="found"), dtype=INT64)
    with pytest.raises(StaticInputError, match="NonZero") as caught:
        lower(float_model(g), {"image": jax.ShapeDtypeStruct((2, 6), np.float32)})
    assert "cut the network before this node" in caught.value.hint
    assert "--input_value" in caught.value.hint


def test_all_unsupported_operators_and_attributes_are_told_at_once() -> None:
    g = Graph()
    x = g.input("x", (1, 3, 4, 4))
    y = g.add("Mystery", x, name="/a/Mystery")
    y = g.add("Strange", y, name="/b/Strange", domain="elsewhere")
    y = g.add("Mystery", y, name="/c/Mystery")
    g.output(g.add("Relu", y, name="/d/Relu", slope=2))
    with pytest.raises(UnsupportedOpError, match="3 operators") as caught:
        lowered(g, {"x": normal(1, 3, 4, 4)})
    for name in ("/a/Mystery", "/b/Strange", "/c/Mystery", "/d/Relu", "'slope'", "elsewhere"):
        assert name in caught.value.where


def test_an_operator_that_is_known_to_be_missing_is_refused_with_the_reason() -> None:
    g = Graph()
    g.output(g.add("Bernoulli", g.input("share", (3,))))
    with pytest.raises(UnsupportedOpError, match="1 operator that") as caught:
        lowered(g, {"share": normal(3)})
    assert "random numbers" in caught.value.why


def test_unsupported_operators_in_branches_are_told_too() -> None:
    g = Graph()
    x, flag = g.input("x", (2,)), g.input("flag", (), onnx.TensorProto.BOOL)
    branch = _branch("Mystery", x)
    g.output(g.add("If", flag, then_branch=branch, else_branch=_branch("Relu", x)))
    with pytest.raises(UnsupportedOpError, match="operator") as caught:
        lowered(g, {"x": normal(2), "flag": np.array(True)})
    assert "Mystery" in caught.value.where


def _branch(op: str, read: str) -> onnx.GraphProto:
    node = onnx.helper.make_node(op, [read], ["y"], name=f"in_{op}")
    return onnx.helper.make_graph(
        [node], "branch", [], [onnx.helper.make_tensor_value_info("y", 1, None)]
    )


def test_shapes_that_do_not_fit_name_the_node_and_what_it_reads() -> None:
    g = Graph()
    x, y = g.input("x", (2, 3)), g.input("y", (4, 5))
    g.output(g.add("MatMul", x, y, name="/head/MatMul"))
    with pytest.raises(ShapeError, match="MatMul does not fit") as caught:
        lowered(g, {"x": normal(2, 3), "y": normal(4, 5)})
    assert "/head/MatMul" in caught.value.where
    assert "(2, 3), (4, 5)" in caught.value.where
    assert caught.value.why


def test_shapes_of_constants_that_do_not_fit_name_the_node_too() -> None:
    g = Graph()
    g.input("x", (1,))
    g.output(g.add("Reshape", g.random(4), g.constant([3]), name="/fold/Reshape"))
    with pytest.raises(ShapeError) as caught:
        lowered(g, {"x": normal(1)})
    assert "/fold/Reshape" in caught.value.where


def test_an_input_without_an_example_is_named() -> None:
    g = Graph()
    g.output(g.add("Relu", g.input("image", (1, 3))))
    with pytest.raises(ShapeError, match="no example") as caught:
        lowered(g, {})
    assert caught.value.where == "image"


def test_an_output_that_nothing_computes_is_named() -> None:
    g = Graph()
    g.output(g.add("Relu", g.input("x", (1, 3))))
    model = float_model(g)
    broken = dataclasses.replace(
        model, outputs=(dataclasses.replace(model.outputs[0], name="nowhere"),)
    )
    with pytest.raises(ModelError, match="nothing computes") as caught:
        lower(broken, {"x": normal(1, 3)})
    assert caught.value.where == "nowhere"


def test_a_forced_lowering_and_the_default_give_the_same() -> None:
    g = Graph()
    g.output(g.conv(g.input("x", (1, 4, 6, 6)), 4, 5, 1))
    feeds = {"x": normal(1, 4, 6, 6)}
    default = check(g, feeds, prefer={"Conv": "default"})
    assert moved(default) == 0
    assert moved(check(g, feeds)) == 2


def test_work_is_counted_for_one_sample() -> None:
    g = Graph()
    g.output(g.conv(g.input("x", (1, 4, 6, 6)), 4, 5, 3))
    (step,) = lowered(g, {"x": normal(1, 4, 6, 6)}).steps
    assert step.macs == 5 * 6 * 6 * 4 * 9


def test_shapes_and_dtypes_of_all_tensors_are_known() -> None:
    g = Graph()
    x = g.conv(g.input("x", (1, 4, 6, 6)), 4, 5)
    best = g.add("ArgMax", x, axis=1)
    g.output(best, dtype=INT64)
    program = lowered(g, {"x": normal(1, 4, 6, 6)})
    assert program.shapes[x] == (1, 5, 6, 6)
    assert program.dtypes[x] == np.float32
    assert program.dtypes[best] == np.int64  # as ONNX has it, whatever a program counts in


def test_integers_beyond_32_bits_survive_under_64_bit_types() -> None:
    g = Graph()
    x = g.input("x", (3,), INT64)
    g.output(g.add("Mul", g.add("Add", x, g.constant([1, 2, 3])), g.constant([2])), dtype=INT64)
    feeds = {"x": np.array([2**40, -(2**50), 7])}
    with jax.enable_x64(True):
        program = lowered(g, feeds)
        found = program.run(program.prepare({}, None), None, feeds)
        (name,) = program.outputs
        assert relative_error(np.asarray(found[name]), run_onnx(g.proto(), feeds)[name]) == 0.0
        assert found[name].dtype == np.int64
