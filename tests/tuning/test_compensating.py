"""`jptq tune` where all-INT16 is not enough: dual-int16 first, ec where that does not help."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import jptq
from jptq import ir
from jptq.errors import UnknownNameError
from jptq.results import PREPARED_FILE, Outcome, Report
from tests.oracles import run_onnx
from tests.tuning.networks import CONFIG
from tests.tuning.problems_by_type import coarse_resize, coarse_weight, images

pytestmark = pytest.mark.slow

GOAL = 0.999


def tuned(
    model: onnx.ModelProto,
    folder: Path,
    leftovers: str = "auto",
    *,
    evaluate: Callable[..., float] | None = None,
    **options: object,
) -> Report:
    """Run the whole of `jptq tune`, from file to files."""
    onnx.save(model, folder / "model.onnx")
    (folder / "data" / "x").mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images(4, seed=0)):
        np.save(folder / "data" / "x" / f"{i}.npy", image)
    asked = {"min_cosine": GOAL, **options}
    return jptq.tune(
        folder / "model.onnx",
        folder / "data",
        out=folder / "out",
        evaluator=evaluate,
        quant_config=CONFIG,
        options=jptq.Options(leftovers=leftovers, **asked),  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("resize")


@pytest.fixture(scope="module")
def report(folder: Path) -> Report:
    return tuned(coarse_resize(), folder)


def test_what_came_before_the_second_operators_is_told_too(report: Report) -> None:
    assert "ec" in {node.candidate for node in report.raised}
    assert report.notes[0].startswith(
        "Weights and biases are fitted to the samples: all-INT8 gives"
    )


@pytest.mark.seed("A3", "D4")
def test_ec_meets_the_goal_that_neither_all_int16_nor_dual_int16_meets(report: Report) -> None:
    missed = {step.name: step.quality for step in report.steps[:3]}
    assert list(missed) == ["all-INT8", "all-INT16", "all dual-INT16"]
    assert max(missed.values()) < GOAL
    assert report.outcome is Outcome.MET
    assert report.final.quality >= GOAL
    assert report.quant_config["node_config"]["enlarge"]["input0"] == "ec"
    assert any("ec closes the gap" in note and "enlarge.input0" in note for note in report.notes)


def test_the_report_compares_with_the_network_as_it_was(report: Report) -> None:
    assert report.int8.time_us == report.steps[0].time_us
    assert report.int16.comparison == report.steps[1].comparison
    assert report.final.time_us is not None
    assert report.int8.time_us is not None
    row = next(row for row in report.raised if row.node == "enlarge")
    assert row.candidate in ("ec", "int16-ec")
    assert "input0 compensated" in row.why
    assert 0 < row.cost_us <= report.final.time_us - report.int8.time_us + 1e-9
    assert not any(row.node.endswith("_split_low") for row in report.raised)
    assert report.final.raised == len(report.raised)
    assert "every quantizer INT16" not in {step.name for step in report.steps}


def test_the_files_hold_the_second_operator_and_agree_with_each_other(
    report: Report, folder: Path
) -> None:
    out = folder / "out"
    for name in ("optimized_float_model.onnx", "calibrated_model.onnx", "qdq_model.onnx"):
        assert "enlarge_split_low" in ir.load(out / name).by_name, name
    # The configuration splits the network that it is for, which is whole.
    assert "enlarge_split_low" not in ir.load(out / PREPARED_FILE).by_name
    split = jptq.calibrate(
        out / PREPARED_FILE, folder / "data", quant_config=out / "quant_config.json"
    )
    assert dict(split.configured) == dict(report.assignment)
    again = jptq.calibrate(out / "calibrated_model.onnx", folder / "data")
    assert dict(again.configured) == dict(report.assignment)
    sample = images(1, seed=3)[0]
    ours = again.runner.forward(again.table(report.assignment))({"x": sample})
    exported = run_onnx(onnx.load(out / "qdq_model.onnx"), {"x": sample})
    for name, value in exported.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-3, atol=1e-3 * np.abs(value).max())
    assert json.loads((out / "result.json").read_text())["outcome"] == "met"


def test_dual_int16_is_taken_where_it_is_enough_and_ec_where_it_is_asked_for(
    tmp_path: Path,
) -> None:
    found = {}
    for leftovers in ("auto", "ec"):
        (tmp_path / leftovers).mkdir()
        found[leftovers] = tuned(coarse_weight(), tmp_path / leftovers, leftovers)
        assert found[leftovers].outcome is Outcome.MET
    assert {row.candidate for row in found["ec"].raised} <= {"int16", "ec", "int16-ec"}
    by_dual, by_ec = (one.quant_config["node_config"] for one in found.values())
    assert by_dual["coarse"] == {"qtype": "dual-int16"}
    assert by_ec["coarse"]["input1"] == "ec"
    assert "dual-int16" not in json.dumps(by_ec)
    assert any("dual-int16 on 1 node closes the gap" in note for note in found["auto"].notes)


def test_a_budget_without_room_for_ec_gives_the_best_without_it(
    report: Report, tmp_path: Path
) -> None:
    least, reached = report.int8.time_us, report.final.time_us
    assert least is not None
    assert reached is not None
    found = tuned(coarse_resize(), tmp_path, latency_budget_us=(least + reached) / 2)
    assert found.outcome is Outcome.NOT_MET
    assert found.final.time_us is not None
    assert found.final.time_us <= (least + reached) / 2
    assert "ec" not in json.dumps(found.quant_config["node_config"])
    offered = [step for step in found.steps if step.name in found.reachable]
    assert any(step.name.startswith("with ec: ") for step in offered)
    assert max(step.quality for step in offered) >= GOAL
    assert any("ec would close the gap" in note for note in found.notes)


def test_a_budget_below_all_int8_is_told_with_the_least_there_is(
    report: Report, tmp_path: Path
) -> None:
    least = report.int8.time_us
    assert least is not None
    found = tuned(coarse_resize(), tmp_path, latency_budget_us=0.9 * least)
    assert found.outcome is Outcome.BUDGET_TOO_SMALL
    assert found.final.time_us == pytest.approx(least)
    assert any(f"{least:.1f} us (modelled)" in note for note in found.notes)


def test_no_configuration_is_scored_twice(tmp_path: Path) -> None:
    seen = []

    def evaluate(forward: Callable[..., dict[str, np.ndarray]]) -> float:
        (found,) = forward({"x": images(1, seed=1)[0]}).values()
        seen.append(found.tobytes())
        return float(np.mean(found**2))

    # All-INT16 misses this goal, so that leftovers are looked at before the search begins.
    found = tuned(coarse_weight(), tmp_path, evaluate=evaluate, min_score=0.9999)
    assert found.evaluator_calls == len(seen)
    assert not found.int16.quality >= 0.9999
    assert seen.count(seen[0]) == 2  # the float model's, which leads: is it deterministic?


def test_leftovers_stay_int8_where_that_is_asked_for(tmp_path: Path) -> None:
    found = tuned(coarse_weight(), tmp_path, "int8")
    assert found.outcome is Outcome.NOT_MET
    assert not {"ec", "dual-int16"} & {row.candidate for row in found.raised}
    assert any("No configuration that was run closes the gap" in note for note in found.notes)


def test_a_goal_beyond_true_int16_builds_nothing_and_says_so(tmp_path: Path) -> None:
    found = tuned(coarse_resize(), tmp_path, min_cosine=1.1)
    assert found.outcome is Outcome.NOT_MET
    assert not any("split_low" in name for name in found.assignment)
    assert any("Compensation does not close the gap" in note for note in found.notes)


def test_an_unknown_choice_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="dual"):
        tuned(coarse_weight(), tmp_path, "dual")
    assert not (tmp_path / "out").exists()
