from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest

from jptq import files
from jptq.errors import ConfigError, UnknownNameError
from jptq.report import render
from jptq.results import Outcome
from jptq.tuning import Evaluator, Journal, Measurer, Options, Prepared, prepare, tune_prepared
from jptq.tuning.evaluator import Forward
from jptq.tuning.loop import tune_network
from jptq.user_code import UserFunction
from tests.tuning.networks import CONFIG, evaluator, save, segmenter

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def goal(prepared: Prepared) -> float:
    """A quality between those of the two ends."""
    measurer = Measurer(prepared, evaluator(), Journal(None))
    ends = [measurer(n, prepared.all(n)).worst_share for n in ("int8", "int16")]
    assert ends[0] is not None
    assert ends[1] is not None
    assert ends[0] < ends[1]
    return ends[0] + 0.7 * (ends[1] - ends[0])


def test_the_goal_is_met_by_measurement_and_below_the_cost_of_all_int16(
    prepared: Prepared, goal: float
) -> None:
    report = tune_prepared(prepared, Options(min_score=goal, samples=3), evaluator=evaluator())
    assert report.outcome is Outcome.MET
    assert report.final.worst_share is not None
    assert report.final.worst_share >= goal
    assert report.int8.worst_share is not None
    assert report.int8.worst_share < goal
    again = evaluator()(prepared.runner.forward(prepared.table(report.assignment)))
    assert again == report.final.scores
    times = [e.time_us for e in (report.int8, report.final, report.int16)]
    assert times[0] <= times[1] <= times[2]  # type: ignore[operator]
    assert report.final.time_us == prepared.latency.total_us(report.assignment)
    assert "outlier" in {node.node for node in report.raised}
    assert set(report.assignment) == {c.name for c in prepared.plan.calibrations}
    assert f"{100 * report.final.worst_share:.2f}%" in report.headline
    json.dumps(report.to_json(), allow_nan=False)
    qualities = [e.quality for e in report.pareto]
    assert qualities == sorted(qualities)


