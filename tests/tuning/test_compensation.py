"""A configuration with error compensation, from the float file to the files of a tuning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jptq import ir
from jptq.api import timing
from jptq.quant.assign import true_int16, uniform
from jptq.quant.calibrated import assignment_of, plan_of, thresholds_of
from jptq.quant.emit import quant_config
from jptq.quant.export import to_qdq
from jptq.tuning import Options, Prepared, prepare, tune_prepared
from jptq.tuning.journal import Journal
from tests.oracles import relative_error, run_onnx
from tests.tuning.networks import CONFIG, images

INT16 = {"model_config": {**CONFIG["model_config"], "all_node_type": "int16"}}
EC = {
    **INT16,
    "node_config": {
        "outlier": {"qtype": "int16", "input1": "ec"},
        "body": {"input1": "ec"},
        "head": {"input1": "ec"},
        "body_split_low": {"qtype": "int16"},
    },
}


def prepared_with(folder: Path, config: object, **options: object) -> Prepared:
    return prepare(
        folder / "model.onnx",
        folder / "data",
        march="nash-e",
        quant_config=config,  # type: ignore[arg-type]
        **options,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def compensated(folder: Path) -> Prepared:
    return prepared_with(folder, EC)


def noise(prepared: Prepared, assignment: dict[str, str]) -> float:
    """Return the relative noise of the outputs over the samples, against onnxruntime."""
    forward = prepared.runner.forward(prepared.table(assignment))
    total = np.zeros(2)
    for feeds in images(4, seed=0):
        (want,) = run_onnx(ir.to_bytes(to_qdq(prepared.floating)), {"x": feeds}).values()
        (found,) = forward({"x": feeds}).values()
        total += np.sum((found - want) ** 2), np.sum(want**2)
    return float(np.sqrt(total[0] / total[1]))


@pytest.mark.slow
@pytest.mark.seed("D2", "D4", "D5")
def test_ec_on_the_worst_weights_comes_close_to_true_int16(
    folder: Path, compensated: Prepared
) -> None:
    plain = prepared_with(folder, INT16)
    int8, ceiling = (noise(plain, types) for types in (plain.configured, true_int16(plain.plan)))
    found = noise(compensated, compensated.configured)
    assert ceiling < int8 / 50
    assert found < int8 / 50
    assert found == pytest.approx(ceiling, rel=0.5)
    assert found != ceiling


def test_the_calibrated_file_is_all_that_the_next_step_needs(
    tmp_path: Path, compensated: Prepared
) -> None:
    path = tmp_path / "calibrated_model.onnx"
    ir.save(compensated.calibrated, path)
    read = ir.load(path)
    assert plan_of(read, compensated.target) == compensated.plan.unpinned
    assert assignment_of(read) == compensated.configured
    for name, values in thresholds_of(read).items():
        np.testing.assert_array_equal(values, compensated.thresholds[name])


def test_the_export_computes_what_the_forward_computes(compensated: Prepared) -> None:
    exported = ir.to_bytes(to_qdq(compensated.calibrated))
    forward = compensated.runner.forward(compensated.table(compensated.configured))
    for feeds in images(3, seed=0):
        (want,) = run_onnx(exported, {"x": feeds}).values()
        (found,) = forward({"x": feeds}).values()
        assert relative_error(found, want) < 1e-3


def test_the_configuration_is_found_again_in_the_calibrated_model(compensated: Prepared) -> None:
    found = quant_config(
        compensated.calibrated, compensated.plan, compensated.target, compensated.configured
    )
    nodes = found["node_config"]
    assert {n for n, entry in nodes.items() if entry.get("input1") == "ec"} == {
        "outlier",
        "body",
        "head",
    }


def test_thresholds_of_a_journal_are_those_of_the_calibration(folder: Path, tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    first, again = (prepared_with(folder, EC, journal=journal) for _ in range(2))
    assert first.digest == again.digest
    for name, values in first.thresholds.items():
        np.testing.assert_array_equal(again.thresholds[name], values)


@pytest.mark.seed("D8")
def test_the_second_operator_is_in_the_latency_without_a_calibration_too(
    folder: Path, compensated: Prepared
) -> None:
    plain = prepared_with(folder, INT16)
    rows = {row.node: row for row in compensated.latency.nodes}
    assert rows["body_split_low"].macs == rows["body"].macs > 0
    assert compensated.latency.total_us(compensated.configured) > plain.latency.total_us(
        plain.configured
    )
    timed = timing.timed(folder / "model.onnx", quant_config=EC)
    assert timed.assignment == compensated.configured
    assert timed.table.total_us(timed.assignment) == pytest.approx(
        compensated.latency.total_us(compensated.configured)
    )


@pytest.mark.slow
def test_a_compensated_network_is_tuned_and_its_configuration_says_ec(
    compensated: Prepared,
) -> None:
    report = tune_prepared(compensated, Options(min_cosine=0.9999))
    assert report.quant_config["node_config"]["body"]["input1"] == "ec"
    assert uniform(compensated.plan, "int8").keys() == report.assignment.keys()
