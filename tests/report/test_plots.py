from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from collections.abc import Callable

import matplotlib
import numpy as np
import pytest

from jptq import report as package
from jptq.report import curves, plots
from jptq.results import Evaluation, Report, Spread
from tests.report.factory import make_report

PNG = b"\x89PNG\r\n\x1a\n"


def test_the_ranking_shows_the_thirty_worst_and_marks_the_raised() -> None:
    report = make_report()
    ranking = curves.ranking(report)
    scores = report.sensitivity.score[:, 0, 0]
    worst = np.argsort(-scores)[:30]
    assert [bar.node for bar in ranking.bars] == [report.sensitivity.rows[i] for i in worst]
    assert [bar.error for bar in ranking.bars] == [scores[i] for i in worst]
    shown = {bar.node for bar in ranking.bars if bar.candidate == "int16"}
    assert shown == {node.node for node in report.raised} & {bar.node for bar in ranking.bars}
    assert ranking.nodes == 300


def test_a_cosine_ranking_is_drawn_by_its_distance_from_one() -> None:
    report = make_report(metric="cosine-similarity")
    ranking = curves.ranking(report)
    assert ranking.quantity == "1 - cosine similarity"
    assert ranking.bars[0].error == pytest.approx(1 - report.sensitivity.score[:, 0, 0].min())


def test_a_sqnr_ranking_is_drawn_as_relative_error() -> None:
    report = make_report(nodes=6)
    table = dataclasses.replace(
        report.sensitivity,
        metrics=("sqnr", "mse"),
        score=np.stack([np.full(6, 10.0), np.zeros(6)], axis=-1)[:, None],
    )
    ranking = curves.ranking(dataclasses.replace(report, sensitivity=table))
    # A noise of a tenth of the signal is 10 of the vendor's halved decibels.
    assert [bar.error for bar in ranking.bars] == pytest.approx([0.1] * 6)


def test_nodes_without_a_finite_score_are_not_drawn() -> None:
    report = make_report(nodes=6, raised=0)
    score = report.sensitivity.score.copy()
    score[2, 0, 0], score[4, 0, 0] = np.nan, np.inf
    table = dataclasses.replace(report.sensitivity, score=score)
    bars = curves.ranking(dataclasses.replace(report, sensitivity=table)).bars
    assert {bar.node for bar in bars} == {table.rows[i] for i in (0, 1, 3, 5)}


def test_points_carry_modelled_time_and_the_quality_of_the_goal() -> None:
    report = make_report(budget_us=1400.0)
    pareto = curves.pareto(report)
    final = next(point for point in pareto.marked if point.name == "final")
    assert (final.time_us, final.quality) == (report.final.time_us, 0.9931)
    assert (pareto.goal, pareto.budget_us) == (0.99, 1400.0)
    assert pareto.is_share
    assert len(pareto.steps) == len(report.steps)


def test_without_an_evaluator_points_show_the_least_mean_cosine() -> None:
    report = make_report(evaluator=False, outputs=11)
    pareto = curves.pareto(report)
    assert report.int8.comparison is not None
    int8 = next(point for point in pareto.marked if point.name == "all-INT8")
    assert int8.quality == min(o.cosine.mean for o in report.int8.comparison.outputs)
    assert not pareto.is_share
    assert pareto.goal == 0.999


def test_the_front_runs_from_fast_to_good() -> None:
    front = curves.pareto(make_report(met=False)).front
    assert len(front) > 2
    assert all(
        a.time_us < b.time_us and a.quality <= b.quality for a, b in itertools.pairwise(front)
    )


def test_a_hopeless_int8_does_not_press_the_rest_into_a_line() -> None:
    report = make_report()
    hopeless = dataclasses.replace(report.int8, shares={"box_f1": 0.0})
    floor = curves.pareto(dataclasses.replace(report, int8=hopeless)).floor
    assert 0.9 < floor < 0.99


def test_the_floor_never_stands_above_a_marked_quality_other_than_int8() -> None:
    pareto = curves.pareto(make_report(met=False))
    assert pareto.floor <= min(p.quality for p in pareto.marked if p.name != "all-INT8")


