from __future__ import annotations

import numpy as np
import pytest

from jptq.quant.calibrated import plan_of
from jptq.quant.config import load_config
from jptq.quant.explain import LEFTOVER, NO_QUANTIZER, REFUSED, SHARED, Outcome, summary
from jptq.quant.resolve import explain, resolve
from tests.graphs import Graph
from tests.quant.networks import TARGET, placed
from tests.quant.planned import NAMES, network


def outcomes(content: dict[str, object], name: str) -> dict[tuple[str, str], Outcome]:
    """Return what becomes of every operand, by node and slot."""
    model, plan = network(name)
    found = explain(load_config(content), model, plan, TARGET)
    return {(one.node, one.slot): one for one in found}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("qtype", ["int8", "int16", "float32"])
def test_every_operand_is_told_with_the_type_that_it_gets(name: str, qtype: str) -> None:
    content = {"model_config": {"all_node_type": qtype}}
    found = outcomes(content, name)
    model, plan = network(name)
    applied = resolve(load_config(content), model, plan, TARGET, report=False)
    slots = [(s.node, f"input{i}", c) for s in plan.slots for i, c in s.inputs.items()]
    slots += [(s.node, "output", s.output) for s in plan.slots if s.output is not None]
    assert set(found) == {(node, slot) for node, slot, _ in slots}
    for node, slot, calibration in slots:
        one = found[node, slot]
        assert (one.calibration, one.applied) == (calibration, applied[calibration])
        assert one.differs == (one.applied != one.asked) == bool(one.why)


@pytest.mark.seed("E1", "D1")
def test_the_leftovers_of_all_int16_are_told_with_their_reason() -> None:
    content = {"model_config": {"all_node_type": "int16"}}
    left = {slot: one for slot, one in outcomes(content, "attention").items() if one.differs}
    products = {"query", "key", "value", "scores", "mixed", "out"}
    # A view gives on what it reads: it is what the product behind it is.
    assert left.pop(("Transpose_6", "input0")).why == (
        "shared with scores, whose input1 accepts int8 only"
    )
    assert set(left) == {(node, "input1") for node in products}
    for one in left.values():
        assert (one.status, one.rule, one.applied) == (LEFTOVER, "all_node_type", "int8")
        assert one.why == "input1 of MatMul accepts int8 only (ec or dual-int16 would raise it)"
    resize = outcomes(content, "branches")["resize", "input0"]
    assert resize.why == "input0 of Resize accepts int8 only (ec would raise it)"


@pytest.mark.seed("E3", "E4")
def test_the_rule_that_decides_is_the_most_particular_one() -> None:
    content = {
        "model_config": {"all_node_type": "int16"},
        "op_config": {"Softmax": {"qtype": "int8"}, "Add": {"qtype": "int8"}},
        "subgraph_config": {"s": {"inputs": ["scores"], "outputs": ["mixed"], "qtype": "int16"}},
        "node_config": {"scores": {"input0": "float32"}, "scaled": {"qtype": "int8"}},
    }
    found = outcomes(content, "attention")
    rules = {slot: one.rule for slot, one in found.items()}
    assert rules["query", "input0"] == "all_node_type"
    assert rules["end", "input0"] == "op_config.Softmax.qtype"
    assert rules["mixed", "input0"] == "subgraph_config.s"
    assert rules["scaled", "input0"] == "node_config.scaled.qtype"
    assert rules["scores", "input0"] == "node_config.scores.input0"
    assert rules["scores", "input1"] == "subgraph_config.s"
    assert outcomes({}, "attention")["end", "input0"].rule == "default"


def test_the_output_type_of_the_model_is_a_rule() -> None:
    content = {"model_config": {"model_output_type": "int16"}}
    one = outcomes(content, "attention")["end", "output"]
    assert (one.asked, one.applied, one.rule) == ("int16", "int16", "model_output_type")


def test_a_default_that_gives_way_is_shared_and_not_refused() -> None:
    found = outcomes({"node_config": {"query": {"input0": "int16"}}}, "attention")
    one = found["key", "input0"]
    assert (one.asked, one.applied, one.status) == ("int8", "int16", SHARED)
    assert one.why == "shared with query, which asks for int16"


def test_an_explicit_ask_that_another_reader_overrules_is_refused() -> None:
    content = {"node_config": {"query": {"qtype": "int8"}, "key": {"qtype": "int16"}}}
    one = outcomes(content, "attention")["query", "input0"]
    assert (one.status, one.applied) == (REFUSED, "int16")
    assert one.why == "shared with key, which asks for int16"


def test_a_weight_named_by_itself_is_refused_where_its_node_is_only_not_reached() -> None:
    whole = outcomes({"node_config": {"body": {"qtype": "int16"}}}, "branches")
    assert whole["body", "input1"].status == LEFTOVER
    alone = outcomes({"node_config": {"body": {"input1": "int16"}}}, "branches")
    assert alone["body", "input1"].status == REFUSED
    assert alone["body", "input1"].kind == "weight"


def test_a_node_that_cannot_take_its_type_anywhere_is_refused() -> None:
    for content in (
        {"node_config": {"resize": {"qtype": "int16"}}},
        {"op_config": {"Resize": {"qtype": "int16"}}},
    ):
        assert outcomes(content, "branches")["resize", "input0"].status == REFUSED


