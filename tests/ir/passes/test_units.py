"""Activations spelled out: which are fused, under which name, and which are left alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx
import pytest

from jptq.ir import HORIZON
from tests.graphs import Graph
from tests.ir.agreement import ops, optimized

Spelling = Callable[[Graph, str], str]


def clipped(g: Graph, x: str) -> str:
    return g.clip(g.add("Add", g.constant(3.0), x), 0.0, 6.0)


def sixth(g: Graph) -> str:
    return g.constant(1 / 6)


def erf_plus_one(g: Graph, x: str) -> str:
    return g.add("Add", g.add("Erf", g.add("Mul", x, g.constant(math.sqrt(0.5)))), g.constant(1.0))


def tanh_plus_one(g: Graph, x: str) -> str:
    square = g.add("Mul", g.add("Pow", x, g.constant(2.0)), g.constant(0.044715))
    bent = g.add("Mul", x, g.add("Add", g.constant(1.0), square))
    argument = g.add("Mul", g.constant(math.sqrt(2 / math.pi)), bent)
    return g.add("Add", g.constant(1.0), g.add("Tanh", argument))


def cubed_by_products(g: Graph, x: str) -> str:
    cube = g.add("Mul", g.add("Mul", x, x), x)
    bent = g.add("Add", g.add("Mul", cube, g.constant(0.044715)), x)
    tanh = g.add("Tanh", g.add("Mul", bent, g.constant(math.sqrt(2 / math.pi))))
    product = g.add("Mul", x, g.add("Add", tanh, g.constant(1.0)))
    return g.add("Mul", g.constant(0.5), product, name="last")


SPELLINGS: dict[str, tuple[str, Spelling]] = {
    "x * sigmoid(x)": ("HzSwish", lambda g, x: g.swish(x, name="last")),
    "sigmoid(x) * x": (
        "HzSwish",
        lambda g, x: g.add("Mul", g.add("Sigmoid", x), x, name="last"),
    ),
    "(x * clip) / 6": ("HzHardSwish", lambda g, x: g.hard_swish(x, name="last")),
    "x * (clip / 6)": (
        "HzHardSwish",
        lambda g, x: g.add("Mul", x, g.add("Div", clipped(g, x), g.constant(6.0)), name="last"),
    ),
    "(x / 6) * clip": (
        "HzHardSwish",
        lambda g, x: g.add("Mul", g.add("Div", x, g.constant(6.0)), clipped(g, x), name="last"),
    ),
    "(1/6 * clip) * x": (
        "HzHardSwish",
        lambda g, x: g.add("Mul", g.add("Mul", sixth(g), clipped(g, x)), x, name="last"),
    ),
    "(clip * x) * 1/6": (
        "HzHardSwish",
        lambda g, x: g.add("Mul", g.add("Mul", clipped(g, x), x), sixth(g), name="last"),
    ),
    "x * hardsigmoid": (
        "HzHardSwish",
        lambda g, x: g.add("Mul", x, g.add("HardSigmoid", x, alpha=1 / 6, beta=0.5), name="last"),
    ),
    "mish": ("HzMish", lambda g, x: g.mish(x, name="last")),
    "gelu, pytorch": ("HzGelu", lambda g, x: g.gelu(x, name="last")),
    "gelu, tensorflow": (
        "HzGelu",
        lambda g, x: g.add(
            "Mul", x, g.add("Mul", erf_plus_one(g, x), g.constant(0.5)), name="last"
        ),
    ),
    "gelu, half first": (
        "HzGelu",
        lambda g, x: g.add(
            "Mul", g.add("Mul", g.constant(0.5), x), erf_plus_one(g, x), name="last"
        ),
    ),
    "gelu by tanh, power": ("HzGelu", lambda g, x: g.gelu_tanh(x, name="last")),
    "gelu by tanh, factored": (
        "HzGelu",
        lambda g, x: g.add(
            "Mul", g.add("Mul", x, tanh_plus_one(g, x)), g.constant(0.5), name="last"
        ),
    ),
    "gelu by tanh, products": ("HzGelu", cubed_by_products),
    "clip / 6": (
        "HardSigmoid",
        lambda g, x: g.add("Div", clipped(g, x), g.constant(6.0), name="last"),
    ),
}


def graph_with(spelling: Spelling, opset: int = 17) -> Graph:
    """Return a graph in which a convolution feeds the activation."""
    g = Graph(opset)
    g.input("x", (2, 3, 5, 5))
    g.output(g.add("Abs", spelling(g, g.add("Neg", "x", name="source")), name="reader"))
    return g


@pytest.mark.parametrize("opset", [9, 11, 13, 20])
@pytest.mark.parametrize("text", SPELLINGS)
def test_a_spelling_becomes_one_unit_under_its_last_name(text: str, opset: int) -> None:
    op, spelling = SPELLINGS[text]
    model = optimized(graph_with(spelling, opset).proto())
    assert ops(model) == ["Neg", op, "Abs"]
    unit = model.by_name["last"]
    assert unit.inputs == ("source:0",)
    assert unit.domain == ("" if op == "HardSigmoid" else HORIZON)
    if op == "HzGelu":
        assert unit.attributes == {"approximate": "tanh" if "tanh" in text else "none"}


@pytest.mark.parametrize("text", SPELLINGS)
def test_nothing_is_fused_whose_inside_is_read(text: str) -> None:
    g = graph_with(SPELLINGS[text][1])
    inside = [node for node in g.nodes if node.name not in ("source", "last", "reader")]
    g.output(inside[-1].output[0])
    assert SPELLINGS[text][0] not in set(ops(optimized(g.proto()))) - {"HardSigmoid"}


@pytest.mark.parametrize(
    "spelling",
    [
        lambda g, x: g.add("Mul", x, g.add("Sigmoid", g.add("Mul", x, g.constant(1.702)))),
        lambda g, x: g.add("Div", g.add("Mul", x, clipped(g, x)), g.constant(6.001)),
        lambda g, x: g.add("Mul", x, g.add("HardSigmoid", x, alpha=0.2, beta=0.5)),
        lambda g, x: g.add("Mul", x, g.add("Tanh", g.add("Softplus", g.add("Abs", x)))),
        lambda g, x: g.add("Mul", g.add("Mul", x, erf_plus_one(g, x)), g.constant(0.6)),
        lambda g, x: g.add("Div", g.add("Sigmoid", x), x),
    ],
    ids=["quick gelu", "6.001", "slope 0.2", "other input", "0.6", "division"],
)
def test_what_only_looks_like_a_unit_stays(spelling: Spelling) -> None:
    found = ops(optimized(graph_with(spelling).proto()))
    assert not [op for op in found if op.startswith("Hz")]


def test_a_constant_that_widens_the_result_prevents_fusion() -> None:
    g = Graph()
    g.input("x", (3, 5))
    product = g.add("Mul", "x", clipped(g, "x"))
    g.output(g.add("Div", product, g.constant(np.full((1, 1, 1), 6, np.float32))))
    assert "HzHardSwish" not in ops(optimized(g.proto()))


def test_float64_is_left_alone() -> None:
    g = Graph()
    g.input("x", (3, 5), onnx.TensorProto.DOUBLE)
    g.output(g.swish("x"), dtype=onnx.TensorProto.DOUBLE)
    feeds = {"x": np.linspace(-3, 3, 15).reshape(3, 5)}
    assert ops(optimized(g.proto(), feeds=feeds)) == ["Sigmoid", "Mul"]


@pytest.mark.parametrize("reciprocal", [True, False])
@pytest.mark.parametrize("inverted", [0, 1])
def test_inverse_roots_are_fused(reciprocal: bool, inverted: int) -> None:
    def spelling(g: Graph, x: str) -> str:
        steps = [lambda y: g.add("Add", y, g.constant(0.25)), lambda y: g.add("Sqrt", y)]
        value = g.add("Abs", x)
        for step in steps[::-1] if inverted else steps:
            value = step(value)
        if reciprocal:
            return g.add("Reciprocal", value, name="last")
        return g.add("Div", g.constant(1.0), value, name="last")

    model = optimized(graph_with(spelling).proto())
    assert ops(model) == ["Neg", "Abs", "HzRsqrt", "Abs"]
    attributes = {"epsilon": 0.25, "is_sqrt_add_reciprocal": inverted}
    assert model.by_name["last"].attributes == attributes


def test_an_inverse_root_without_epsilon_is_fused() -> None:
    def spelling(g: Graph, x: str) -> str:
        return g.add("Reciprocal", g.add("Sqrt", g.add("Exp", x)), name="last")

    model = optimized(graph_with(spelling).proto())
    assert model.by_name["last"].attributes["epsilon"] == 0.0


def test_a_decomposed_layer_norm_stays_a_chain() -> None:
    g = Graph()
    g.input("x", (2, 7, 16))
    g.output(g.layer_norm("x", 16))
    expected = ["ReduceMean", "Sub", "Pow", "ReduceMean", "Add", "Sqrt", "Div", "Mul", "Add"]
    assert ops(optimized(g.proto())) == expected


def test_chained_units_are_all_fused() -> None:
    def spelling(g: Graph, x: str) -> str:
        return g.swish(g.hard_swish(g.swish(x, name="a"), name="b"), name="last")

    model = optimized(graph_with(spelling).proto())
    assert [node.name for node in model.nodes] == ["source", "a", "b", "last", "reader"]
