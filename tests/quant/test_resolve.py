from __future__ import annotations

import functools
import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jptq.errors import ConfigError, UnknownNameError
from jptq.ir.model import Model
from jptq.quant.assign import promote, uniform
from jptq.quant.calibrated import plan_of
from jptq.quant.config import Activation, load_config
from jptq.quant.emit import quant_config
from jptq.quant.plan import Plan
from jptq.quant.resolve import resolve
from tests.quant.networks import TARGET, attention, branches, placed


@functools.cache
def network(name: str) -> tuple[Model, Plan]:
    model = placed({"attention": attention, "branches": branches}[name]())
    return model, plan_of(model, TARGET)


def types(content: dict[str, object], name: str = "attention") -> dict[str, str]:
    """Return the resolved types by tensor."""
    model, plan = network(name)
    found = resolve(load_config(content), model, plan, TARGET)
    assert list(found) == [c.name for c in plan.calibrations]
    return {name.removesuffix("_HzCalibration"): qtype for name, qtype in found.items()}


def input_type(found: dict[str, str], node: str, index: int, name: str = "attention") -> str:
    _, plan = network(name)
    return found[plan.by_node[node].inputs[index].removesuffix("_HzCalibration")]


def test_without_a_config_everything_is_int8() -> None:
    assert set(types({}).values()) == {"int8"}


def test_all_int16_leaves_second_operands_and_resize_at_int8() -> None:
    found = types({"model_config": {"all_node_type": "int16"}})
    assert input_type(found, "scores", 0) == "int16"
    assert input_type(found, "scores", 1) == "int8"
    assert input_type(found, "query", 1) == "int8"
    assert found["end:0"] == "int16"
    found = types({"model_config": {"all_node_type": "int16"}}, "branches")
    assert input_type(found, "resize", 0, "branches") == "int8"
    assert input_type(found, "head", 0, "branches") == "int16"


def test_the_more_particular_level_wins() -> None:
    levels = {
        "model_config": {"all_node_type": "int16"},
        "op_config": {"Softmax": {"qtype": "int8"}},
        "subgraph_config": {"s": {"inputs": ["end"], "outputs": ["end"], "qtype": "int16"}},
        "node_config": {"end": {"qtype": "int8"}},
    }
    wanted = ["int16", "int8", "int16", "int8"]
    keys = list(levels)
    for count, expected in enumerate(wanted, start=1):
        found = types({key: levels[key] for key in keys[:count]})
        assert input_type(found, "end", 0) == expected


def test_a_subgraph_holds_both_ends_and_what_lies_between() -> None:
    entry = {"inputs": ["scores"], "outputs": ["mixed"], "qtype": "int16"}
    found = types({"subgraph_config": {"s": entry}})
    for node in ("scores", "scaled", "mixed"):
        assert input_type(found, node, 0) == "int16"
    assert input_type(found, "end", 0) == "int8"


def test_one_input_can_be_named() -> None:
    found = types({"node_config": {"residual": {"qtype": "int16", "input0": "int8"}}})
    _, plan = network("attention")
    assert 0 in plan.by_node["residual"].inputs
    assert input_type(found, "residual", 0) == "int8"


def test_a_named_reader_of_a_shared_quantizer_beats_the_default() -> None:
    content = {
        "model_config": {"all_node_type": "int16"},
        "node_config": {"query": {"input0": "int8"}},
    }
    assert types(content)["x"] == "int8"


def test_of_two_named_readers_the_finer_type_wins() -> None:
    content = {"node_config": {"query": {"qtype": "int8"}, "key": {"qtype": "int16"}}}
    assert types(content)["x"] == "int16"


def test_dual_int16_raises_the_second_operand() -> None:
    found = types({"node_config": {"scores": {"qtype": "dual-int16"}}})
    assert input_type(found, "scores", 0) == input_type(found, "scores", 1) == "int16"
    found = types({"op_config": {"MatMul": {"qtype": "dual-int16"}}})
    assert all(input_type(found, n, 1) == "int16" for n in ("query", "scores", "mixed"))


def test_float32_is_taken_everywhere() -> None:
    assert set(types({"model_config": {"all_node_type": "float32"}}).values()) == {"float32"}


def test_the_output_type_is_the_model_outputs_unless_the_node_is_named() -> None:
    content: dict[str, object] = {"model_config": {"model_output_type": "int16"}}
    assert types(content)["end:0"] == "int16"
    content["node_config"] = {"end": {"qtype": "int8"}}
    assert types(content)["end:0"] == "int8"


