from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from jptq.hmct.common import find_input_calibration, find_output_calibration
from jptq.hmct.ir import OnnxModel, load_model
from jptq.quant.structure import structure_of
from tests.graphs import Graph
from tests.hmct import networks
from tests.quant.networks import attention, branches, placed


def quantizer(g: Graph, tensor: str) -> str:
    """Put a quantizer on a tensor."""
    return g.add("HzCalibration", tensor, name=f"{tensor}_HzCalibration", domain="horizon")


def found(model: OnnxModel, name: str, index: int | None = None) -> str | None:
    calibration = find_input_calibration(model.graph.node_mappings[name], index)
    return None if calibration is None else calibration.name


def behind(model: OnnxModel, name: str, index: int | None = None) -> str | None:
    calibration = find_output_calibration(model.graph.node_mappings[name], index)
    return None if calibration is None else calibration.name


VIEWS: dict[str, Callable[[Graph, str], str]] = {
    "MaxPool": lambda g, x: g.add("MaxPool", x, kernel_shape=[1, 1], name="view"),
    "GlobalMaxPool": lambda g, x: g.add("GlobalMaxPool", x, name="view"),
    "Relu": lambda g, x: g.add("Relu", x, name="view"),
    "Clip": lambda g, x: g.add("Clip", x, g.constant(-1.0), g.constant(1.0), name="view"),
    "Reshape": lambda g, x: g.add("Reshape", x, g.constant([1, 4, -1, 1]), name="view"),
    "Transpose": lambda g, x: g.add("Transpose", x, perm=[0, 1, 3, 2], name="view"),
    "ReduceMax": lambda g, x: g.add("ReduceMax", x, axes=[3], name="view"),
    "Split": lambda g, x: g.add("Split", x, axis=3, n_outputs=2, name="view"),
    "Slice": lambda g, x: g.add("Slice", x, g.constant([0]), g.constant([1]), name="view"),
    "Gather": lambda g, x: g.add("Gather", x, g.constant([0]), axis=0, name="view"),
    "ScatterND": lambda g, x: g.add(
        "ScatterND",
        x,
        g.constant(np.zeros((1, 1), np.int64)),
        g.random(1, 4, 4, 4),
        name="view",
    ),
}


def looked_through(view: Callable[[Graph, str], str]) -> OnnxModel:
    """Return quantizer -> view -> Sigmoid, and Sigmoid -> view -> quantizer."""
    g = Graph()
    x = g.input("x", (1, 4, 4, 4))
    g.output(g.add("Sigmoid", view(g, quantizer(g, x)), name="reader"))
    return load_model(g.proto())


@pytest.mark.seed("F5")
@pytest.mark.parametrize("op_type", VIEWS)
def test_operators_that_keep_values_are_looked_through(op_type: str) -> None:
    model = looked_through(VIEWS[op_type])
    assert found(model, "view", 0) == "x_HzCalibration"
    assert found(model, "reader", 0) == "x_HzCalibration"
    assert found(model, "reader") == "x_HzCalibration"


@pytest.mark.seed("F5")
@pytest.mark.parametrize("op_type", VIEWS)
def test_the_search_behind_a_node_looks_through_them_too(op_type: str) -> None:
    g = Graph()
    x = g.input("x", (1, 4, 4, 4))
    view = VIEWS[op_type](g, g.add("Sigmoid", x, name="writer"))
    g.output(g.add("Tanh", quantizer(g, view)))
    model = load_model(g.proto())
    assert behind(model, "writer") == behind(model, "view") == f"{view}_HzCalibration"


