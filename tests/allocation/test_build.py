from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jptq.allocation import SOLVERS, Coupling, build, milp
from jptq.errors import ConfigError, UnknownNameError
from jptq.quant.plan import Calibration, Plan, Slots
from jptq.results import LatencyTable, NodeTime, SensitivityTable

BOTH = ("int8", "int16")


def calibration(name: str, *allowed: str, dual: bool = False) -> Calibration:
    return Calibration(
        name=name,
        tensor=f"{name}_t",
        output=f"{name}_q",
        kind="weight" if dual else "feature",
        allowed=allowed or BOTH,
        dual=dual,
    )


PLAN = Plan(
    calibrations=(
        calibration("x"),
        calibration("w", "int8", dual=True),
        calibration("r", "int8"),
        calibration("y"),
    ),
    slots=(
        Slots(node="conv", op="Conv", inputs={0: "x", 1: "w"}),
        Slots(node="sigmoid", op="Sigmoid", inputs={0: "x"}, output="y"),
        Slots(node="resize", op="Resize", inputs={0: "r"}),
    ),
)


def node(name: str, first: tuple[str, ...], second: tuple[str, ...] = ()) -> NodeTime:
    times = {"int8": 1.0, "int16": 2.0, "dual-int16": 4.0, "float32": 9.0}
    return NodeTime(node=name, op="", first=first, second=second, macs=1, bytes=1, time_us=times)


LATENCY = LatencyTable(
    target="test",
    nodes=(node("conv", ("x",), ("w",)), node("sigmoid", ("x",)), node("resize", ("r",))),
)


def scores(
    rows: dict[str, tuple[str, ...]] | None = None, metric: str = "mse", **changed: float
) -> SensitivityTable:
    members = rows or {"x": ("x",), "w": ("w",), "r": ("r",), "y": ("y",)}
    score = np.array([[[changed.get(name, 1.0)], [0.25]] for name in members])
    return SensitivityTable(
        rows=tuple(members),
        kind="group",
        members=tuple(members.values()),
        candidates=BOTH,
        metrics=(metric,),
        score=score,
        stderr=np.zeros_like(score),
        outputs=("out",),
        method="metric",
        samples=1,
    )


def test_the_calibration_of_a_graph_output_joins_the_input_of_its_producer() -> None:
    assert PLAN.groups == (("x", "y"), ("w",), ("r",))


def test_rows_within_a_group_are_added_and_the_rest_is_as_the_target_allows() -> None:
    problem = build(PLAN, LATENCY, scores(x=3.0), base_error=0.5)
    assert [group.types for group in problem.groups] == [BOTH, BOTH, ("int8",)]
    assert problem.errors[0].tolist() == [[4.0, 0.5], [1.0, 0.25], [1.0, 0.25]]
    assert problem.couplings == (Coupling(second=1, first=(0,)),)
    assert problem.error(problem.lowest()) == 6.5
    assert problem.time_us(problem.highest()) == 4.0 + 2.0 + 1.0


def test_a_weight_is_never_raised_beside_an_int8_feature() -> None:
    # The weight alone would be the better buy; with its feature it is no longer affordable.
    problem = build(PLAN, LATENCY, scores(w=100.0))
    assert milp.solve(problem, 6.0).assignment["w"] == "int8"
    assert milp.solve(problem, 7.0).assignment == {
        "x": "int16",
        "y": "int16",
        "w": "int16",
        "r": "int8",
    }


def test_a_pin_holds_for_the_whole_group() -> None:
    problem = build(PLAN, LATENCY, scores(), pins={"y": "int8"})
    assert set(milp.solve(problem, 1e9).assignment.values()) == {"int8"}
    problem = build(PLAN, LATENCY, scores(), pins={"x": "float32"})
    assert problem.time_us(problem.lowest()) == 9.0 + 9.0 + 1.0
    assert problem.errors[0, 0].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("solver", SOLVERS)
def test_float16_is_kept_and_taken_for_int16(solver: str) -> None:
    plan = dataclasses.replace(
        PLAN,
        calibrations=tuple(
            dataclasses.replace(one, allowed=(*BOTH, "float16")) if one.name in "xy" else one
            for one in PLAN.calibrations
        ),
    )
    for problem in (
        build(plan.pinned({"x": "float16", "y": "float16"}), LATENCY, scores()),
        build(plan, LATENCY, scores(), pins={"x": "float16", "y": "float16"}),
    ):
        found = SOLVERS[solver](problem, 1e9).assignment
        assert found == {"x": "float16", "y": "float16", "w": "int16", "r": "int8"}
        assert problem.time_us(problem.choice(found)) == LATENCY.total_us(found) == 4.0 + 2.0 + 1.0
        assert not problem.free[0]
        assert problem.error(problem.lowest()) == 0.25 + 0.25 + 1.0 + 1.0


def test_a_pinned_weight_takes_its_feature_along() -> None:
    problem = build(PLAN, LATENCY, scores(), pins={"w": "int16"})
    allocation = milp.solve(problem, 1e9)
    assert allocation.assignment["x"] == "int16"
    assert milp.solve(problem, 6.0).bound == 7.0


def test_a_candidate_without_a_score_is_not_offered() -> None:
    table = scores()
    table.score[1, 1, 0] = np.nan
    assert build(PLAN, LATENCY, table).groups[1].types == ("int8",)


def test_one_table_per_output_gives_one_error_per_output() -> None:
    problem = build(PLAN, LATENCY, scores(), scores(x=5.0), weights=[1.0, 2.0], limits=[9.0, 3.0])
    assert problem.errors.shape == (2, 3, 2)
    assert problem.error(problem.lowest()) == 4.0 + 2 * 8.0
    assert milp.solve(problem, 1e9).predicted_error == 1.75 + 2 * 1.75


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (scores(metric="cosine-similarity"), "higher is better"),
        (scores({"a": ("x", "w"), "r": ("r",), "y": ("y",)}), "decision group"),
        (scores({"x": ("x",), "w": ("w",), "y": ("y",)}), "without a score"),
        (scores(x=np.inf), "finite"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(table: SensitivityTable, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(PLAN, LATENCY, table, metric=table.metrics[0])


@pytest.mark.parametrize(
    ("pins", "words"),
    [
        ({"z": "int8"}, "unknown calibration"),
        ({"x": "int4"}, "unknown type"),
        ({"r": "int16"}, "not accepted"),
        ({"x": "int8", "y": "int16"}, "disagree"),
    ],
)
def test_a_pin_that_cannot_hold_is_refused(pins: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(PLAN, LATENCY, scores(), pins=pins)


def test_a_latency_table_of_another_plan_is_refused() -> None:
    other = LatencyTable(target="test", nodes=(node("n", ("elsewhere",)),))
    with pytest.raises(UnknownNameError, match="elsewhere"):
        build(PLAN, other, scores())
