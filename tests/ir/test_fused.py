"""A name of the file that the optimized graph has no more leads to the node that took it up."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest

from jptq import ir
from jptq.errors import ConfigError, UnknownNameError
from jptq.ir.fused import FUSED, fused_into, unknown_node
from jptq.ir.model import Model
from tests.graphs import Graph


@pytest.fixture(scope="module")
def optimized() -> Model:
    """Conv -> BatchNormalization -> Swish -> Identity -> Dropout -> Conv, and a lone norm."""
    g = Graph()
    x = g.input("x", (1, 4, 8, 8))
    norm = [g.constant(np.full(4, value, np.float32)) for value in (1.5, 0.1, 0.2, 0.9)]
    y = g.add("BatchNormalization", g.conv(x, 4, 4, name="conv"), *norm, name="norm")
    y = g.add("Mul", y, g.add("Sigmoid", y, name="gate"), name="swish")
    y = g.add("Dropout", g.add("Identity", y, name="same"), name="drop")
    alone = g.add("BatchNormalization", x, *norm, name="alone")
    g.output(g.conv(y, 4, 4, name="last"), g.add("Identity", alone, name="end"))
    return ir.optimize(ir.from_bytes(g.proto().SerializeToString()), input_shapes={})


def test_every_node_that_is_gone_is_part_of_one_that_is_there(optimized: Model) -> None:
    lone = "UNIT_CONV_FOR_alone"
    assert {node.name for node in optimized.nodes} == {"conv", "swish", "last", lone}
    assert fused_into(optimized) == {
        "norm": "conv",
        "gate": "swish",
        "same": "swish",
        "drop": "swish",
        "alone": lone,
        "end": lone,
    }


def test_the_note_is_written_to_the_file(optimized: Model) -> None:
    assert fused_into(ir.from_bytes(ir.to_bytes(optimized))) == fused_into(optimized)
    again = ir.optimize(optimized, input_shapes={})
    assert fused_into(again) == fused_into(optimized)
    assert onnx.load_from_string(ir.to_bytes(optimized)).metadata_props[0].key == FUSED


def test_an_error_says_what_a_node_is_fused_into(optimized: Model) -> None:
    error = unknown_node("gate", optimized, where="c.json")
    assert error.what == "node 'gate' is fused into 'swish'"
    assert "HzSwish" in error.why
    assert "'swish'" in error.hint
    other = unknown_node("gates", optimized, known=["gate_2"])
    assert isinstance(other, UnknownNameError)
    assert "'gate_2'" in other.hint


@pytest.mark.parametrize("text", ["{", "[1]", '{"gate": 1}', '{"gate": "absent"}'])
def test_notes_of_other_programs_are_not_believed(optimized: Model, text: str) -> None:
    spoilt = dataclasses.replace(optimized, metadata={FUSED: text})
    assert isinstance(unknown_node("gate", spoilt), UnknownNameError)


def test_a_network_that_loses_nothing_says_nothing() -> None:
    g = Graph()
    g.output(g.conv(g.input("x", (1, 4, 8, 8)), 4, 4, name="conv"))
    model = ir.optimize(ir.from_bytes(g.proto().SerializeToString()), input_shapes={})
    assert FUSED not in model.metadata
    assert isinstance(unknown_node("x", model), ConfigError)
