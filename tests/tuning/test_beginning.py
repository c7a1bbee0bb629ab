"""What a tuning does before it ranks: a fit of weights and biases where INT8 is not enough."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from jptq.results import Goal
from jptq.tuning import Evaluator, Journal, Measurer, Options, Prepared, prepare
from jptq.tuning.beginning import begin
from jptq.tuning.goal import Judge
from jptq.tuning.loop import tune_network
from tests.graphs import Graph

SAMPLES = 24


def correlated(count: int, seed: int) -> np.ndarray:
    """Return rows of few directions: where rounding errors of weights can cancel."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(0).standard_normal((4, 32))
    rows = rng.standard_normal((count, 8, 4)) @ directions
    return (rows + 0.05 * rng.standard_normal((count, 8, 32))).astype(np.float32)[:, None]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A network whose INT8 weights lose more than its features do."""
    folder = tmp_path_factory.mktemp("correlated")
    g = Graph(seed=2)
    x = g.input("x", (1, 8, 32))
    weight = np.random.default_rng(1).standard_normal((32, 16)).astype(np.float32)
    weight[0] *= 30.0  # one large element of each channel makes the steps coarse
    g.output(g.add("MatMul", x, g.constant(weight), name="project"))
    onnx.save(g.proto(), folder / "model.onnx")
    (folder / "data" / "x").mkdir(parents=True)
    for i, sample in enumerate(correlated(SAMPLES, seed=1)):
        np.save(folder / "data" / "x" / f"{i:02}.npy", sample)
    return prepare(
        folder / "model.onnx",
        folder / "data",
        march="nash-e",
        quant_config={"model_config": {"activation": {"calibration_type": "max"}}},
        fit="auto",
        fit_later=True,
    )


def score(prepared: Prepared) -> Evaluator:
    """Return one minus the relative error on rows that no one has seen."""
    rows = correlated(8, seed=9)[:, 0]
    name = prepared.floating.outputs[0].name
    wanted = rows @ next(v for v in prepared.floating.initializers.values() if v.shape == (32, 16))

    def kept(forward: Any) -> float:
        found = forward({"x": rows})[name]
        return 1.0 - float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))

    return Evaluator.of(kept)


def tuned(prepared: Prepared, goal: float) -> tuple[Any, Prepared, list[str]]:
    again: list[str] = []

    def other(config: Any) -> Prepared:
        again.append("prepared")
        return prepared

    report, of = tune_network(prepared, Options(min_score=goal), other, evaluator=score(prepared))
    return report, of, again


def test_nothing_is_fitted_where_int8_meets_the_goal(prepared: Prepared) -> None:
    report, of, again = tuned(prepared, 0.5)
    assert (of.fit, report.final.raised, again) == (None, 0, [])


def test_where_it_misses_the_goal_weights_are_fitted_before_anything_is_ranked(
    prepared: Prepared,
) -> None:
    unfitted = tuned(prepared, 0.5)[0]
    report, of, _ = tuned(prepared, 0.9999)
    assert of.fit is not None
    assert of.fit.kept
    assert of.fit.fitted < 0.5 * of.fit.plain
    assert report.int8.quality > unfitted.int8.quality
    assert report.notes[0].startswith(
        "Weights and biases are fitted to the samples: all-INT8 gives"
    )
    assert of.digest != prepared.digest


def test_the_float_network_stays_the_one_that_was_given(prepared: Prepared) -> None:
    fitted = prepared.fitted
    assert fitted is not None
    feeds = {"x": correlated(2, seed=5)[:, 0]}
    mine, theirs = (one.runner.forward(None)(feeds) for one in (prepared, fitted()))
    for name, values in mine.items():
        np.testing.assert_array_equal(values, theirs[name])


def test_a_fit_that_the_score_is_against_is_not_used(prepared: Prepared) -> None:
    """The errors of the outputs are for it: the score sees what they do not."""
    given = prepared.fitted
    assert given is not None
    whole = given()
    name = prepared.floating.outputs[0].name
    feeds = {"x": correlated(8, seed=9)[:, 0]}
    floats = prepared.runner.forward(None)(feeds)[name]
    finest = whole.runner.forward(whole.table(whole.all("int16")))(feeds)[name]

    def against(forward: Any) -> float:
        found = forward(feeds)[name]
        if np.array_equal(found, floats):
            return 1.0
        return 0.5 if np.array_equal(found, finest) else 0.9

    report, of = tune_network(
        prepared,
        Options(min_score=0.9999, search="walk", leftovers="int8"),
        lambda config: prepared,
        evaluator=Evaluator.of(against),
    )
    assert of.digest == prepared.digest
    assert of.fit is not None
    assert (of.fit.kept, of.fit.reason) == (
        False,
        "the score that the goal bounds is better without",
    )
    assert report.notes[0].startswith("Fitted weights and biases are not used: all-INT8 gives")


def test_a_fit_is_not_taken_back_for_a_score_above_the_goal(prepared: Prepared) -> None:
    given = prepared.fitted
    assert given is not None
    whole = given()
    name = prepared.floating.outputs[0].name
    feeds = {"x": correlated(8, seed=9)[:, 0]}
    floats = prepared.runner.forward(None)(feeds)[name]
    finest = [
        one.runner.forward(one.table(one.all("int16")))(feeds)[name] for one in (prepared, whole)
    ]

    def told(forward: Any) -> float:
        found = forward(feeds)[name]
        if any(np.array_equal(found, one) for one in (floats, finest[0])):
            return 1.0
        return 0.995 if np.array_equal(found, finest[1]) else 0.9

    report, of = tune_network(
        prepared,
        Options(min_score=0.99, search="walk"),
        lambda config: prepared,
        evaluator=Evaluator.of(told),
    )
    assert of.digest == whole.digest
    assert report.int16.quality == 0.995


def test_nothing_is_fitted_once_time_is_up(prepared: Prepared) -> None:
    measurer = Measurer(prepared, score(prepared), Journal(None))
    judge = Judge(Goal(min_score=0.9999))
    begun = begin(measurer, judge, Options(), lambda config: prepared, deadline=0.0)
    assert begun.measurer.prepared.fit is None
    assert begun.measurer.prepared.digest == prepared.digest
