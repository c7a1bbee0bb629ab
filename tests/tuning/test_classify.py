from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from jptq import ir
from jptq.api import sweep as api
from jptq.quant.assign import true_int16
from jptq.quant.config import Activation
from jptq.report.sweep_text import diagnosis_scores, diagnosis_table
from jptq.results import Evaluation, Goal
from jptq.results.problem import ProblemType
from jptq.tuning import Evaluator, Journal, Measurer, Options, Prepared, tune_prepared
from jptq.tuning.blame import culprits, narrowed
from jptq.tuning.classify import classify, of_steps
from jptq.tuning.goal import Judge
from jptq.tuning.ranking import rank
from jptq.tuning.reopen import from_calibrated
from tests.tuning.problems_by_type import (
    coarse_weight,
    detections,
    detector,
    near,
    outlier,
    ready,
    two_tasks,
)

GOAL = 0.97


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return ready(outlier(), tmp_path_factory.mktemp("outlier"))


def shares(scores: dict[str, float]) -> Evaluation:
    return Evaluation(name="", scores=scores, shares=scores)


@pytest.mark.slow
@pytest.mark.seed("A1")
def test_a_chain_with_one_outlier_is_a_problem_that_the_ranking_solves(chain: Prepared) -> None:
    prepared, score = chain, near(outlier())
    found, head = api.diagnose(prepared, evaluator=score, bound=GOAL)
    assert found.type is ProblemType.RANKING_WORKS
    assert "ranking works" in found.type.sentence()
    assert head is None
    step = found.steps[-1]
    assert {"outlier", "outlier_loud"} <= set(step.nodes)
    assert len(step.nodes) <= found.ranked / 2
    assert found.int16 is not None
    quality = [e.worst_share for e in (found.int8, step.evaluation, found.int16)]
    assert quality[0] < GOAL <= min(quality[1], quality[2])  # type: ignore[operator,type-var]
    again = score(prepared.runner.forward(prepared.table(prepared.all("int16"))))
    assert again == found.int16.scores
    assert "jptq sweep" in found.advice[0].text
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.slow
@pytest.mark.seed("A2", "C7")
def test_boxes_in_pixels_beside_probabilities_are_a_problem_that_the_ranking_does_not_solve(
    tmp_path: Path,
) -> None:
    model = detector()
    prepared = ready(model, tmp_path)
    found, _ = api.diagnose(prepared, evaluator=detections(model), bound=GOAL)
    assert found.type is ProblemType.RANKING_FAILS
    assert "ranking fails" in found.type.sentence()
    assert found.int16 is not None
    assert found.int16.worst_share == 1.0
    assert found.int8.comparison is not None
    assert found.int8.comparison.min_cosine > 0.9999
    tried = {one.kind: one for one in found.advice}
    assert list(tried) == ["remark", "metric", "ties", "subgraph"]
    assert tried["metric"].flags == ("--metric=mse",)
    assert "'joined'" in tried["subgraph"].text


@pytest.mark.slow
@pytest.mark.seed("A3")
def test_a_weight_that_int8_cannot_hold_is_a_problem_of_int16_itself(tmp_path: Path) -> None:
    model = coarse_weight()
    prepared, score = ready(model, tmp_path), near(model)
    found, _ = api.diagnose(prepared, evaluator=score, bound=GOAL)
    assert found.type is ProblemType.INT16_FAILS
    assert "INT16 fails" in found.type.sentence()
    assert found.true_int16 is not None
    ceiling = score(prepared.runner.forward(prepared.table(true_int16(prepared.plan))))
    assert found.true_int16.scores == ceiling
    assert ceiling["head"] >= GOAL > found.int16.scores["head"]  # type: ignore[union-attr]
    assert [one.slots for one in found.leftovers] == [
        ("coarse.input1",),
        ("stem.input1",),
        ("head.input1",),
    ]
    assert found.leftovers[0].repairs == ("ec", "dual-int16")
    assert found.leftovers[0].cosine < 0.95 < found.leftovers[1].cosine
    assert "'coarse.input1'" in found.advice[0].text


@pytest.mark.slow
def test_what_int8_does_well_enough_is_no_problem(chain: Prepared) -> None:
    found, _ = api.diagnose(chain, evaluator=near(outlier()), bound=0.5)
    assert found.type is ProblemType.NONE
    assert found.int16 is None
    assert found.advice == ()


@pytest.mark.slow
@pytest.mark.seed("A4")
def test_one_calibration_serves_both_and_a_mix_with_the_reference_is_reported(
    chain: Prepared, tmp_path: Path
) -> None:
    model = outlier()

    def calibrated(method: str, type_: str) -> Prepared:
        config = {
            "model_config": {"all_node_type": type_, "activation": {"calibration_type": method}}
        }
        return ready(model, tmp_path, config)

    int8 = chain
    same, other = calibrated("max", "int16"), calibrated("kl", "int16")
    diagnosed = {
        name: api.diagnose(int8, evaluator=near(model), bound=GOAL, reference=reference)[0]
        for name, reference in (("same", same), ("other", other))
    }
    assert {found.calibration for found in diagnosed.values()} == {"max"}
    assert all(one.kind != "calibration" for one in diagnosed["same"].advice)
    mixed = diagnosed["other"].advice[0]
    assert mixed.kind == "calibration"
    assert "'max'" in mixed.text
    assert f"{other.method!r}" in mixed.text
    differing = sum(
        not np.array_equal(int8.thresholds[n], other.thresholds[n]) for n in int8.thresholds
    )
    assert f"{differing} of {len(int8.thresholds)} thresholds differ" in mixed.text
    assert mixed.text.endswith("the reference's method.")
    reused, _ = api.diagnose(same, evaluator=near(model), bound=GOAL)
    assert reused.int8.scores == diagnosed["same"].int8.scores
    assert reused.steps == diagnosed["same"].steps


