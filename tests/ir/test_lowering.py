"""Models for a reader that knows opset 20 and file format 9: onnx 1.15."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from jptq.ir import Model, for_vendor, from_bytes, to_bytes, unread
from jptq.ir.lowering import beyond
from tests.graphs import Graph, feeds_for
from tests.oracles import run_onnx


def _loaded(g: Graph, ir_version: int = 11) -> Model:
    proto = g.proto()
    proto.ir_version = ir_version
    return from_bytes(proto.SerializeToString())


def _network(opset: int) -> Graph:
    """Operators of which most got another version after opset 20."""
    g = Graph(opset)
    x = g.input("x", (1, 4, 8, 8))
    y = g.add("Selu", g.conv(x, 4, 4))
    y = g.add("AveragePool", g.add("Pad", y, g.constant([0, 0, 1, 1] * 2)), kernel_shape=[3, 3])
    y = g.add("Transpose", g.add("Round", g.add("Sin", y)), perm=[0, 2, 3, 1])
    y = g.add(
        "Reshape", g.add("Unsqueeze", g.add("Squeeze", y), g.constant([0])), g.constant([1, -1])
    )
    picked = g.add("TopK", y, g.constant([5]), n_outputs=2)
    g.output(g.add("Cast", g.add("Identity", picked), to=1))
    return g


@pytest.mark.parametrize("opset", [21, 22, 24, 26])
def test_a_network_of_a_later_opset_is_read_by_the_vendors_tool(opset: int) -> None:
    g = _network(opset)
    lowered = for_vendor(_loaded(g))
    proto = onnx.load_from_string(to_bytes(lowered))
    assert (proto.opset_import[0].version, proto.ir_version) == (20, 9)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    assert unread(lowered) == ""
    feeds = feeds_for(g.proto())
    want, found = (run_onnx(model, feeds) for model in (g.proto(), proto))
    np.testing.assert_equal(found, want)


@pytest.mark.parametrize("opset", [11, 17, 20])
def test_an_opset_that_is_read_stays(opset: int) -> None:
    g = Graph(opset)
    g.output(g.add("Relu", g.input("x", (1, 4))))
    model = _loaded(g)
    assert for_vendor(model) is model
    assert onnx.load_from_string(to_bytes(model)).ir_version == 9


def test_what_came_later_is_named_and_the_model_stays() -> None:
    g = Graph(23)
    x = g.input("x", (1, 2, 4, 8))
    g.output(g.add("Attention", g.add("Sin", x), x, x, name="attend"))
    model = _loaded(g)
    assert beyond(model) == ("node 'attend' (Attention) came with opset 23",)
    assert for_vendor(model) is model
    assert "opset 23, and HMCT reads 20 at most" in unread(model)


def test_another_meaning_is_not_taken_for_the_same() -> None:
    g = Graph(21)
    x = g.input("x", (1, 4, 6, 6))
    ones = g.constant(np.ones(4, np.float32))
    g.output(g.add("GroupNormalization", x, ones, ones, num_groups=2, name="grouped"))
    (why,) = beyond(_loaded(g))
    assert why == "node 'grouped' (GroupNormalization) has another meaning before opset 21"


def test_an_attribute_that_came_later_counts_if_it_says_something() -> None:
    for saturate, fits in ((1, True), (0, False)):
        g = Graph(21)
        scale, zero = g.constant(0.1), g.constant(np.array(0, np.int8))
        q = g.add("QuantizeLinear", g.input("x", (1, 4)), scale, zero, block_size=1 - saturate)
        g.output(g.add("DequantizeLinear", q, scale, zero))
        assert (beyond(_loaded(g)) == ()) == fits


def test_a_type_that_came_later_counts() -> None:
    g = Graph(21)
    scale, zero = g.constant(0.1), g.constant(np.array(0, np.int16))
    q = g.add("QuantizeLinear", g.input("x", (1, 4)), scale, zero, name="wide")
    g.output(g.add("DequantizeLinear", q, scale, zero, name="back"))
    assert len(beyond(_loaded(g))) == 2
    assert "'wide' (QuantizeLinear) reads int16" in beyond(_loaded(g))[0]