def test_whiskers_run_from_the_best_to_the_worst_sample() -> None:
    report = make_report(outputs=11)
    data = curves.outputs(report)
    assert report.int8.comparison is not None
    cosine = report.int8.comparison.outputs[3].cosine
    whisker = data.series["all-INT8"][3]
    assert (whisker.best, whisker.mean, whisker.worst) == (
        1 - cosine.max,
        1 - cosine.mean,
        1 - cosine.min,
    )
    assert list(data.series) == ["all-INT8", "all-INT16", "final"]


def perfect(evaluation: Evaluation) -> Evaluation:
    assert evaluation.comparison is not None
    one = Spread(min=1.0, mean=1.0, max=1.0)
    outputs = tuple(dataclasses.replace(o, cosine=one) for o in evaluation.comparison.outputs)
    comparison = dataclasses.replace(evaluation.comparison, outputs=outputs)
    return dataclasses.replace(evaluation, comparison=comparison)


def test_equal_outputs_stand_at_the_floor_of_the_logarithm() -> None:
    report = make_report()
    data = curves.outputs(dataclasses.replace(report, int16=perfect(report.int16)))
    assert data.series["all-INT16"][0].mean == curves.COSINE_FLOOR


def test_of_many_outputs_the_worst_are_shown_in_graph_order() -> None:
    report = make_report(outputs=11)
    assert report.final.comparison is not None
    many = report.final.comparison.outputs * 3
    renamed = tuple(dataclasses.replace(o, output=f"y{i:02d}") for i, o in enumerate(many))
    wide = dataclasses.replace(
        report.final, comparison=dataclasses.replace(report.final.comparison, outputs=renamed)
    )
    data = curves.outputs(dataclasses.replace(report, int8=wide, int16=wide, final=wide))
    assert len(data.outputs) == 20
    assert list(data.outputs) == sorted(data.outputs)
    assert data.left_out == 13


def bleak() -> Report:
    """Return a report where every logarithm is at risk: no errors, no steps, no time, no bars."""
    report = make_report(nodes=2, raised=0)
    flat = {
        name: dataclasses.replace(perfect(getattr(report, name)), time_us=1.0)
        for name in ("int8", "int16", "final")
    }
    table = dataclasses.replace(report.sensitivity, score=np.zeros((2, 1, 2)))
    return dataclasses.replace(report, steps=(), pareto=(), sensitivity=table, **flat)


@pytest.mark.parametrize(
    "report",
    [
        bleak(),
        dataclasses.replace(bleak(), sensitivity=bleak().sensitivity.take([])),
        make_report(evaluator=False, outputs=11, metric="cosine-similarity", budget_us=9e4),
    ],
    ids=["no error at all", "nothing ranked", "cosine goal and a far budget"],
)
@pytest.mark.parametrize(
    "draw",
    [
        lambda report: plots.draw_ranking(curves.ranking(report)),
        lambda report: plots.draw_pareto(curves.pareto(report)),
        lambda report: plots.draw_outputs(curves.outputs(report)),
    ],
    ids=["ranking", "pareto", "outputs"],
)
def test_a_picture_can_be_drawn_of(report: Report, draw: Callable[[Report], bytes]) -> None:
    assert draw(report).startswith(PNG)


def test_odd_names_are_drawn_as_they_are() -> None:
    ranking = curves.ranking(make_report(nodes=3, raised=0))
    odd = dataclasses.replace(ranking.bars[0], node="a$_{b}$ \u4e2d", stderr=1e-3)
    assert plots.draw_ranking(dataclasses.replace(ranking, bars=(odd,))).startswith(PNG)


def test_equal_reports_give_equal_bytes_whatever_the_user_has_set() -> None:
    first = package.render(make_report(nodes=4, raised=1))
    with matplotlib.rc_context({"font.size": 30, "savefig.dpi": 10}):
        second = package.render(make_report(nodes=4, raised=1))
    assert list(first) == ["pareto.png", "outputs.png", "ranking.png", "report.md"]
    assert first == second


def test_every_picture_that_the_report_shows_is_made() -> None:
    *pictures, text = package.render(make_report(nodes=4, raised=1)).items()
    shown = text[1].decode()
    assert [name for name, _ in pictures if f"]({name})" in shown] == [name for name, _ in pictures]
    assert shown.count("![") == len(pictures)


@pytest.mark.slow
def test_pictures_need_no_window_system() -> None:
    code = (
        "import sys, jptq.report.plots;"
        "sys.exit('matplotlib.pyplot' in sys.modules or 'jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
