from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from jptq.ir import Model, from_bytes
from jptq.quant.calibrated import plan_of, with_thresholds
from jptq.quant.placement import place
from jptq.quant.remarks import graph_notes, renamed_nodes
from tests.graphs import Graph
from tests.quant.networks import TARGET, float_model, floats_of, placed


def _calibrated(g: Graph, largest: float = 1.0) -> Model:
    model = placed(g)
    plan = plan_of(model, TARGET)
    counts = {c.name: c.channels if c.constant else 1 for c in plan.calibrations}
    return with_thresholds(
        model, {name: np.full(count, largest, np.float32) for name, count in counts.items()}
    )


def _padded(value: float) -> Graph:
    g = Graph()
    pads = g.constant([0, 0, 1, 1, 0, 0, 1, 1])
    x = g.add("Pad", g.input("x", (1, 4, 6, 6)), pads, g.constant(value), name="pad")
    g.output(g.conv(x, 4, 4))
    return g


def test_a_constant_at_the_end_of_a_grid_is_named() -> None:
    (note,) = graph_notes(_calibrated(_padded(114.0), largest=114.0))
    assert "The constant 114 that node 'pad' (Pad)" in note
    assert "INT8 step 0.9" in note


@pytest.mark.parametrize("value", [0.0, 114.0])
def test_a_constant_inside_its_grid_is_not(value: float) -> None:
    assert graph_notes(_calibrated(_padded(value), largest=255.0)) == ()


def test_one_tensor_given_out_twice_in_two_ways_is_told() -> None:
    g = Graph()
    y = g.conv(g.input("x", (1, 4, 6, 6)), 4, 4)
    g.output(y, g.add("Identity", y))
    (note,) = graph_notes(_calibrated(g))
    assert "Outputs 'Conv_0:0' and 'Identity_1:0' are one tensor" in note
    assert "'Identity_1:0' is given out behind its quantizer, 'Conv_0:0' in float" in note


def test_twins_that_are_treated_alike_are_not() -> None:
    g = Graph()
    y = g.conv(g.input("x", (1, 4, 6, 6)), 4, 4)
    g.output(y, g.add("Identity", y))
    model = place(float_model(g), TARGET, floats=floats_of(g.proto()), quantize_outputs=True)
    assert graph_notes(model) == ()


def _recurrent(op: str, gates: int) -> Callable[[], Graph]:
    def build() -> Graph:
        g = Graph()
        w, r = g.random(1, gates * 6, 4), g.random(1, gates * 6, 6)
        x = g.input("x", (5, 1, 4))
        g.output(g.add(op, x, w, r, hidden_size=6, n_outputs=2, name="loop"))
        return g

    return build


@pytest.mark.parametrize("build", [_recurrent("LSTM", 4), _recurrent("GRU", 3)])
def test_states_without_quantizers_are_told(build: Callable[[], Graph]) -> None:
    (note,) = graph_notes(_calibrated(build()))
    assert "No quantizer stands on the states of recurrent nodes" in note
    assert "'loop'" in note


def _with_two_of_one_name(first: str, second: str) -> onnx.ModelProto:
    g = Graph()
    g.output(g.conv(g.conv(g.input("x", (1, 4, 6, 6)), 4, 4), 4, 4))
    proto = g.proto()
    proto.graph.node[0].name, proto.graph.node[1].name = first, second
    return proto


def test_renamed_nodes_are_listed() -> None:
    proto = _with_two_of_one_name("conv", "conv")
    model = place(from_bytes(proto.SerializeToString()), TARGET, floats=floats_of(proto))
    assert renamed_nodes(model) == {"conv_1": "conv"}
    (note,) = graph_notes(model)
    assert "'conv_1' for 'conv'" in note


def test_names_that_differ_and_nodes_without_one_are_no_news() -> None:
    for proto in (_with_two_of_one_name("a", "b"), _with_two_of_one_name("", "")):
        model = place(from_bytes(proto.SerializeToString()), TARGET, floats=floats_of(proto))
        assert renamed_nodes(model) == {}
        assert graph_notes(model) == ()


def test_an_opset_that_the_vendors_tool_does_not_read_is_told() -> None:
    g = Graph(24)
    x = g.input("x", (1, 4, 6, 6))
    g.output(g.conv(g.add("Swish", x, name="gate"), 4, 4))
    (note,) = graph_notes(_calibrated(g))
    assert "opset 24, and HMCT reads 20 at most" in note
    assert "node 'gate' (Swish) came with opset 24" in note