@pytest.mark.slow
@pytest.mark.seed("A5")
def test_the_score_table_has_a_row_per_score_and_lets_shares_above_all_stand(
    chain: Prepared,
) -> None:
    prepared = chain
    exact = prepared.runner.forward(None)
    asked = exact({"x": np.ones((1, 4, 8, 8), np.float32)})

    def evaluate(forward: object) -> dict[str, float]:
        found = forward({"x": np.ones((1, 4, 8, 8), np.float32)})  # type: ignore[operator]
        same = all(np.array_equal(found[n], asked[n]) for n in asked)
        return {"det": 0.76448 if same else 0.61507, "ll_seg": 0.6523 if same else 0.65357}

    found, _ = api.diagnose(prepared, evaluator=Evaluator.of(evaluate), bound=GOAL)
    lines = diagnosis_scores(found, len(prepared.samples)).splitlines()
    assert lines[0] == "all-INT8, calibrated by max:"
    assert lines[1].split() == [
        "Model",
        "Float",
        "March",
        "Samples",
        "calibrated_model",
        "Cosine_Similarity",
    ]
    cosine = found.int8.comparison.min_cosine  # type: ignore[union-attr]
    assert [line.split() for line in lines[3:5]] == [
        ["model_det", "0.76448", "nash-e", "4", "0.61507(80.46%)", f"{cosine:.6g}"],
        ["model_ll_seg", "0.6523", "nash-e", "4", "0.65357(100.19%)", f"{cosine:.6g}"],
    ]
    assert "0.65357(100.19%)" in diagnosis_table(found).splitlines()[2]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return ready(two_tasks(), tmp_path_factory.mktemp("tasks"))


@pytest.mark.slow
@pytest.mark.seed("C8")
def test_the_output_behind_a_failing_task_is_found_and_the_ranking_restricted_to_it(
    tasks: Prepared,
) -> None:
    measurer = Measurer(tasks, near(two_tasks()), Journal(None))
    judge = Judge(Goal(min_score=0.9))
    whole = rank(tasks, tasks.all("int8"), metrics=("cosine-similarity", "mse"))
    found = classify(measurer, judge, whole)
    assert found.failing == ("detect",)
    assert found.culprits == ("detect:0",)
    told = next(one for one in found.advice if one.kind == "output")
    assert told.flags == ("--output_node=detect",)
    assert "'detect'" in told.text
    assert "'segment:0' does not" in told.text
    restricted = narrowed(measurer, judge, whole, found.int8)
    assert restricted.outputs == ("detect:0",)
    # "plain" reads the quantizer that the failing branch reads too, and leads elsewhere.
    assert set(whole.rows) - set(restricted.rows) == {"plain", "segment"}
    report = tune_prepared(tasks, Options(min_score=0.9), evaluator=near(two_tasks()))
    assert report.final.quality >= 0.9
    assert "outlier" in {one.node for one in report.raised}


@pytest.mark.slow
def test_outputs_that_fail_no_score_alone_are_blamed_together(tasks: Prepared) -> None:
    exact = tasks.runner.forward(None)
    x = {"x": np.ones((1, 4, 8, 8), np.float32)}
    reference = exact(x)

    def evaluate(forward: object) -> float:
        found = forward(x)  # type: ignore[operator]
        wrong = [not np.array_equal(found[n], reference[n]) for n in reference]
        return 0.0 if all(wrong) else 1.0

    measurer = Measurer(tasks, Evaluator.of(evaluate), Journal(None))
    judge = Judge(Goal(min_score=0.9))
    int8 = tasks.all("int8")
    assert culprits(measurer, judge, int8, ("score",)) == ("detect:0", "segment:0")
    assert culprits(measurer, judge, int8, ()) == ()


def test_a_search_tells_the_type_only_if_it_ran_enough() -> None:
    judge = Judge(Goal(min_score=0.99))
    bad, good = shares({"det": 0.8}), shares({"det": 0.995})
    assert of_steps(judge, good, good, {}, 100) is ProblemType.NONE
    assert of_steps(judge, bad, bad, {}, 100) is ProblemType.INT16_FAILS
    assert of_steps(judge, bad, good, {50: good}, 100) is ProblemType.RANKING_WORKS
    assert of_steps(judge, bad, good, {51: good, 3: bad}, 100) is None
    assert of_steps(judge, bad, good, {25: bad}, 100) is ProblemType.RANKING_FAILS


@pytest.mark.slow
@pytest.mark.seed("A4")
def test_a_calibrated_model_says_by_which_method_and_its_configurations_repeat_it(
    tmp_path: Path,
) -> None:
    config = {"model_config": {"activation": {"calibration_type": "kl", "num_bin": 512}}}
    made = ready(outlier(), tmp_path, config)
    ir.save(made.calibrated, tmp_path / "calibrated_model.onnx")
    read = from_calibrated(tmp_path / "calibrated_model.onnx", tmp_path / "data", march="nash-e")
    assert read.method == made.method
    found = api.sweep(read, evaluator=near(outlier()), bound=GOAL)
    assert found.calibration == made.method
    settings = found.quant_config["model_config"]["activation"]
    assert (settings["calibration_type"], settings["num_bin"]) == ("kl", 512)
    silent = dataclasses.replace(made.calibrated, metadata={})
    ir.save(silent, tmp_path / "silent.onnx")
    unsaid = from_calibrated(tmp_path / "silent.onnx", tmp_path / "data", march="nash-e")
    assert unsaid.activation == Activation()
