"""Element types by schema, through subgraphs and past vendor operators."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from jptq.ir.element_types import element_types
from tests.graphs import Graph
from tests.ir.agreement import loaded


def _types(g: Graph) -> dict[str, np.dtype | None]:
    """Return the types of the outputs of a graph's nodes, by node."""
    model = loaded(g.proto())
    known = element_types(model, {})
    return {node.name: known[node.outputs[0]] for node in model.nodes}


def test_operators_hand_on_the_type_of_the_input_that_shares_it() -> None:
    g = Graph(17)
    g.input("x", (2, 3))
    half = g.add("Cast", "x", to=onnx.TensorProto.FLOAT16, name="half")
    unit = g.add("HzSwish", half, domain="horizon", name="unit")
    flag = g.add("Greater", unit, half, name="flag")
    chosen = g.add("Where", flag, unit, half, name="chosen")
    g.add("ArgMax", chosen, name="place")
    g.add("ConstantOfShape", g.add("Shape", chosen, name="shape"), name="zeros")
    g.add("Swirl", chosen, name="unheard")
    g.output(chosen, dtype=onnx.TensorProto.FLOAT16)
    assert _types(g) == {
        "half": np.float16,
        "unit": np.float16,
        "flag": np.bool_,
        "chosen": np.float16,
        "place": np.int64,
        "shape": np.int64,
        "zeros": np.float32,
        "unheard": None,
    }


def test_a_branch_says_what_an_if_gives() -> None:
    def branch(name: str) -> onnx.GraphProto:
        result = helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, None)
        node = helper.make_node("Cast", ["x"], [name], to=onnx.TensorProto.DOUBLE)
        return helper.make_graph([node], name, [], [result])

    g = Graph(17)
    g.input("x", (2, 3))
    flag = g.constant(np.array(True))
    result = g.add("If", flag, then_branch=branch("a"), else_branch=branch("b"), name="choice")
    g.output(g.add("Relu", result, name="after"), dtype=onnx.TensorProto.DOUBLE)
    assert _types(g) == {"choice": np.float64, "after": np.float64}
