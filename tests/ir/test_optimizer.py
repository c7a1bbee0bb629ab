"""The whole optimisation: agreement with onnxruntime, names, shapes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from jptq.errors import ModelError, ShapeError, UnknownNameError
from jptq.ir import expand_units, load, optimize, to_bytes
from tests.graphs import Graph, conv_net
from tests.ir.agreement import loaded, ops, optimized
from tests.ir.test_save import branching_model
from tests.oracles import relative_error, run_onnx

NETWORKS = {  # nodes in the file, nodes after optimisation
    "ppocr_cls": (566, 126),
    "ppocr4_rec": (860, 243),
    "yolov8n_face": (323, 176),
    "ppocr4_det": (672, 197),
    "doc_orientation": (115, 74),
}


@pytest.mark.parametrize("opset", [8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 21])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_network_agrees_at_every_opset(opset: int, batch: int) -> None:
    model = optimized(conv_net(opset), batch=batch)
    expected = ["Conv", "Relu", "Conv", "HzHardSwish"]
    expected += ["GlobalAveragePool", "Conv", "Relu", "Conv", "HardSigmoid", "Mul", "HzSwish"]
    expected += ["Add", "GlobalAveragePool", "Reshape", "Gemm"]
    assert ops(model) == expected
    assert model.opset("") == opset
    assert model.outputs[0].shape == (batch, 5)


def test_names_of_nodes_inputs_and_outputs_stay() -> None:
    proto = conv_net()
    model = optimized(proto)
    assert {node.name for node in model.nodes} <= {node.name for node in proto.graph.node}
    assert model.input_names == ("x",)
    assert model.output_names == tuple(value.name for value in proto.graph.output)
    assert model.by_name["stem"].op == "Conv"
    assert model.by_name["/block/residual"].op == "Add"


def test_a_second_optimisation_changes_nothing() -> None:
    once = optimized(conv_net())
    twice = optimize(once, input_shapes={})
    assert to_bytes(twice) == to_bytes(once)


def test_the_same_file_gives_the_same_bytes() -> None:
    results = {
        to_bytes(optimize(loaded(conv_net()), input_shapes={"x": (1, 3, 8, 8)})) for _ in "ab"
    }
    assert len(results) == 1


def test_several_inputs_and_outputs_keep_their_names() -> None:
    g = Graph()
    g.input("a", (2, 4))
    g.input("b", (2, 4))
    total = g.add("Add", "a", "b")
    g.output(g.add("Identity", total, name="copy"), total, g.add("Identity", "a", name="echo"))
    model = optimized(g.proto())
    assert model.output_names == ("copy:0", total, "echo:0")


def test_an_input_that_is_also_an_output_keeps_its_shape() -> None:
    g = Graph()
    x = g.input("x", ("batch", 3))
    g.output(x, g.swish(x))
    model = optimized(g.proto(), batch=2)
    assert ops(model) == ["HzSwish"]
    assert [tensor.shape for tensor in (*model.inputs, *model.outputs)] == [(2, 3)] * 3


def test_a_constant_that_is_an_output_stays() -> None:
    g = Graph()
    x = g.input("x", (2, 3))
    g.output(g.random(4, name="weight"), g.add("Relu", x))
    model = optimized(g.proto())
    assert model.output_names == ("weight", "Relu_0:0")
    assert model.initializers["weight"].shape == (4,)


def test_an_unused_input_stays() -> None:
    g = Graph()
    g.input("a", (2,))
    g.input("unused", (3,))
    g.output(g.add("Relu", "a"))
    assert optimized(g.proto()).input_names == ("a", "unused")


def test_an_unknown_length_names_input_and_shape() -> None:
    with pytest.raises(ShapeError) as caught:
        optimize(loaded(conv_net()), input_shapes={})
    assert "'x'" in caught.value.what
    assert "[batch, 3, 8, 8]" in caught.value.why


@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (1, 3, 8), (-1, 3, 8, 8)])
def test_a_shape_that_contradicts_the_file_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="input 'x' cannot have shape"):
        optimize(loaded(conv_net()), input_shapes={"x": shape})


def test_a_shape_for_no_input_is_refused_with_near_names() -> None:
    with pytest.raises(UnknownNameError, match="unknown input 'xx'") as caught:
        optimize(loaded(conv_net()), input_shapes={"xx": (1, 3, 8, 8)})
    assert "'x'" in caught.value.hint


def test_stale_shapes_in_the_file_do_not_mislead() -> None:
    proto = conv_net()
    real = onnx.TensorProto.FLOAT
    pooled = next(n.output[0] for n in proto.graph.node if n.op_type == "Shape")
    source = next(n.input[0] for n in proto.graph.node if n.op_type == "Shape")
    proto.graph.value_info.append(helper.make_tensor_value_info(source, real, (1, 8, 1, 1)))
    proto.graph.value_info.append(
        helper.make_tensor_value_info(pooled, onnx.TensorProto.INT64, (4,))
    )
    assert optimized(proto, batch=3).outputs[0].shape == (3, 5)


def test_subgraphs_are_left_as_they_are() -> None:
    model = optimized(branching_model())
    assert ops(model) == ["ReduceSum", "Greater", "If", "Loop"]


@pytest.mark.models
@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_real_networks_agree(name: str, models_folder: Path) -> None:
    folder = models_folder / name
    samples = {
        path.name: sorted(path.iterdir()) for path in (folder / "calibration_data").iterdir()
    }
    model = load(folder / "model.onnx")
    shapes = {key: np.load(files[0]).shape for key, files in samples.items()}
    result = optimize(model, input_shapes=shapes)
    assert (len(model.nodes), len(result.nodes)) == NETWORKS[name]
    content = to_bytes(expand_units(result))
    for index in (0, 15, 31):
        feeds = {key: np.load(files[index]) for key, files in samples.items()}
        expected = run_onnx(folder / "model.onnx", feeds)
        for output, array in run_onnx(content, feeds).items():
            assert relative_error(array, expected[output]) <= 1e-4


def test_every_tensor_and_node_name_is_unique() -> None:
    g = Graph()
    g.input("x", (1, 2, 3))
    first = g.batch_norm("x", 2, name="twin")
    g.output(g.batch_norm(first, 2, name="twin"), g.add("Relu", first, name=""))
    model = optimize(loaded(g.proto()), input_shapes={})
    names = [node.name for node in model.nodes]
    assert names == ["UNIT_CONV_FOR_twin", "UNIT_CONV_FOR_twin_1", "Relu_2"]


@pytest.mark.parametrize("inputs", [(), ("x", "x", "x"), ("", "x")])
def test_a_node_with_the_wrong_inputs_is_named(inputs: tuple[str, ...]) -> None:
    g = Graph()
    g.input("x", (2, 3))
    g.output(g.add("Add", *inputs, name="sum"))
    with pytest.raises(ModelError) as caught:
        optimize(loaded(g.proto()), input_shapes={})
    assert "'sum'" in caught.value.where


def test_a_node_without_a_required_attribute_is_named() -> None:
    g = Graph()
    g.input("x", (2, 3))
    g.output(g.add("Concat", "x", "x", name="joint"))
    with pytest.raises(ModelError, match="needs attribute 'axis'"):
        optimize(loaded(g.proto()), input_shapes={})


def test_an_opset_of_the_future_is_refused() -> None:
    newest = onnx.defs.onnx_opset_version()
    model = loaded(conv_net())
    later = dataclasses.replace(model, opsets={**model.opsets, "": newest + 1})
    with pytest.raises(ModelError, match=f"opset {newest + 1}"):
        optimize(later, input_shapes={})
