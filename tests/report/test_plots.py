from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from jptq import report as package
from jptq.report import canvas, curves, plots
from jptq.results import Evaluation, Lost, Report, Spread
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


def with_shares(report: Report, change: Callable[[float], float]) -> Report:
    """Return a report with other scores."""

    def changed(one: Evaluation) -> Evaluation:
        return dataclasses.replace(one, shares={n: change(v) for n, v in one.shares.items()})

    return dataclasses.replace(
        report,
        **{name: changed(getattr(report, name)) for name in ("int8", "int16", "final")},
        steps=tuple(map(changed, report.steps)),
        pareto=tuple(map(changed, report.pareto)),
    )


def test_a_hopeless_int8_does_not_press_the_rest_into_a_line() -> None:
    report = make_report()
    hopeless = dataclasses.replace(report.int8, shares={"box_f1": 0.0})
    span = curves.pareto(dataclasses.replace(report, int8=hopeless)).span
    assert 0.9 < span.low < 0.99
    assert span.high == 1.0


def test_the_span_never_begins_above_a_marked_quality_other_than_int8() -> None:
    pareto = curves.pareto(make_report(met=False))
    assert pareto.span.low <= min(p.quality for p in pareto.marked if p.name != "all-INT8")


SHARES = {
    "usual": lambda v: v,
    "all within a millionth of float": lambda v: 1 - (1 - v) * 1e-6,
    "all equal to float": lambda v: 1.0,
    "better than float": lambda v: 1.17 - (1 - v) * 2,
    "far from the goal": lambda v: 0.3 * v,
    "zeros among them": lambda v: max(0.0, 12 * v - 11.6),
    "negative": lambda v: v - 1.2,
}


@pytest.mark.parametrize("name", SHARES)
def test_shares_are_labelled_in_full_and_points_take_at_least_half_of_the_height(
    name: str,
) -> None:
    report = with_shares(make_report(), SHARES[name])
    pareto = curves.pareto(report)
    figure = drawn(plots.draw_pareto(pareto))
    (axes,) = figure.axes
    texts = [label.get_text() for label in axes.get_yticklabels()]
    assert axes.yaxis.get_offset_text().get_text() == ""
    assert axes.xaxis.get_offset_text().get_text() == ""
    low, high = axes.get_ylim()
    ticks = [tick for tick in axes.get_yticks() if low <= tick <= high]
    read = [float(text.replace(",", "")) for text in texts]
    assert len(ticks) >= 3
    assert set(np.round(ticks, 6)) <= set(np.round(read, 6))
    qualities = [100 * p.quality for p in (*pareto.steps, *pareto.marked)]
    if min(qualities) >= 0:
        assert low >= 0
    shown = [q for q in qualities if q >= low]
    if max(shown) - min(shown) > 0.1:
        assert max(shown) - min(shown) > 0.35 * (high - low)
    assert apart(axes.get_yticklabels())
    assert apart(axes.get_xticklabels())


def test_a_goal_that_nothing_comes_near_is_named_instead_of_drawn() -> None:
    near = plots.draw_pareto(curves.pareto(make_report()))
    far = plots.draw_pareto(curves.pareto(with_shares(make_report(), lambda v: 0.3 * v)))
    cosine = plots.draw_pareto(curves.pareto(make_report(evaluator=False, outputs=3)))
    assert legend(near)[-2:] == ["float: 100 %", "goal: 99 %"]
    assert legend(far)[-2:] == ["float: 100 % (far above)", "goal: 99 % (far above)"]
    assert legend(cosine)[-1] == "goal: 0.999"


@pytest.mark.parametrize(
    ("change", "goal"),
    [
        (lambda v: v, "goal: 0.999"),
        (lambda v: 1 - (1 - v) * 1e-6, "goal: 0.999 (far below)"),
        (lambda v: 0.4 - (1 - v) * 0.01, "goal: 0.999 (far above)"),
        (lambda v: 1 - (1 - v) * 20, "goal: 0.999"),
    ],
    ids=["usual", "next to 1", "near 0.4", "negative ones"],
)
def test_cosines_are_labelled_as_cosines(change: Callable[[float], float], goal: str) -> None:
    report = make_report(evaluator=False, outputs=3)

    def changed(one: Evaluation) -> Evaluation:
        assert one.comparison is not None
        outputs = tuple(
            dataclasses.replace(
                o,
                cosine=Spread(
                    **{n: max(change(getattr(o.cosine, n)), -1.0) for n in ("min", "mean", "max")}
                ),
            )
            for o in one.comparison.outputs
        )
        comparison = dataclasses.replace(one.comparison, outputs=outputs)
        return dataclasses.replace(one, comparison=comparison)

    moved = dataclasses.replace(
        report,
        **{name: changed(getattr(report, name)) for name in ("int8", "int16", "final")},
        steps=tuple(map(changed, report.steps)),
        pareto=tuple(map(changed, report.pareto)),
    )
    figure = drawn(plots.draw_pareto(curves.pareto(moved)))
    (axes,) = figure.axes
    cosines = [float(label.get_text()) for label in axes.get_yticklabels()]
    np.testing.assert_allclose(cosines, 1 - axes.get_yticks(), atol=1e-9)
    assert len(cosines) >= 3
    assert min(cosines) >= -1.0
    assert apart(axes.get_yticklabels())
    assert legend(figure)[-1] == goal


@pytest.mark.parametrize("budget", [20.0, 1e6])
def test_a_budget_far_from_the_points_is_named_instead_of_drawn(budget: float) -> None:
    figure = drawn(plots.draw_pareto(curves.pareto(make_report(budget_us=budget))))
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    assert high - low < 2 * (2291.7 - 1180.4)
    assert "(far " in legend(figure)[-1]


