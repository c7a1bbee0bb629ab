from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jptq.api import sweep as api
from jptq.errors import UnknownNameError
from jptq.quant.config import load_config
from jptq.quant.resolve import resolve
from jptq.report.sweep_text import sweep_table
from jptq.results import Evaluation, Goal, SensitivityTable
from jptq.tuning import Journal, Measurer, Prepared, prepare
from jptq.tuning.goal import Judge
from jptq.tuning.ranking import rank
from jptq.tuning.sweep import ladder, left, raised, selected, sweep
from tests.tuning.networks import CONFIG, evaluator
from tests.tuning.problems_by_type import near, outlier, ready, two_tasks


def table(metric: str, scores: dict[str, float]) -> SensitivityTable:
    values = np.asarray(list(scores.values()))[:, None, None]
    return SensitivityTable(
        rows=tuple(scores),
        kind="node",
        members=tuple((f"{name}_HzCalibration",) for name in scores),
        candidates=("current",),
        metrics=(metric,),
        score=values,
        stderr=values * 0.0,
        outputs=("y",),
        method="metric",
        samples=1,
    )


@pytest.mark.seed("C1")
def test_a_threshold_takes_in_what_is_printed_as_it_and_nothing_beyond() -> None:
    scores = {"a": 0.999904, "b": 0.9999051, "c": 0.98768, "d": 1.0, "e": 0.9999}
    ranking = table("cosine-similarity", scores)
    assert selected(ranking, 0.9999) == ("c", "e", "a")
    assert selected(ranking, 0.99991) == ("c", "e", "a", "b")
    assert selected(ranking, 0.98767) == ()


@pytest.mark.seed("C2")
@pytest.mark.parametrize(
    ("metric", "threshold", "taken"),
    [
        ("mse", 0.1, ("high", "at", "rounded")),
        ("mre", 0.1, ("high", "at", "rounded")),
        ("chebyshev", 0.1, ("high", "at", "rounded")),
        ("sqnr", 0.1, ("low", "rounded", "at")),
    ],
)
def test_errors_are_raised_from_the_threshold_up_and_ratios_from_it_down(
    metric: str, threshold: float, taken: tuple[str, ...]
) -> None:
    scores = {"low": 0.01, "at": 0.1, "rounded": 0.099996, "high": 164.82712, "none": np.nan}
    assert selected(table(metric, scores), threshold) == taken


def test_thresholds_that_nobody_gives_raise_twice_as_many_nodes_each_time() -> None:
    ranking = table("mse", {f"n{i}": 2.0**-i for i in range(10)})
    sizes = [len(selected(ranking, t)) for t in ladder(ranking)]
    assert sizes == [1, 2, 4, 8, 10]
    tied = table("mse", {"a": 3.0, "b": 1.0, "c": 1.0, "d": 1.0, "e": np.nan})
    assert ladder(tied) == (3.0, 1.0)


class Scripted:
    """A measurer that knows the quality of every set in advance."""

    def __init__(self, prepared: Prepared, qualities: list[float]) -> None:
        self.prepared = prepared
        self.qualities = iter(qualities)

    def __call__(self, name: str, assignment: Any) -> Evaluation:
        share = next(self.qualities)
        return Evaluation(name=name, scores={"det": share}, shares={"det": share})

    def floating(self) -> Evaluation:
        return Evaluation(name="float", scores={"det": 1.0}, shares={"det": 1.0})


def nodes_of(prepared: Prepared) -> SensitivityTable:
    return table("mse", {slots.node: 1.0 / (i + 1) for i, slots in enumerate(prepared.plan.slots)})


@pytest.mark.slow
@pytest.mark.seed("C4")
def test_a_larger_set_may_be_worse_and_the_best_row_is_kept(prepared: Prepared) -> None:
    scripted: Any = Scripted(prepared, [0.8046, 0.8695, 0.96, 0.9591, 0.95])
    judge = Judge(Goal(min_score=0.99))
    found = sweep(scripted, judge, nodes_of(prepared), thresholds=(1.0, 0.5, 0.3, 0.2))
    assert [row.evaluation.worst_share for row in found.rows] == [
        0.8046,
        0.8695,
        0.96,
        0.9591,
        0.95,
    ]
    assert (found.chosen, found.best) == (None, 2)
    assert found.taken is found.rows[2]


