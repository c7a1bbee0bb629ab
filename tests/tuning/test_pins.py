"""Types that the user's quant_config names are kept; all others are chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jptq.quant.assign import promote, uniform
from jptq.quant.resolve import pins
from jptq.results import Outcome
from jptq.tuning import Options, Prepared, prepare, tune_prepared
from tests.tuning.networks import CONFIG


def with_types(folder: Path, **levels: Any) -> Prepared:
    config = {**CONFIG, **levels}
    return prepare(folder / "model.onnx", folder / "data", march="nash-e", quant_config=config)


def feature(prepared: Prepared, node: str) -> str:
    return prepared.plan.by_node[node].inputs[0]


def test_named_nodes_are_pinned_and_the_default_of_the_model_is_not(folder: Path) -> None:
    found = with_types(
        folder,
        model_config={**CONFIG["model_config"], "all_node_type": "int16"},
        node_config={"outlier": {"input0": "int8"}},
        op_config={"Gemm": {"qtype": "int16"}},
    )
    kept = {one.name: one.pinned for one in found.plan.calibrations if one.pinned is not None}
    gemm = found.plan.by_node["head"]
    assert kept[feature(found, "outlier")] == "int8"
    assert kept[gemm.inputs[0]] == "int16"
    assert kept[gemm.inputs[1]] == "int8"  # named, and the target takes nothing finer
    assert feature(found, "stem") not in kept
    assert kept == pins(found.config, found.calibrated, found.plan, found.target)


def test_no_assignment_of_a_search_moves_a_pin(folder: Path) -> None:
    found = with_types(folder, node_config={"outlier": {"qtype": "int8"}, "body": {"ON": "CPU"}})
    low, high = feature(found, "outlier"), feature(found, "body")
    for name in ("int8", "int16"):
        types = found.all(name)
        assert (types[low], types[high]) == ("int8", "float32")
    raised = promote(found.all("int8"), found.plan, {"outlier": "dual-int16"})
    assert {raised[c] for c in found.plan.by_node["outlier"].calibrations} == {"int8"}
    assert uniform(found.plan.unpinned, "int16")[low] == "int16"


@pytest.mark.slow
def test_tuning_keeps_what_is_named_and_its_configuration_says_it(folder: Path) -> None:
    found = with_types(folder, node_config={"stem": {"qtype": "int16"}, "body": {"qtype": "int8"}})
    report = tune_prepared(found, Options(min_cosine=0.9999))
    stem, body = feature(found, "stem"), feature(found, "body")
    assert report.assignment[stem] == "int16"
    assert report.assignment[body] == "int8"
    assert report.outcome in (Outcome.MET, Outcome.NOT_MET)
    assert report.quant_config["node_config"]["stem"] == {"qtype": "int16"}
    (row,) = (row for row in report.raised if row.node == "stem")
    assert "named by the quant_config" in row.why
    assert any("keep the types that the quant_config names" in note for note in report.notes)
    again = with_types(folder, **report.quant_config)
    assert dict(again.configured) == dict(report.assignment)


@pytest.mark.slow
def test_a_type_that_no_search_chooses_is_reported_as_what_it_is(folder: Path) -> None:
    found = with_types(folder, node_config={"loud": {"input0": "float16"}, "body": {"ON": "CPU"}})
    report = tune_prepared(found, Options(min_cosine=0.5))
    runs_as = {row.node: row.candidate for row in report.raised}
    assert runs_as["loud"] == "float16"
    assert runs_as["body"] == "float32"
    assert report.assignment[feature(found, "loud")] == "float16"


@pytest.mark.slow
def test_the_configuration_of_a_tuning_keeps_the_quantizers_at_the_outputs(folder: Path) -> None:
    model_config = {**CONFIG["model_config"], "model_output_type": "int16"}
    found = with_types(folder, model_config=model_config)
    report = tune_prepared(found, Options(min_cosine=0.9999))
    again = with_types(folder, **report.quant_config)
    assert [c.name for c in again.plan.calibrations] == [c.name for c in found.plan.calibrations]
    assert again.configured == report.assignment