def test_times_next_to_each_other_are_told_apart() -> None:
    report = make_report()
    near = dataclasses.replace(
        report,
        steps=(),
        pareto=(),
        int8=dataclasses.replace(report.int8, time_us=1180.4),
        int16=dataclasses.replace(report.int16, time_us=1180.4004),
        final=dataclasses.replace(report.final, time_us=1180.4001),
    )
    (axes,) = drawn(plots.draw_pareto(curves.pareto(near))).axes
    assert axes.xaxis.get_offset_text().get_text() == ""
    texts = [label.get_text() for label in axes.get_xticklabels()]
    assert len(set(texts)) == len(texts)
    assert all(text.startswith(("1,180.39", "1,180.40")) for text in texts)
    assert apart(axes.get_xticklabels())


@pytest.mark.parametrize("outputs", [1, 11])
@pytest.mark.parametrize("error", [1e-9, 1e-3, 0.8])
def test_nothing_that_is_written_in_the_picture_of_outputs_collides(
    outputs: int, error: float
) -> None:
    data = curves.outputs(make_report(outputs=outputs))
    long = tuple(f"/a/very/long/name/of/a/branch/of/the/head/{i}/out" for i in range(outputs))
    whiskers = tuple(
        curves.Whisker(mean=max(error, 1e-8), best=max(error / 3, 1e-8), worst=max(2 * error, 1e-8))
        for _ in range(outputs)
    )
    figure = drawn(
        plots.draw_outputs(
            dataclasses.replace(
                data, outputs=long, series=dict.fromkeys(data.series, whiskers), left_out=13
            )
        )
    )
    (axes,) = figure.axes
    assert apart(axes.get_xticklabels(which="both"))
    assert apart(axes.get_yticklabels())
    assert len([t for t in axes.get_xticks() if axes.get_xlim()[0] <= t <= axes.get_xlim()[1]]) > 1
    written = [axes.xaxis.label, figure.legends[0], figure._suptitle]
    boxes = [one.get_window_extent() for one in written]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert all(figure.bbox.x0 - 1 <= box.x0 and box.x1 <= figure.bbox.x1 + 1 for box in boxes)


def test_the_legend_of_every_type_does_not_cover_the_ranking() -> None:
    ranking = curves.ranking(make_report(nodes=40, raised=0))
    bars = tuple(
        dataclasses.replace(bar, candidate=name)
        for bar, name in zip(ranking.bars, itertools.cycle(plots.PRECISIONS), strict=False)
    )
    figure = drawn(plots.draw_ranking(dataclasses.replace(ranking, bars=bars)))
    (axes,) = figure.axes
    boxes = [
        one.get_window_extent() for one in (axes.xaxis.label, figure.legends[0], figure._suptitle)
    ]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert boxes[1].x0 >= figure.bbox.x0
    assert apart(axes.get_xticklabels(which="both"))


def drawn(figure: Figure) -> Figure:
    with canvas.styled():
        figure.draw_without_rendering()
    return figure


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def apart(texts: Sequence[Text]) -> bool:
    """Tell whether no two texts that are drawn overlap."""
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    return not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


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
def test_a_picture_can_be_drawn_of(report: Report, draw: Callable[[Report], Figure]) -> None:
    assert canvas.png(draw(report)).startswith(PNG)


def test_odd_names_are_drawn_as_they_are() -> None:
    ranking = curves.ranking(make_report(nodes=3, raised=0))
    odd = dataclasses.replace(ranking.bars[0], node="a$_{b}$ \u4e2d", stderr=1e-3)
    figure = plots.draw_ranking(dataclasses.replace(ranking, bars=(odd,)))
    assert canvas.png(figure).startswith(PNG)


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


def _hidden() -> Report:
    """A report whose all-INT8 has no number for an output, and whose all-INT16 loses channels."""
    report = make_report(outputs=2, evaluator=False)

    def changed(of: Evaluation, **fields: object) -> Evaluation:
        assert of.comparison is not None
        first, *others = of.comparison.outputs
        outputs = (dataclasses.replace(first, **fields), *others)
        return dataclasses.replace(
            of, comparison=dataclasses.replace(of.comparison, outputs=outputs)
        )

    nan = Spread(min=np.nan, mean=np.nan, max=np.nan)
    broken = dict.fromkeys(("cosine", "l1", "l2", "chebyshev", "sqnr"), nan)
    lost = (Lost(axis=1, channels=(4, 5), correlation=0.0, magnitude=1.0),)
    return dataclasses.replace(
        report,
        int8=changed(report.int8, **broken, broken=7, elements=8),
        int16=changed(report.int16, lost=lost),
    )


def test_what_a_cosine_hides_stands_in_every_part_of_a_report() -> None:
    report = _hidden()
    pages = package.render(report)
    assert all(page.startswith(PNG) for name, page in pages.items() if name.endswith(".png"))
    (compared,) = [t for t in package.tables(report) if "least mean cosine (measured)" in t.rows[0]]
    rows = {row[0]: row[1:] for row in compared.rows}
    assert rows["least mean cosine (measured)"][1] == "nan"
    assert rows["elements not finite (measured)"][1:3] == ("7", "0")
    assert rows["channels lost (measured)"][1:3] == ("0", "2")
    points = {point.name: point.text for point in curves.pareto(report).marked}
    assert points["all-INT8"] == "nan"
    assert points["all-INT16"].endswith("(2 lost)")
    assert np.isnan(curves.outputs(report).series["all-INT8"][0].mean)
    json.dumps(report.to_json(), allow_nan=False)