def test_a_resumed_run_gives_the_same_report_and_runs_nothing_but_float(
    prepared: Prepared, goal: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Options(min_score=goal, samples=3)
    scored = evaluator(digest="the file")
    first = tune_prepared(prepared, options, evaluator=scored, journal=Journal(tmp_path))
    assert scored.calls > 2

    def never(*_: object, **__: object) -> None:
        raise AssertionError("nothing may be run again")

    monkeypatch.setattr(prepared.runner, "run", never)
    monkeypatch.setattr("jptq.sensitivity.exact.rank", never)
    floats = dict(first.floating.scores)

    def only_float(forward: Forward) -> dict[str, float]:
        with contextlib.suppress(AssertionError):
            forward({"x": np.zeros((1, 3, 8, 8), np.float32)})
        return floats

    resumed = Evaluator(UserFunction(call=only_float, where="test", digest="the file"))
    journal = Journal(tmp_path)
    second = tune_prepared(prepared, options, evaluator=resumed, journal=journal)
    assert resumed.calls == 1  # float: has what the evaluator reads changed?
    assert journal.reused > 0
    assert second.to_json() == first.to_json()
    assert second.evaluator_calls == first.evaluator_calls


def test_without_an_evaluator_the_cosine_decides(prepared: Prepared) -> None:
    report = tune_prepared(prepared, Options(min_cosine=0.5, samples=3))
    assert report.outcome is Outcome.MET
    assert report.raised == ()
    assert report.final.comparison is not None
    assert report.final.comparison.min_cosine >= 0.5
    assert any("nothing has to be raised" in note for note in report.notes)
    assert report.ranges is not None
    assert report.ranges.products == len(prepared.plan.sums) == 4
    assert report.to_json()["integer_ranges"]["found"] == ()


def test_a_goal_that_nothing_reaches_ends_with_the_best_and_says_so(prepared: Prepared) -> None:
    report = tune_prepared(prepared, Options(min_score=2.0, samples=3), evaluator=evaluator())
    assert report.outcome is Outcome.NOT_MET
    assert report.final.quality == max(e.quality for e in report.steps)
    assert report.reachable


def test_a_budget_below_all_int8_is_impossible(prepared: Prepared) -> None:
    options = Options(latency_budget_ratio=0.5, quality=False, samples=3)
    report = tune_prepared(prepared, options)
    assert report.outcome is Outcome.BUDGET_TOO_SMALL
    assert report.final.time_us == report.int8.time_us
    assert any("least reachable" in note for note in report.notes)


def test_only_a_budget_gives_the_best_quality_within_it(prepared: Prepared) -> None:
    least, most = (prepared.latency.total_us(prepared.all(n)) for n in ("int8", "int16"))
    budget = (least + most) / 2
    report = tune_prepared(prepared, Options(latency_budget_us=budget, quality=False, samples=3))
    assert report.outcome is Outcome.MET
    assert report.final.time_us is not None
    assert report.final.time_us <= budget * (1 + 1e-9)
    assert report.final.quality >= report.int8.quality


def test_goal_and_budget_hold_together(prepared: Prepared, goal: float) -> None:
    most = prepared.latency.total_us(prepared.all("int16"))
    options = Options(min_score=goal, latency_budget_us=most, samples=3)
    report = tune_prepared(prepared, options, evaluator=evaluator())
    assert report.outcome is Outcome.MET
    assert report.final.time_us is not None
    assert report.final.time_us <= most * (1 + 1e-9)


def test_the_documented_walk_meets_the_goal_at_a_prefix(prepared: Prepared, goal: float) -> None:
    options = Options(min_score=goal, search="walk", samples=3)
    report = tune_prepared(prepared, options, evaluator=evaluator())
    assert report.search == "walk"
    assert report.final.worst_share is not None
    if report.outcome is Outcome.MET:
        assert report.final.worst_share >= goal


def test_a_time_limit_that_has_passed_still_gives_a_report(prepared: Prepared) -> None:
    options = Options(min_score=2.0, samples=3, time_limit_s=0.0)
    report = tune_prepared(prepared, options, evaluator=evaluator())
    assert report.outcome is Outcome.OUT_OF_TIME
    assert [step.name for step in report.steps] == ["all-INT8", "all-INT16"]
    assert report.sensitivity.rows == ()
    assert any("before nodes were ranked" in note for note in report.notes)
    render(report)


@pytest.mark.parametrize("search", ["milp", "walk", "head"])
def test_the_time_that_is_left_is_an_upper_bound(
    prepared: Prepared, goal: float, search: str
) -> None:
    told: list[tuple[str, int, int]] = []
    later: list[tuple[str, float | None]] = []
    report, _ = tune_network(
        prepared,
        Options(min_score=goal, samples=3, search=search),
        None,
        evaluator=evaluator(),
        progress=lambda *step: told.append(step),
        later=lambda seconds: later.append((told[-1][0], seconds)),
    )
    measured = [(done, total) for name, done, total in told if name == "measure"]
    assert measured == [(done, 4) for done in range(5)]
    runs = [step for step in told if step[0].startswith("run ")]
    assert len(runs) >= len(report.steps) - 2 > 0  # the corners were measured before
    bounds = [total for _, _, total in runs if total]
    assert bounds == sorted(bounds, reverse=True)
    assert min(bounds) >= len(runs)
    # What follows ranking the nodes is first known when the last ranking begins.
    assert later[0][0] == "rank nodes"
    assert later[0][1] is not None
    assert later[0][1] > 0
    assert {seconds for _, seconds in later[1:]} == {0.0}


def test_a_search_that_the_time_limit_cut_short_says_so_if_the_goal_is_met(
    prepared: Prepared, goal: float
) -> None:
    options = Options(min_score=goal, samples=3, time_limit_s=0.0)
    report = tune_prepared(prepared, options, evaluator=evaluator())
    assert report.outcome is Outcome.MET
    assert any("time limit ended the search" in note for note in report.notes)


def test_the_subgraphs_that_were_run_are_among_the_steps(prepared: Prepared, goal: float) -> None:
    options = Options(min_score=goal, samples=3, search="head")
    report = tune_prepared(prepared, options, evaluator=evaluator())
    assert any(step.name.startswith("head of") for step in report.steps)
    assert len({step.name for step in report.steps}) == len(report.steps)


def test_options_that_contradict_each_other_or_do_not_exist_are_refused(
    prepared: Prepared,
) -> None:
    both = Options(latency_budget_us=1.0, latency_budget_ratio=1.0)
    with pytest.raises(ConfigError, match="both --latency_budget_us"):
        tune_prepared(prepared, both)
    with pytest.raises(UnknownNameError, match="search 'mlp'"):
        tune_prepared(prepared, Options(search="mlp"))
    with pytest.raises(UnknownNameError, match="method 'metrics'"):
        tune_prepared(prepared, Options(method="metrics"))


def test_preparing_twice_gives_the_same_bytes_and_reuses_thresholds(
    folder: Path, tmp_path: Path
) -> None:
    found = []
    for _ in range(2):
        journal = Journal(tmp_path)
        found.append(
            prepare(
                folder / "model.onnx",
                folder / "data",
                march="nash-e",
                quant_config=CONFIG,
                journal=journal,
            )
        )
    assert journal.reused == 2  # the methods' names, and their thresholds
    assert found[0].digest == found[1].digest
    assert found[0].method == found[1].method
    for name, values in found[0].thresholds.items():
        np.testing.assert_array_equal(values, found[1].thresholds[name])
    assert files.digest(repr(found[0].plan)) == files.digest(repr(found[1].plan))


def test_a_network_that_ends_in_an_index_is_tuned_by_its_score(tmp_path: Path) -> None:
    save(segmenter(), tmp_path)
    found = prepare(tmp_path / "model.onnx", tmp_path / "data", march="nash-e", quant_config=CONFIG)
    exact = found.runner.forward(None)
    assert {v.dtype for v in exact(found.samples[0]).values()} == {np.dtype(np.int64)}

    def agreement(forward: object) -> float:
        hits = [
            float(np.mean(forward(sample)[name] == want))  # type: ignore[operator]
            for sample in (found.samples[i] for i in range(len(found.samples)))
            for name, want in exact(sample).items()
        ]
        return float(np.mean(hits))

    report = tune_prepared(
        found, Options(min_score=0.9, samples=3), evaluator=Evaluator.of(agreement)
    )
    assert report.outcome is Outcome.MET
    json.dumps(report.to_json(), allow_nan=False)
