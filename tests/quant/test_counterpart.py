from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from jptq.ir.model import Model
from jptq.quant.config import load_config
from jptq.quant.counterpart import missing
from tests.quant.networks import TARGET, branches, float_model


def renamed(model: Model, names: Mapping[str, str]) -> Model:
    """Return the model with other names of nodes."""
    nodes = [dataclasses.replace(n, name=names.get(n.name, n.name)) for n in model.nodes]
    return dataclasses.replace(model, nodes=tuple(nodes))


@pytest.fixture(scope="module")
def ours() -> Model:
    return float_model(branches())


def test_nothing_is_missing_from_the_graph_itself(ours: Model) -> None:
    content = {
        "node_config": {"head": {"input1": "ec"}, "head_split_low": {"qtype": "int16"}},
        "subgraph_config": {"s": {"inputs": ["stem"], "outputs": ["concat"], "qtype": "int16"}},
    }
    assert missing(load_config(content), ours, TARGET, ours) == ()


def test_a_renamed_node_is_found_by_its_surroundings(ours: Model) -> None:
    theirs = renamed(ours, {"stem": "Conv_0", "body": "Conv_1", "head": "Conv_2", "gate": "g"})
    content = {"node_config": {name: {"qtype": "int16"} for name in ("stem", "head", "gate")}}
    found = {one.name: one for one in missing(load_config(content), theirs, TARGET, ours)}
    counterparts = {name: one.counterpart for name, one in found.items()}
    assert counterparts == {"stem": "Conv_0", "head": "Conv_2", "gate": "g"}
    # The two convolutions of equal shape differ in what stands around them.
    assert "same type Conv" in found["stem"].why
    assert "same constants 4x4x3x3 4" in found["stem"].why
    assert "before Relu" in found["stem"].why


def test_without_our_graph_the_name_tells(ours: Model) -> None:
    theirs = renamed(ours, {"stem": "/backbone/stem/Conv", "gate": "/head/Sigmoid_1"})
    content = {"node_config": {"/backbone/stem.0/Conv": {"qtype": "int16"}}}
    (found,) = missing(load_config(content), theirs, TARGET)
    assert (found.counterpart, found.where) == ("/backbone/stem/Conv", "node_config")
    assert found.why == "like name, same type Conv"


def test_ends_of_subgraphs_are_looked_up(ours: Model) -> None:
    entry = {"inputs": ["stam"], "outputs": ["concat"], "qtype": "int16"}
    (found,) = missing(load_config({"subgraph_config": {"s": entry}}), ours, TARGET)
    assert (found.name, found.counterpart, found.where) == ("stam", "stem", "subgraph_config.s")


def test_nothing_is_named_where_nothing_is_alike(ours: Model) -> None:
    content = {"node_config": {"/blocks.17/attention/MatMul": {"qtype": "int16"}}}
    (found,) = missing(load_config(content), ours, TARGET)
    assert found.counterpart is None


def test_a_split_operator_without_ec_is_missing(ours: Model) -> None:
    content = {"node_config": {"head_split_low": {"qtype": "int16"}}}
    assert [one.name for one in missing(load_config(content), ours, TARGET)] == ["head_split_low"]


def test_a_split_operator_of_a_type_that_is_compensated_is_there(ours: Model) -> None:
    content = {
        "op_config": {"Conv": {"qtype": "int16-ec"}},
        "node_config": {"head_split_low": {"qtype": "int16"}},
    }
    assert missing(load_config(content), ours, TARGET) == ()
