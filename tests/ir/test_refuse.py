"""Networks that are quantized already are refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from jptq.errors import ModelError
from jptq.ir import refuse_quantized
from tests.graphs import Graph, conv_net
from tests.ir.agreement import loaded
from tests.ir.test_save import branching_model


def test_quantizers_are_counted_and_named() -> None:
    g = Graph()
    g.input("x", (2, 3))
    scale, zero = g.constant(0.1), g.constant(np.array(0, np.int8))
    y = "x"
    for index in range(2):
        quantized = g.add("QuantizeLinear", y, scale, zero, name=f"q{index}")
        y = g.add("DequantizeLinear", quantized, scale, zero, name=f"dq{index}")
    g.output(y)
    with pytest.raises(ModelError) as caught:
        refuse_quantized(loaded(g.proto()), where="net.onnx")
    text = str(caught.value)
    assert "4 nodes (2 DequantizeLinear, 2 QuantizeLinear)" in text
    assert "'q0', 'dq0', 'q1', ... in net.onnx" in text
    assert "give the float model" in text


@pytest.mark.parametrize("op", ["ConvInteger", "MatMulInteger", "QLinearConv", "QLinearAdd"])
def test_integer_operators_are_refused(op: str) -> None:
    g = Graph()
    g.input("x", (2, 3), onnx.TensorProto.UINT8)
    domain = "com.microsoft" if op == "QLinearAdd" else ""
    scale = g.constant(0.1)
    scales = [scale, "x"] if op.startswith("QLinear") else []
    g.output(g.add(op, "x", *scales, "x", *scales, *scales, domain=domain), dtype=0)
    with pytest.raises(ModelError, match=f"1 nodes \\(1 {op}\\)"):
        refuse_quantized(loaded(g.proto()))


def test_float_networks_pass() -> None:
    refuse_quantized(loaded(conv_net()))
    refuse_quantized(loaded(branching_model()))