@pytest.mark.slow
@pytest.mark.seed("C4", "C6")
def test_the_first_row_that_meets_the_goal_is_chosen_even_if_a_later_one_is_better(
    prepared: Prepared,
) -> None:
    judge, ranking = Judge(Goal(min_score=0.99)), nodes_of(prepared)
    qualities = [0.9, 0.991, 0.98, 0.995]
    whole: Any = Scripted(prepared, qualities)
    found = sweep(whole, judge, ranking, thresholds=(1.0, 0.5, 0.3), every_row=True)
    assert (len(found.rows), found.chosen, found.best) == (4, 1, 3)
    stopped: Any = Scripted(prepared, qualities)
    found = sweep(stopped, judge, ranking, thresholds=(1.0, 0.5, 0.3))
    assert (len(found.rows), found.chosen, found.best) == (2, 1, 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outlier")


@pytest.fixture(scope="module")
def outlying(files: Path) -> Prepared:
    return ready(outlier(), files)


@pytest.fixture(scope="module")
def ranked(outlying: Prepared) -> SensitivityTable:
    return rank(outlying, outlying.all("int8"), samples=3)


@pytest.mark.slow
@pytest.mark.seed("C1", "C6")
def test_every_row_is_what_running_its_nodes_gives_and_the_config_says_the_same(
    outlying: Prepared, ranked: SensitivityTable
) -> None:
    score = near(outlier())
    measurer = Measurer(outlying, score, Journal(None))
    found = sweep(measurer, Judge(Goal(min_score=0.98)), ranked)
    assert found.rows[0].threshold is None
    assert found.rows[0].nodes == ()
    assert found.chosen == len(found.rows) - 1 > 0
    int8 = outlying.all("int8")
    for row in found.rows:
        assignment = raised(outlying.plan, int8, row.nodes)
        forward = outlying.runner.forward(outlying.table(assignment))
        assert score(forward) == row.evaluation.scores
    shape = {"model_config", "node_config"}
    assert set(found.quant_config) == shape
    assert list(found.quant_config["node_config"]) == list(found.taken.nodes)
    assert set(map(str, found.quant_config["node_config"].values())) == {"{'qtype': 'int16'}"}
    meant = resolve(
        load_config(json.loads(json.dumps(found.quant_config))),
        outlying.calibrated,
        outlying.plan,
        outlying.target,
        report=False,
    )
    assert dict(meant) == raised(outlying.plan, int8, found.taken.nodes)


@pytest.mark.slow
@pytest.mark.seed("C3")
def test_the_table_has_a_column_per_score_and_begins_with_none(tmp_path: Path) -> None:
    model = two_tasks()
    prepared = ready(model, tmp_path)
    ranking = rank(prepared, prepared.all("int8"), samples=3)
    measurer = Measurer(prepared, near(model), Journal(None))
    found = sweep(measurer, Judge(Goal(min_score=0.95)), ranking)
    lines = sweep_table(found).splitlines()
    assert lines[0].split()[:5] == ["No.", "cosine-similarity", "(<=)", "detect", "segment"]
    first = found.rows[0].evaluation
    cells = [f"{first.scores[n]:.5f}({first.scores[n]:.2%})" for n in ("detect", "segment")]
    assert lines[2].split()[:4] == ["1", "None", *cells]
    assert [line.endswith("*") for line in lines[2:]] == [
        i == found.chosen for i in range(len(found.rows))
    ]


@pytest.mark.slow
@pytest.mark.seed("C3", "C5")
def test_without_scores_there_is_a_cosine_per_output_and_min_beside_avg_if_asked(
    tmp_path: Path,
) -> None:
    prepared = ready(two_tasks(), tmp_path)
    ranking = rank(prepared, prepared.all("int8"), samples=3)
    measurer = Measurer(prepared, None, Journal(None))
    found = sweep(measurer, Judge(Goal(min_cosine=0.99)), ranking)
    assert sweep_table(found).splitlines()[0].split()[3:5] == ["detect:0", "segment:0"]
    comparison = found.rows[0].evaluation.comparison
    assert comparison is not None
    cosines = [o.cosine for o in comparison.outputs]
    lines = sweep_table(found, spread=True).splitlines()
    assert "detect:0 Min" in lines[0]
    assert "segment:0 Avg" in lines[0]
    cells = re.split(r"\s{2,}", lines[2])[2:6]
    # A cosine says little of an output that has lost channels: how many stands beside it.
    found_lost = [sum(len(one.channels) for one in o.lost) for o in comparison.outputs]
    assert found_lost[0] > 0
    assert cells == [
        f"{v:.6f}" + (f" ({lost} lost)" if lost else "")
        for c, lost in zip(cosines, found_lost, strict=True)
        for v in (c.min, c.mean)
    ]
    exact = prepared.runner.forward(None)
    rough = prepared.runner.forward(prepared.table(prepared.all("int8")))
    own = []
    for feeds in (prepared.samples[i] for i in range(len(prepared.samples))):
        a, b = (np.ravel(f(feeds)["detect:0"]).astype(np.float64) for f in (exact, rough))
        own.append(a @ b / np.sqrt((a @ a) * (b @ b)))
    np.testing.assert_allclose([cosines[0].min, cosines[0].mean], [min(own), np.mean(own)], 1e-5)


@pytest.mark.slow
@pytest.mark.seed("C11")
def test_a_second_round_ranks_and_raises_only_what_the_first_one_left(
    files: Path, outlying: Prepared, ranked: SensitivityTable
) -> None:
    judge, score = Judge(Goal(min_score=0.98)), near(outlier())
    first = sweep(Measurer(outlying, score, Journal(None)), judge, ranked)
    mixed = prepare(
        files / "model.onnx", files / "data", march="nash-e", quant_config=first.quant_config
    )
    held = dict(mixed.configured)
    assert held == raised(outlying.plan, outlying.all("int8"), first.taken.nodes)
    second = api.sweep(mixed, evaluator=score, bound=2.0, samples=3)
    done = set(first.taken.nodes)
    assert not done & set(second.ranking.rows)
    assert second.rows[0].evaluation.scores == first.taken.evaluation.scores
    base = rank(mixed, held, samples=3)
    kept = left(mixed.plan, held, base)
    at = [base.rows.index(name) for name in kept.rows]
    assert second.ranking.rows == kept.rows
    np.testing.assert_allclose(
        second.ranking.score[:, 0, 0], base.column("cosine-similarity")[at], atol=1e-9
    )
    last = second.rows[-1]
    meant = resolve(
        load_config(second.quant_config), mixed.calibrated, mixed.plan, mixed.target, report=False
    )
    assert all(meant[name] == "int16" for name, t in held.items() if t == "int16")
    assert set(last.nodes) == set(kept.rows)


@pytest.mark.slow
@pytest.mark.seed("C11")
def test_the_second_round_looks_only_at_the_output_that_still_fails(tmp_path: Path) -> None:
    model = two_tasks()
    mixed = ready(model, tmp_path, {**CONFIG, "node_config": {"outlier": {"qtype": "int16"}}})
    found = api.sweep(
        mixed,
        metric="mse",
        evaluator=near(model),
        bound=2.0,
        output_nodes=("detect",),
        samples=3,
    )
    assert found.ranking.outputs == ("detect:0",)
    assert set(found.ranking.rows) == {"stem", "outlier_loud", "detect"}
    assert found.rows[0].evaluation.raised == 1
    assert "outlier" in found.quant_config["node_config"]


@pytest.mark.slow
def test_a_resumed_sweep_scores_no_configuration_again(prepared: Prepared, tmp_path: Path) -> None:
    scored = evaluator(digest="the file")
    first = api.sweep(
        prepared, metric="mse", evaluator=scored, samples=3, journal=Journal(tmp_path)
    )
    assert scored.calls > 1

    resumed = evaluator(digest="the file")
    second = api.sweep(
        prepared, metric="mse", evaluator=resumed, samples=3, journal=Journal(tmp_path)
    )
    assert resumed.calls == 1  # of the float network: is what was found still true?
    assert second.to_json() == first.to_json()
    assert second.comparison == ">="


@pytest.mark.slow
def test_a_metric_that_does_not_exist_is_refused(prepared: Prepared) -> None:
    with pytest.raises(UnknownNameError, match="cosine"):
        api.sweep(prepared, metric="cosine")
