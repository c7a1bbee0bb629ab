from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jptq.errors import ConfigError
from jptq.ir.paths import between
from jptq.numerics.qtypes import QTYPES
from jptq.quant.assign import promote, uniform
from jptq.quant.calibrated import assignment_of, with_assignment
from jptq.quant.config import Activation, load_config
from jptq.quant.emit import quant_config
from jptq.quant.explain import REFUSED
from jptq.quant.resolve import explain, resolve
from tests.quant.networks import TARGET
from tests.quant.planned import NAMES, network

SPLITS = {"head": {"input1": "ec"}, "resize": {"input0": "ec"}}
"""What the compensated network is made by."""


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_an_emitted_config_gives_the_assignment_back(name: str, data: st.DataObject) -> None:
    model, plan = network(name)
    assignment = uniform(plan, data.draw(st.sampled_from(list(QTYPES))))
    duals = TARGET.operands.dual_ops
    for slots in data.draw(st.lists(st.sampled_from(plan.slots), unique_by=lambda s: s.node)):
        kinds = ["int16", "float16", "float32", *(["dual-int16"] if slots.op in duals else [])]
        assignment = promote(assignment, plan, {slots.node: data.draw(st.sampled_from(kinds))})
    for node, entry in SPLITS.items() if name == "compensated" else ():
        index = int(next(iter(entry)).removeprefix("input"))
        assignment[plan.by_node[node].inputs[index]] = "int8"
    content = quant_config(model, plan, TARGET, assignment)
    config = load_config(content)
    assert resolve(config, model, plan, TARGET) == assignment
    refused = [one for one in explain(config, model, plan, TARGET) if one.status == REFUSED]
    assert not refused


@st.composite
def configurations(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """Return a configuration that names nodes on every level."""
    model, plan = network(name)
    types = st.sampled_from(list(QTYPES))
    nodes = sorted(plan.by_node)
    content: dict[str, Any] = {"model_config": {"all_node_type": draw(types)}}
    if draw(st.booleans()):
        content["model_config"]["model_output_type"] = draw(types)
    ops = st.sampled_from(sorted({slots.op for slots in plan.slots}))
    content["op_config"] = draw(st.dictionaries(ops, st.fixed_dictionaries({"qtype": types})))
    ends = draw(st.lists(st.tuples(st.sampled_from(nodes), st.sampled_from(nodes)), max_size=2))
    content["subgraph_config"] = {
        f"s{i}": {"inputs": [first], "outputs": [last], "qtype": draw(types)}
        for i, (first, last) in enumerate(ends)
        if between(model, [first], [last])
    }
    entries = {}
    for node in draw(st.lists(st.sampled_from(nodes), unique=True)):
        entry = {f"input{i}": draw(types) for i in plan.by_node[node].inputs if draw(st.booleans())}
        if draw(st.booleans()) or not entry:
            entry["qtype"] = draw(types)
        if draw(st.booleans()):
            entry["OutputType"] = draw(types)
        entries[node] = entry
    if name == "compensated":
        for node, split in SPLITS.items():
            entries[node] = {**entries.get(node, {}), **split}
    content["node_config"] = entries
    return content


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_config_extracted_from_the_calibrated_model_is_the_same_decision(
    name: str, data: st.DataObject
) -> None:
    model, plan = network(name)
    asked = load_config(data.draw(configurations(name)))
    decided = resolve(asked, model, plan, TARGET, report=False)
    calibrated = with_assignment(model, decided)
    assert assignment_of(calibrated) == decided
    extracted = load_config(quant_config(calibrated, plan, TARGET, assignment_of(calibrated)))
    assert resolve(extracted, model, plan, TARGET, report=False) == decided
    assert set(extracted.compensations()) == set(asked.compensations())


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


@pytest.mark.seed("D4")
def test_a_split_operator_is_emitted_as_ec() -> None:
    model, plan = network("compensated")
    assert quant_config(model, plan, TARGET, uniform(plan, "int8"))["node_config"] == SPLITS


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
