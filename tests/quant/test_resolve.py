from __future__ import annotations

import logging

import pytest

from jptq.errors import ConfigError, UnknownNameError
from jptq.ir import optimize
from jptq.quant.calibrated import plan_of
from jptq.quant.compensate import compensate, compensations
from jptq.quant.config import load_config
from jptq.quant.placement import place
from jptq.quant.resolve import resolve
from tests.graphs import Graph
from tests.quant.networks import TARGET, branches, float_model
from tests.quant.planned import network


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


@pytest.mark.seed("E1")
def test_all_int16_leaves_second_operands_and_resize_at_int8() -> None:
    found = types({"model_config": {"all_node_type": "int16"}})
    assert input_type(found, "scores", 0) == "int16"
    assert input_type(found, "scores", 1) == "int8"
    assert input_type(found, "query", 1) == "int8"
    assert found["end:0"] == "int16"
    found = types({"model_config": {"all_node_type": "int16"}}, "branches")
    assert input_type(found, "resize", 0, "branches") == "int8"
    assert input_type(found, "head", 0, "branches") == "int16"


@pytest.mark.seed("E3", "E4")
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


@pytest.mark.seed("E4")
def test_a_subgraph_holds_both_ends_and_what_lies_between() -> None:
    entry = {"inputs": ["scores"], "outputs": ["mixed"], "qtype": "int16"}
    found = types({"subgraph_config": {"s": entry}})
    for node in ("scores", "scaled", "mixed"):
        assert input_type(found, node, 0) == "int16"
    assert input_type(found, "end", 0) == "int8"


@pytest.mark.seed("E3")
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


@pytest.mark.parametrize("entry", [{"qtype": "dual-int16"}, {"input0": "int16", "input1": "int16"}])
def test_dual_int16_raises_the_second_operand(entry: dict[str, str]) -> None:
    found = types({"node_config": {"scores": entry}})
    assert input_type(found, "scores", 0) == input_type(found, "scores", 1) == "int16"
    found = types({"op_config": {"MatMul": {"qtype": "dual-int16"}}})
    assert all(input_type(found, n, 1) == "int16" for n in ("query", "scores", "mixed"))


def test_float32_is_taken_everywhere() -> None:
    assert set(types({"model_config": {"all_node_type": "float32"}}).values()) == {"float32"}


def test_float16_reaches_what_the_vector_unit_reads_alone() -> None:
    found = types({"node_config": {"end": {"qtype": "float16"}}})
    assert {tensor for tensor, qtype in found.items() if qtype == "float16"} == {
        "residual:0",
        "end:0",
    }
    found = types({"model_config": {"all_node_type": "float16"}})
    assert input_type(found, "scaled", 0) == "float16"
    assert (input_type(found, "scores", 0), input_type(found, "scores", 1)) == ("int16", "int8")
    # Products read it too.
    assert found["x"] == "int16"


def test_of_int16_and_float16_the_finer_one_is_float16() -> None:
    content = {"node_config": {"scaled": {"OutputType": "int16"}}, "op_config": {}}
    content["op_config"] = {"Softmax": {"qtype": "float16"}}
    assert types(content)["scaled:0"] == "float16"


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
        {"node_config": {"end": {"qtype": "int16-ec"}}},
        {"op_config": {"Softmax": {"qtype": "int16-ec"}}},
    ],
)
def test_only_products_can_be_dual_or_compensated(content: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"Softmax has no (dual-int16|int16-ec)"):
        types(content)


def test_an_operator_type_that_is_not_there_only_warns(caplog) -> None:
    assert set(types({"op_config": {"softmax": {"qtype": "int16"}}}).values()) == {"int8"}
    assert "softmax" in caplog.text


def test_a_node_on_the_cpu_is_float32() -> None:
    found = types({"node_config": {"end": {"ON": "CPU"}}})
    assert input_type(found, "end", 0) == "float32"


def test_an_output_type_of_the_older_form_is_that_of_the_tensor() -> None:
    found = types({"node_config": {"scaled": {"OutputType": "int16"}}})
    assert input_type(found, "scaled", 0) == "int8"
    _, plan = network("attention")
    name = next(c.tensor for c in plan.calibrations if c.tensor == "scaled:0")
    assert found[name] == "int16"
    assert types({"op_config": {"Mul": {"OutputType": "int16"}}}) == found


def test_int16_ec_is_int16_and_ec() -> None:
    spelled = {"node_config": {"head": {"input0": "int16", "input1": "ec"}}}
    short = {"node_config": {"head": {"qtype": "int16-ec"}}}
    found = types(short, "compensated")
    assert found == types(spelled, "compensated")
    assert input_type(found, "head", 0, "compensated") == "int16"
    assert input_type(found, "head", 1, "compensated") == "int8"


@pytest.mark.seed("D6", "D7", "E7")
def test_both_operators_of_a_split_one_are_addressable() -> None:
    content = {"node_config": {"head": {"input1": "ec"}, "head_split_low": {"qtype": "int16"}}}
    found = types(content, "compensated")
    # They read the same features: one of them asks, both get it.
    assert input_type(found, "head", 0, "compensated") == "int16"
    assert input_type(found, "head_split_low", 0, "compensated") == "int16"
    assert input_type(found, "head_split_low", 1, "compensated") == "int8"


def test_a_split_operator_that_no_ec_makes_is_refused_with_what_would_make_it() -> None:
    with pytest.raises(ConfigError, match="unknown node 'head_split_low'") as caught:
        types({"node_config": {"head_split_low": {"qtype": "int16"}}}, "branches")
    assert '"head": {"input1": "ec"}' in caught.value.hint


