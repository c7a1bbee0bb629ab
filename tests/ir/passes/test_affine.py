"""Normalisations and channel-wise constants behind linear layers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from jptq.ir import optimize
from tests.graphs import Graph
from tests.ir.agreement import loaded, ops, optimized


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("group", "spatial"), [(1, 1), (1, 2), (2, 2), (4, 2), (1, 3)])
def test_a_normalisation_folds_into_its_convolution(bias: bool, group: int, spatial: int) -> None:
    g = Graph()
    g.input("x", (2, 4, *(5,) * spatial))
    conv = g.conv("x", 4, 8, group=group, bias=bias, spatial=spatial, name="conv")
    g.output(g.add("Relu", g.batch_norm(conv, 8)))
    model = optimized(g.proto())
    assert [node.name for node in model.nodes] == ["conv", "Relu_2"]


@pytest.mark.parametrize("group", [1, 2])
def test_a_normalisation_folds_into_a_transposed_convolution(group: int) -> None:
    g = Graph()
    g.input("x", (1, 4, 5, 5))
    deconv = g.add("ConvTranspose", "x", g.random(4, 3, 2, 2), strides=[2, 2], group=group)
    g.output(g.batch_norm(deconv, 3 * group))
    assert ops(optimized(g.proto())) == ["ConvTranspose"]


@pytest.mark.parametrize("transposed", [0, 1])
def test_a_normalisation_folds_into_a_gemm(transposed: int) -> None:
    g = Graph()
    g.input("x", (3, 6))
    weight = g.random(4, 6) if transposed else g.random(6, 4)
    y = g.add("Gemm", "x", weight, g.random(4), transB=transposed, alpha=0.5, beta=2.0)
    g.output(g.batch_norm(y, 4))
    model = optimized(g.proto())
    assert ops(model) == ["Gemm"]
    assert model.nodes[0].attributes == {}
    assert model.initializers[model.nodes[0].inputs[1]].shape == (6, 4)


@pytest.mark.parametrize(("bias", "folds"), [((4, 1), False), ((1, 4), True), ((1, 1), True)])
def test_only_a_bias_per_column_of_a_gemm_is_scaled(bias: tuple[int, ...], folds: bool) -> None:
    g = Graph()
    g.input("x", (4, 3))
    y = g.add("Gemm", "x", g.random(3, 4), g.random(*bias))
    g.output(g.add("Mul", y, g.random(4)))
    assert ops(optimized(g.proto())) == (["Gemm"] if folds else ["Gemm", "Mul"])


@pytest.mark.parametrize("op", ["Mul", "Div", "Add", "Sub"])
@pytest.mark.parametrize("shape", [(), (1,), (6, 1, 1), (1, 6, 1, 1), (1, 1, 1)])
@pytest.mark.parametrize("constant_first", [False, True])
def test_channelwise_arithmetic_folds(
    op: str, shape: tuple[int, ...], constant_first: bool
) -> None:
    g = Graph()
    g.input("x", (2, 3, 5, 5))
    conv = g.conv("x", 3, 6, name="conv")
    constant = g.constant(g.rng.uniform(0.5, 2, shape).astype(np.float32))
    operands = (constant, conv) if constant_first else (conv, constant)
    g.output(g.add("Relu", g.add(op, *operands)))
    model = optimized(g.proto(), tolerance=1e-5)
    stays = op == "Div" and constant_first
    assert ops(model) == (["Conv", "Div", "Relu"] if stays else ["Conv", "Relu"])


def test_a_chain_of_affine_nodes_folds_completely() -> None:
    g = Graph()
    g.input("x", (1, 3, 5, 5))
    y = g.batch_norm(g.conv("x", 3, 6, bias=False), 6)
    y = g.add("Add", g.add("Mul", y, g.random(1, 6, 1, 1)), g.random(6, 1, 1))
    g.output(y)
    model = optimized(g.proto())
    assert ops(model) == ["Conv"]
    assert model.output_names == (y,)


@pytest.mark.parametrize("shape", [(5,), (5, 5), (1, 6, 5, 5), (2, 1, 1, 1), (1, 1, 6, 1, 1)])
def test_a_constant_that_is_not_channelwise_stays(shape: tuple[int, ...]) -> None:
    g = Graph()
    g.input("x", (2, 3, 5, 5))
    g.output(g.add("Mul", g.conv("x", 3, 6), g.random(*shape)))
    assert ops(optimized(g.proto())) == ["Conv", "Mul"]


def test_a_layer_with_a_second_reader_keeps_its_weights() -> None:
    g = Graph()
    g.input("x", (2, 3, 5, 5))
    conv = g.conv("x", 3, 6)
    g.output(g.add("Add", g.batch_norm(conv, 6, name="bn"), conv))
    model = optimized(g.proto())
    assert ops(model) == ["Conv", "Conv", "Add"]
    assert "UNIT_CONV_FOR_bn" in model.by_name


def test_a_layer_that_is_a_graph_output_keeps_its_weights() -> None:
    g = Graph()
    g.input("x", (2, 3, 5, 5))
    conv = g.conv("x", 3, 6)
    g.output(conv, g.add("Mul", conv, g.random(6, 1, 1)))
    assert ops(optimized(g.proto())) == ["Conv", "Mul"]


def test_a_shared_weight_is_changed_for_one_reader_only() -> None:
    g = Graph()
    g.input("x", (2, 3, 5, 5))
    weight = g.random(3, 3, 1, 1, name="shared")
    first = g.batch_norm(g.add("Conv", "x", weight, name="a"), 3)
    g.output(g.add("Conv", first, weight, name="b"))
    model = optimized(g.proto(), tolerance=1e-5)
    assert [node.inputs[1] for node in model.nodes] == ["a_weight", "shared"]


def test_a_division_by_zero_is_not_folded() -> None:
    g = Graph()
    g.input("x", (1, 3, 4, 4))
    zero = g.constant(np.array([1, 0, 2], np.float32).reshape(3, 1, 1))
    g.output(
        g.add("Clip", g.add("Div", g.conv("x", 3, 3), zero), g.constant(-1.0), g.constant(1.0))
    )
    assert ops(optimized(g.proto())) == ["Conv", "Div", "Clip"]


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_a_lone_normalisation_becomes_a_depthwise_convolution(spatial: int) -> None:
    g = Graph()
    g.input("x", (2, 4, *(5,) * spatial))
    g.output(g.batch_norm(g.add("Relu", "x"), 4, name="bn"))
    model = optimized(g.proto())
    unit = model.by_name["UNIT_CONV_FOR_bn"]
    assert (unit.op, unit.attributes["group"]) == ("Conv", 4)
    assert model.initializers[unit.inputs[1]].shape == (4, 1, *(1,) * spatial)


def test_a_normalisation_of_a_matrix_stays() -> None:
    g = Graph()
    g.input("x", (2, 4))
    g.output(g.batch_norm("x", 4))
    assert ops(optimized(g.proto())) == ["BatchNormalization"]


def test_a_normalisation_behind_removable_nodes_still_folds() -> None:
    g = Graph()
    g.input("x", (1, 3, 4, 4))
    copied = g.add("Identity", g.add("Dropout", g.conv("x", 3, 4)))
    shape = g.add("Shape", copied)
    g.output(g.batch_norm(g.add("Reshape", copied, shape), 4))
    assert ops(optimized(g.proto())) == ["Conv"]


def test_a_training_normalisation_stays() -> None:
    g = Graph(15)
    g.input("x", (1, 3, 4, 4))
    conv = g.conv("x", 3, 4)
    g.output(g.batch_norm(conv, 4))
    attribute = onnx.helper.make_attribute("training_mode", 1)
    g.nodes[-1].attribute.append(attribute)
    g.nodes[-1].output.extend(["mean", "variance"])
    # onnxruntime runs no training mode, so there is nothing to compare with.
    assert ops(optimize(loaded(g.proto()), input_shapes={})) == ["Conv", "BatchNormalization"]