@pytest.mark.seed("F5")
@pytest.mark.parametrize("op_type", ["Sigmoid", "AveragePool", "Concat", "Resize", "Mul", "Pad"])
def test_other_operators_end_the_search(op_type: str) -> None:
    g = Graph()
    x = quantizer(g, g.input("x", (1, 4, 4, 4)))
    made = {
        "Sigmoid": lambda: g.add("Sigmoid", x),
        "AveragePool": lambda: g.add("AveragePool", x, kernel_shape=[1, 1]),
        "Concat": lambda: g.add("Concat", x, x, axis=1),
        "Resize": lambda: g.add("Resize", x, "", g.constant(np.ones(4, np.float32))),
        "Mul": lambda: g.add("Mul", x, x),
        "Pad": lambda: g.add("Pad", x, g.constant([0] * 8)),
    }[op_type]()
    g.output(g.add("Tanh", made, name="reader"))
    assert found(load_model(g.proto()), "reader", 0) is None


@pytest.mark.seed("F5")
def test_without_an_index_a_direct_quantizer_comes_before_one_behind_a_view() -> None:
    g = Graph()
    far = g.add("Relu", quantizer(g, g.input("far", (1, 4))), name="relu")
    near = quantizer(g, g.input("near", (1, 4)))
    g.output(g.add("Add", far, near, name="add"))
    model = load_model(g.proto())
    assert found(model, "add") == "near_HzCalibration"
    assert found(model, "add", 0) == "far_HzCalibration"


@pytest.mark.seed("F5")
def test_scatter_shows_the_quantizer_of_its_data() -> None:
    g = Graph()
    data, updates = (quantizer(g, g.input(n, (2, 4))) for n in ("data", "updates"))
    moved = g.add("ScatterND", data, g.constant(np.zeros((1, 1), np.int64)), updates, name="put")
    g.output(g.add("Sigmoid", moved, name="reader"))
    model = load_model(g.proto())
    assert found(model, "put") == found(model, "reader", 0) == "data_HzCalibration"
    assert found(model, "put", 2) == "updates_HzCalibration"


@pytest.mark.seed("F5")
def test_a_convolution_that_an_addition_alone_reads_is_one_unit_with_it() -> None:
    def network(*, given_out: bool) -> OnnxModel:
        g = Graph()
        x = g.input("x", (1, 4, 4, 4))
        y = g.conv(x, 4, 4, 1, name="conv")
        total = g.add("Add", y, x, name="add")
        g.output(g.add("Sigmoid", quantizer(g, total)), *([y] if given_out else []))
        return load_model(g.proto())

    assert behind(network(given_out=False), "conv") == "add:0_HzCalibration"
    assert behind(network(given_out=True), "conv") is None


@pytest.mark.seed("F5")
def test_the_nearest_quantizer_behind_a_node_is_taken() -> None:
    g = Graph()
    y = g.add("Sigmoid", g.input("x", (1, 4)), name="writer")
    far = quantizer(g, g.add("Relu", y))
    near = quantizer(g, y)
    g.output(g.add("Add", far, near))
    assert behind(load_model(g.proto()), "writer") == "writer:0_HzCalibration"


def test_an_output_is_chosen_by_its_index() -> None:
    g = Graph()
    g.add("Split", g.input("x", (1, 4)), axis=1, n_outputs=2, name="split")
    g.output(*(g.add("Tanh", quantizer(g, f"split:{i}")) for i in (1, 0)))
    model = load_model(g.proto())
    assert behind(model, "split", 0) == "split:0_HzCalibration"
    assert behind(model, "split", 1) == "split:1_HzCalibration"


def test_nothing_is_found_where_there_is_nothing() -> None:
    model = load_model(networks.calibrated())
    assert found(model, "Conv_0", 2) is None  # the bias
    assert found(model, "Resize_3", 1) is None  # left out
    assert found(model, "Conv_0", 7) is None  # no such input
    assert behind(model, "MatMul_12") is None


@pytest.mark.parametrize("make", [branches, attention, networks.graph])
def test_the_walk_is_the_one_that_ranking_and_plans_use(make: Callable[[], Graph]) -> None:
    frozen = placed(make())
    model, structure = load_model(frozen), structure_of(frozen)
    compared = 0
    for node in frozen.operators():
        for index in range(len(node.inputs)):
            expected = structure.calibration(node, index)
            name = None if expected is None else expected.name
            assert found(model, node.name, index) == name, (node.name, index)
            compared += name is not None
    assert compared > 5