@pytest.mark.seed("E7")
def test_a_node_that_optimisation_made_is_addressable() -> None:
    g = Graph()
    x = g.input("x", (1, 4, 6, 6))
    joined = g.add("Concat", g.conv(x, 4, 4), x, axis=1)
    g.output(g.add("Sigmoid", g.batch_norm(joined, 8, name="BatchNormalization_141")))
    graph = optimize(float_model(g), input_shapes={})
    name = "UNIT_CONV_FOR_BatchNormalization_141"
    assert name in graph.by_name
    floats = {*graph.input_names, *graph.initializers, *graph.producers}
    model = place(graph, TARGET, floats=floats)
    plan = plan_of(model, TARGET)
    config = load_config({"node_config": {name: {"qtype": "int16"}}})
    found = resolve(config, model, plan, TARGET)
    assert found[plan.by_node[name].inputs[0]] == "int16"
    assert found[plan.by_node[name].inputs[1]] == "int8"


def test_int16_ec_of_an_operator_type_is_for_its_nodes_that_nothing_else_names() -> None:
    model = float_model(branches())
    content = {
        "op_config": {"Conv": {"qtype": "int16-ec"}},
        "node_config": {"stem": {"qtype": "int16"}},
        "subgraph_config": {"s": {"inputs": ["head"], "outputs": ["head"], "qtype": "int8"}},
    }
    assert compensations(load_config(content), model, TARGET) == {"body": 1}
    del content["subgraph_config"]
    asked = compensations(load_config(content), model, TARGET)
    assert asked == {"body": 1, "head": 1}
    split = compensate(model, asked, TARGET)
    # The halves are of that type too; they are not split again.
    assert compensations(load_config(content), split, TARGET) == asked


def test_int16_ec_of_an_operator_type_is_int16_and_ec_of_its_nodes() -> None:
    short = {"op_config": {"Conv": {"qtype": "int16-ec"}}}
    short["node_config"] = {"stem": {"qtype": "int16"}, "body": {"qtype": "int16"}}
    short["node_config"]["resize"] = {"input0": "ec"}
    spelled = {"op_config": {"Conv": {"qtype": "int16"}}}
    spelled["node_config"] = {"head": {"input1": "ec"}, "resize": {"input0": "ec"}}
    assert types(short, "compensated") == types(spelled, "compensated")


def test_ec_that_a_calibrated_model_does_not_have_is_refused_with_what_to_do() -> None:
    for content in (
        {"node_config": {"head": {"input1": "ec"}}},
        {"node_config": {"head": {"qtype": "int16-ec"}}},
        {"op_config": {"Conv": {"qtype": "int16-ec"}}},
    ):
        with pytest.raises(ConfigError, match="cannot be built into a calibrated") as caught:
            types(content, "branches")
        assert "give the float model" in caught.value.hint
    types({"node_config": {"head": {"input1": "ec"}}}, "compensated")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"input1": "ec"}, "input1 of Resize takes no ec"),
        ({"qtype": "int16-ec"}, "Resize has no int16-ec"),
    ],
)
def test_ec_is_refused_where_nothing_can_be_compensated(
    entry: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        types({"node_config": {"resize": entry}}, "branches")


def test_unmatched_names_can_be_warned_of_instead(caplog: pytest.LogCaptureFixture) -> None:
    content = {
        "node_config": {
            "score": {"qtype": "int16"},
            "scores": {"input0": "int16", "input7": "int16"},
        },
        "subgraph_config": {"s": {"inputs": ["query"], "outputs": ["nowhere"], "qtype": "int16"}},
    }
    model, plan = network("attention")
    found = resolve(load_config(content, unmatched="warn"), model, plan, TARGET)
    assert found[plan.by_node["scores"].inputs[0]] == "int16"
    assert found["x_HzCalibration"] == "int8"
    for words in ("'score' is ignored; did you mean 'scores'", "no input 7", "'nowhere'"):
        assert words in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "branches",
            {"model_config": {"all_node_type": "int16"}},
            "int16 of all_node_type does not reach stem input1: input1 of Conv accepts int8 only",
        ),
        (
            "branches",
            {"node_config": {"stem": {"input1": "int16"}}},
            "is not applied to stem input1: input1 of Conv accepts int8 only (ec or dual-int16",
        ),
        (
            "branches",
            {"node_config": {"resize": {"qtype": "int16"}}},
            "int16 of node_config.resize.qtype is not applied to resize input0",
        ),
        (
            "attention",
            {"node_config": {"query": {"qtype": "int8"}, "key": {"qtype": "int16"}}},
            "int8 of node_config.query.qtype is not applied to query input0: shared with key",
        ),
        (
            "attention",
            {"node_config": {"scores": {"input0": "float16"}}},
            "is not applied to scores input0: input0 of MatMul accepts int8 and int16 only",
        ),
        (
            "branches",
            {"node_config": {"stem": {"input2": "int16"}}},
            "is not applied to stem input2: this input has no quantizer",
        ),
        (
            "branches",
            {"node_config": {"stem_relu": {"qtype": "int16"}}},
            "is not applied to stem_relu: no quantizer stands before it",
        ),
    ],
)
def test_what_is_not_applied_is_said_once(
    caplog: pytest.LogCaptureFixture, name: str, content: dict[str, object], message: str
) -> None:
    types(content, name)
    records = [record.getMessage() for record in caplog.records]
    assert [text for text in records if message in text] == records[:1]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_what_is_applied_is_not_talked_about(caplog: pytest.LogCaptureFixture) -> None:
    types({"node_config": {"scaled": {"qtype": "int16"}}})
    assert not caplog.records