@pytest.mark.seed("D4")
def test_a_compensated_operand_has_what_it_asks_for() -> None:
    content = {"node_config": {"head": {"input1": "ec"}, "resize": {"input0": "ec"}}}
    found = outcomes(content, "compensated")
    for slot in (("head", "input1"), ("resize", "input0")):
        assert (found[slot].asked, found[slot].applied, found[slot].differs) == ("ec", "ec", False)
    assert outcomes(content, "branches")["head", "input1"].status == REFUSED


def test_what_has_no_quantizer_is_told_too() -> None:
    content = {"node_config": {"stem_relu": {"qtype": "int16"}, "stem": {"input2": "int16"}}}
    found = outcomes(content, "branches")
    for slot in (("stem_relu", ""), ("stem", "input2")):
        assert (found[slot].applied, found[slot].status) == (NO_QUANTIZER, REFUSED)


def test_float16_is_applied_where_the_vector_unit_reads_it_alone() -> None:
    found = outcomes({"node_config": {"scaled": {"qtype": "float16"}}}, "attention")
    one = found["scaled", "input0"]
    assert (one.asked, one.applied, one.differs) == ("float16", "float16", False)


def test_a_product_asked_for_float16_takes_int16_and_is_refused() -> None:
    found = outcomes({"node_config": {"scores": {"qtype": "float16"}}}, "attention")
    one = found["scores", "input0"]
    assert (one.asked, one.applied, one.status) == ("float16", "int16", REFUSED)
    assert one.why == "input0 of MatMul accepts int8 and int16 only on nash-e"
    assert found["scores", "input1"].applied == "int8"


def test_all_float16_says_of_every_product_and_of_what_it_shares_that_it_is_not() -> None:
    content = {"model_config": {"all_node_type": "float16"}}
    found = outcomes(content, "attention")
    assert {node for (node, _), one in found.items() if one.applied == "float16"} == {
        "scaled",
        "Softmax_9",
        "residual",
        "end",
    }
    shared = found["residual", "input0"]
    assert (shared.applied, shared.status, shared.cause) == ("int16", LEFTOVER, "reader")
    assert shared.why.startswith("shared with query, whose input0 accepts int8 and int16 only")
    found = outcomes(content, "branches")
    assert found["resize", "input0"].why == "input0 of Resize accepts int8 only (ec would raise it)"
    # Pooling takes int16, but int8 is what is applied: that is for Resize behind it.
    assert found["pool", "input0"].why == "shared with resize, whose input0 accepts int8 only"


@pytest.mark.seed("D6", "D7")
def test_a_half_of_a_compensated_operand_is_not_told_to_be_compensated_again() -> None:
    content = {
        "model_config": {"all_node_type": "int16"},
        "node_config": {
            "head": {"input1": "ec"},
            "head_split_low": {"qtype": "int16"},
            "resize": {"input0": "ec"},
            "resize_split_low": {"input0": "int16"},
        },
    }
    found = outcomes(content, "compensated")
    low = found["head_split_low", "input1"]
    assert (low.applied, low.status) == ("int8", LEFTOVER)
    assert low.why == (
        "one of the two int8 halves that ec makes of head.input1, together about as fine as int16"
    )
    named = found["resize_split_low", "input0"]
    assert (named.applied, named.status) == ("int8", REFUSED)
    assert "halves that ec makes of resize.input0" in named.why
    assert not any("would raise" in one.why for node, one in found.items() if "split" in node[0])


def test_the_summary_counts_every_operand_once() -> None:
    content = {
        "model_config": {"all_node_type": "int16"},
        "node_config": {"body": {"input1": "int16"}},
    }
    found = tuple(outcomes(content, "branches").values())
    text = summary(found)
    total, *counts = (int(part.split()[0]) for part in text.split("; "))
    assert total == sum(counts) == len(found)
    assert text.endswith("; 1 refused: asked for, but not applied")
    assert "shared" not in text
    quiet = summary(tuple(outcomes({}, "branches").values()))
    assert quiet.endswith("as asked for; 0 refused: asked for, but not applied")


@pytest.mark.parametrize(("mode", "way"), [("nearest", True), ("linear", False)])
def test_what_nearest_sampling_gives_out_is_told_to_be_raised_by_ec(mode: str, way: bool) -> None:
    g = Graph()
    x = g.add("Tanh", g.input("x", (1, 4, 4, 4)))
    scales = g.constant(np.array([1, 1, 2, 2], np.float32))
    large = g.add("Resize", x, "", scales, mode=mode, name="resize")
    g.output(g.add("Sigmoid", large, name="after"))
    model = placed(g)
    config = load_config({"model_config": {"all_node_type": "int16"}})
    found = explain(config, model, plan_of(model, TARGET), TARGET)
    (one,) = [one for one in found if (one.node, one.slot) == ("after", "input0")]
    assert one.why.startswith("resize (Resize) gives out int8 only")
    assert one.why.endswith("(ec of its input0 would raise it)") == way


def test_an_operand_is_told_who_keeps_it_from_what_is_asked() -> None:
    # Of those that refuse float16 only one leaves no more than int8.
    found = outcomes({"op_config": {"Sigmoid": {"qtype": "float16"}}}, "branches")
    one = found["gate", "input0"]
    assert (one.applied, one.status) == ("int8", REFUSED)
    assert one.why == "shared with resize, whose input0 accepts int8 only"


def test_both_halves_of_an_operand_are_no_cause_for_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    content = {
        "op_config": {"Conv": {"qtype": "int16"}},
        "node_config": {"head": {"input1": "ec"}, "resize": {"input0": "ec"}},
    }
    model, plan = network("compensated")
    resolve(load_config(content), model, plan, TARGET)
    assert "stem input1" in caplog.text
    assert "halves" not in caplog.text