def test_an_unknown_node_is_refused_with_near_names() -> None:
    with pytest.raises(UnknownNameError) as caught:
        types({"node_config": {"score": {"qtype": "int16"}}})
    assert "'scores'" in caught.value.hint
    with pytest.raises(UnknownNameError, match="node 'nowhere'"):
        types(
            {"subgraph_config": {"s": {"inputs": ["nowhere"], "outputs": ["end"], "qtype": "int8"}}}
        )


def test_a_subgraph_without_a_path_is_refused() -> None:
    entry = {"inputs": ["end"], "outputs": ["query"], "qtype": "int16"}
    with pytest.raises(ConfigError, match="no path leads"):
        types({"subgraph_config": {"s": entry}})


def test_an_input_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="no input 2"):
        types({"node_config": {"scores": {"input2": "int16"}}})


@pytest.mark.parametrize(
    "content",
    [
        {"node_config": {"end": {"qtype": "dual-int16"}}},
        {"op_config": {"Softmax": {"qtype": "dual-int16"}}},
    ],
)
def test_only_products_can_be_dual(content: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="Softmax has no dual-int16"):
        types(content)


def test_an_operator_type_that_is_not_there_only_warns(caplog) -> None:
    assert set(types({"op_config": {"softmax": {"qtype": "int16"}}}).values()) == {"int8"}
    assert "softmax" in caplog.text


@pytest.mark.parametrize("name", ["attention", "branches"])
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_an_emitted_config_gives_the_assignment_back(name: str, data: st.DataObject) -> None:
    model, plan = network(name)
    assignment = uniform(plan, data.draw(st.sampled_from(["int8", "int16", "float32"])))
    duals = TARGET.operands.dual_ops
    for slots in data.draw(st.lists(st.sampled_from(plan.slots), unique_by=lambda s: s.node)):
        kinds = ["int16", "float32", *(["dual-int16"] if slots.op in duals else [])]
        assignment = promote(assignment, plan, {slots.node: data.draw(st.sampled_from(kinds))})
    content = quant_config(model, plan, TARGET, assignment)
    assert resolve(load_config(content), model, plan, TARGET) == assignment


def test_every_pair_of_raised_nodes_can_be_emitted() -> None:
    model, plan = network("branches")
    for first, second in itertools.combinations(plan.by_node, 2):
        wanted = promote(uniform(plan, "int8"), plan, {first: "int16", second: "int16"})
        content = quant_config(model, plan, TARGET, wanted)
        assert resolve(load_config(content), model, plan, TARGET) == wanted


def test_an_emitted_config_is_short_and_keeps_the_calibration_settings() -> None:
    model, plan = network("attention")
    activation = Activation(calibration_type=("max",), max_percentile=(0.99995,))
    settings_ = {"calibration_type": "max", "max_percentile": 0.99995}
    content = quant_config(model, plan, TARGET, uniform(plan, "int16"), activation=activation)
    assert content == {"model_config": {"all_node_type": "int16", "activation": settings_}}
    raised = promote(uniform(plan, "int8"), plan, {"scaled": "int16"})
    assert quant_config(model, plan, TARGET, raised) == {
        "node_config": {"scaled": {"qtype": "int16"}}
    }


def test_every_reader_of_a_raised_quantizer_is_named() -> None:
    model, plan = network("attention")
    raised = promote(uniform(plan, "int8"), plan, {"query": "int16"})
    nodes = quant_config(model, plan, TARGET, raised)["node_config"]
    readers = plan.owners["x_HzCalibration"]
    assert set(nodes) == set(readers)
    assert nodes["residual"] == {"input0": "int16"}


def test_a_weight_can_be_finer_than_its_feature() -> None:
    model, plan = network("attention")
    weight = plan.by_node["query"].inputs[1]
    assert quant_config(model, plan, TARGET, {**uniform(plan, "int8"), weight: "int16"}) == {
        "node_config": {"query": {"qtype": "dual-int16", "input0": "int8"}}
    }


def test_what_no_config_can_say_is_refused() -> None:
    model, plan = network("branches")
    name = plan.by_node["resize"].inputs[0]
    with pytest.raises(ConfigError, match="no quant_config") as caught:
        quant_config(model, plan, TARGET, {**uniform(plan, "int8"), name: "int16"})
    assert name in caught.value.where
