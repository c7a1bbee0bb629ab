"""Every vendor unit written out, against its formula in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from scipy import special

from jptq.errors import UnsupportedOpError
from jptq.ir import expand_units, to_bytes
from tests.graphs import Graph
from tests.ir.agreement import loaded
from tests.oracles import relative_error, run_onnx

X = np.random.default_rng(3).uniform(-4, 4, (2, 3, 5)).astype(np.float32)
Formula = Callable[[np.ndarray], np.ndarray]


def layer_norm(x: np.ndarray) -> np.ndarray:
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-3)


UNITS: dict[str, tuple[str, dict[str, object], Formula]] = {
    "swish": ("HzSwish", {}, lambda x: x * special.expit(x)),
    "hardswish": ("HzHardSwish", {}, lambda x: x * np.clip(x + 3, 0, 6) / 6),
    "mish": ("HzMish", {}, lambda x: x * np.tanh(np.log1p(np.exp(x)))),
    "gelu": (
        "HzGelu",
        {"approximate": "none"},
        lambda x: x * (1 + special.erf(x / math.sqrt(2))) / 2,
    ),
    "gelu by tanh": (
        "HzGelu",
        {"approximate": "tanh"},
        lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    ),
    "softmax": ("HzSoftmax", {}, lambda x: special.softmax(x, -1)),
    "softmax over axis 1": ("HzSoftmax", {"axis": 1}, lambda x: special.softmax(x, 1)),
    "requantize": ("HzRequantize", {}, lambda x: x),
    "relux": ("HzReluX", {"clip_value": 2.5}, lambda x: np.clip(x, 0, 2.5)),
    "pad": (
        "HzPad",
        {"pads": [0, 1, 2, 0, 0, 1], "mode": "edge"},
        lambda x: np.pad(x, ((0, 0), (1, 0), (2, 1)), "edge"),
    ),
    "layer norm": ("HzLayerNorm", {"epsilon": 1e-3}, layer_norm),
}


def unit(op: str, attributes: dict[str, object], opset: int, *more: str) -> onnx.ModelProto:
    g = Graph(opset)
    g.input("x", X.shape)
    g.output(g.add(op, "x", *more, name="unit", domain="horizon", **attributes))
    return g.proto()


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 20])
@pytest.mark.parametrize("text", UNITS)
def test_a_unit_computes_its_formula(text: str, opset: int) -> None:
    op, attributes, formula = UNITS[text]
    g = Graph(opset)
    g.input("x", X.shape)
    more = ()
    if op == "HzLayerNorm":
        more = (g.constant(np.full(5, 2, np.float32)), g.constant(np.full(5, 1, np.float32)))
    g.output(g.add(op, "x", *more, name="unit", domain="horizon", **attributes))
    expanded = expand_units(loaded(g.proto()))
    assert all(node.domain == "" for node in expanded.nodes)
    assert expanded.nodes[-1].name == "unit"
    assert all(node.name.startswith("unit/") for node in expanded.nodes[:-1])
    expected = formula(X.astype(np.float64))
    if more:
        expected = expected * 2 + 1
    (found,) = run_onnx(to_bytes(expanded), {"x": X}).values()
    assert relative_error(found, expected) < 1e-6


@pytest.mark.parametrize("inverted", [0, 1])
def test_an_inverse_root_adds_epsilon_where_it_says(inverted: int) -> None:
    attributes = {"epsilon": 0.5, "is_sqrt_add_reciprocal": inverted}
    expanded = expand_units(loaded(unit("HzRsqrt", attributes, 13)))
    x = np.abs(X)
    expected = 1 / (np.sqrt(x) + 0.5) if inverted else 1 / np.sqrt(x + 0.5)
    (found,) = run_onnx(to_bytes(expanded), {"x": x}).values()
    assert relative_error(found, expected) < 1e-6


def test_quantizers_and_other_vendor_operators_stay() -> None:
    model = loaded(unit("HzCalibration", {"qtype": "int8", "thresholds": [1.0]}, 13))
    assert expand_units(model).nodes == model.nodes


def test_a_layer_norm_of_unknown_rank_is_refused_before_opset_17() -> None:
    with pytest.raises(UnsupportedOpError, match="HzLayerNorm") as caught:
        expand_units(loaded(unit("HzLayerNorm", {"axis": 1}, 13)))
    assert "'unit'" in caught.value.where
