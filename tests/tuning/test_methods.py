"""Calibration methods chosen by the score, on made-up networks and on a real small one."""

from __future__ import annotations

import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import jptq
from jptq.errors import NonFiniteScoreError
from jptq.results import Evaluation, Goal, MethodTrial, Outcome
from jptq.tuning.goal import Judge
from jptq.tuning.methods import FRONT, OTHERS, settled
from tests.graphs import Graph

JUDGE = Judge(Goal(min_score=0.99))


class Runs:
    """Stands for a measurer: scores by method, all-INT8 and all-INT16."""

    def __init__(self, method: str, scores: Mapping[str, tuple[float, float]], ran: list[str]):
        self.method, self.scores, self.ran = method, scores, ran
        self.prepared: Any = types.SimpleNamespace(
            method=method,
            methods=(),
            rivals={},
            all=lambda qtype: {"quantizer": qtype},
        )

    def on(self, prepared: Any) -> Runs:
        return Runs(prepared.method, self.scores, self.ran)

    def __call__(self, name: str, assignment: Mapping[str, str]) -> Evaluation:
        qtype = assignment["quantizer"]
        self.ran.append(f"{self.method} {qtype}")
        share = self.scores[self.method][qtype == "int16"]
        if np.isnan(share):
            raise NonFiniteScoreError("score 'score' is nan")
        return Evaluation(name=name, shares={"score": share})


def tried(
    scores: Mapping[str, tuple[float, float]], losses: Mapping[str, tuple[float, float]]
) -> tuple[Any, list[str]]:
    """Settle a network whose first method is chosen by its losses; also what was run for it."""
    ran: list[str] = []
    first = next(iter(losses))
    measurer = Runs(first, scores, ran)
    measurer.prepared.methods = tuple(
        MethodTrial(method=name, int8=int8, int16=int16, chosen=name == first)
        for name, (int8, int16) in losses.items()
    )
    measurer.prepared.rivals = {
        name: lambda name=name: Runs(name, scores, ran).prepared for name in losses if name != first
    }
    return settled(measurer, JUDGE, lambda prepared: prepared), list(dict.fromkeys(ran))  # type: ignore[arg-type]


def test_where_all_int8_meets_the_goal_nothing_else_runs() -> None:
    found, ran = tried({"max": (0.995, 1.0), "kl": (1.0, 1.0)}, {"max": (0.2, 0), "kl": (0.1, 0)})
    assert (found.measurer.method, ran, found.note) == ("max", ["max int8"], "")


def test_where_all_int16_misses_the_others_are_tried_before_anything_else() -> None:
    found, ran = tried({"kl": (0.9, 0.9), "max": (1.0, 1.0)}, {"kl": (0.1, 1e-3), "max": (0.2, 0)})
    assert found.measurer.method == "max"
    assert ran == ["kl int8", "kl int16", "max int16", "max int8"]
    assert [one.chosen for one in found.methods] == [False, True]
    assert found.note == (
        "Calibrated by max: all-INT16 gives 1.00000 (measured); by kl, in front by the errors of "
        "the outputs, 0.90000."
    )


def test_a_little_at_int16_is_not_bought_by_all_of_int8() -> None:
    losses = {"max": (0.1, 1e-3), "kl": (0.1, 0.9e-3)}
    kept, _ = tried({"max": (0.34, 0.985), "kl": (0.0, 0.988)}, losses)
    assert kept.measurer.method == "max"
    taken, _ = tried({"max": (0.34, 0.985), "kl": (0.3, 0.988)}, losses)
    assert taken.measurer.method == "kl"


def test_what_int8_gains_is_not_paid_at_int16() -> None:
    losses = {"max": (0.1, 0.0), "mix": (0.05, 1e-3)}
    kept, ran = tried({"max": (0.84, 1.0), "mix": (0.92, 0.963)}, losses)
    assert (kept.measurer.method, ran[-1]) == ("max", "mix int16")
    taken, _ = tried({"max": (0.84, 1.0), "mix": (0.92, 0.995)}, losses)
    assert taken.measurer.method == "mix"


def test_a_method_whose_score_is_no_number_loses() -> None:
    losses = {"max": (0.1, 0.0), "kl": (0.05, 1e-4)}
    kept, _ = tried({"max": (0.84, 0.9), "kl": (np.nan, np.nan)}, losses)
    assert kept.measurer.method == "max"
    assert [one.int8_quality for one in kept.methods] == [0.84, -np.inf]
    assert MethodTrial.from_json(kept.methods[1].to_json()) == kept.methods[1]


def test_the_network_itself_needs_a_number() -> None:
    with pytest.raises(NonFiniteScoreError):
        tried({"max": (np.nan, 0.9), "kl": (0.9, 0.9)}, {"max": (0.1, 0.0), "kl": (0.1, 0.0)})


def test_a_gain_that_chance_gives_too_does_not_replace_what_the_errors_chose() -> None:
    found, ran = tried({"max": (0.90, 1), "kl": (0.92, 1)}, {"max": (0.1, 0), "kl": (0.11, 0)})
    assert "kl int8" in ran
    assert found.measurer.method == "max"


def test_of_the_methods_in_front_the_one_with_the_clearly_best_score_is_taken() -> None:
    scores = {"max": (0.90, 1.0), "a": (0.94, 1.0), "b": (0.97, 1.0), "far": (0.98, 1.0)}
    losses = {"max": (0.10, 0.0), "a": (0.11, 0.0), "b": (0.12, 0.0), "far": (0.16, 0.0)}
    found, ran = tried(scores, losses)
    assert found.measurer.method == "b"
    assert not any(one.startswith("far") for one in ran)


def test_few_methods_are_scored_however_many_there_are() -> None:
    names = [f"m{i}" for i in range(12)]
    losses = {name: (0.1 + 0.001 * i, 0.0) for i, name in enumerate(names)}
    _, ran = tried(dict.fromkeys(names, (0.5, 0.6)), losses)
    assert len(ran) == 2 + OTHERS + FRONT


def test_methods_that_lose_the_same_are_one_method_and_scored_once() -> None:
    """Where nothing is clipped many of them find the same thresholds."""
    names = [f"m{i}" for i in range(4)]
    _, ran = tried(dict.fromkeys(names, (0.5, 0.995)), dict.fromkeys(names, (0.1, 0.0)))
    assert ran == ["m0 int8", "m0 int16"]


def test_without_a_quality_to_reach_no_method_is_scored() -> None:
    ran: list[str] = []
    measurer = Runs("max", {"max": (0.1, 0.1)}, ran)
    measurer.prepared.methods = (MethodTrial(method="max", int8=0, int16=0, chosen=True),) * 2
    settled(measurer, Judge(Goal(budget_us=1.0)), lambda one: one)  # type: ignore[arg-type]
    assert ran == []


LENGTH = 4096


def spectrum() -> onnx.ModelProto:
    """Tell how loud a sound is: the power of a few of many values is all that counts."""
    g = Graph(seed=1)
    x = g.input("x", (1, 1, 1, LENGTH))
    power = g.add("Mul", x, x, name="power")
    level = g.add("MaxPool", power, kernel_shape=[1, LENGTH], name="level")
    g.output(g.add("Sqrt", level, name="loudness"))
    return g.proto()


def sounds(count: int, seed: int) -> np.ndarray:
    """Return quiet noise with one loud value in each; 40 decibels lie between the loudest."""
    rng = np.random.default_rng(seed)
    x = 0.05 * rng.standard_normal((count, 1, 1, 1, LENGTH))
    x[np.arange(count), 0, 0, 0, rng.integers(0, LENGTH, count)] = np.linspace(2.0, 40.0, count)
    return x.astype(np.float32)


def test_a_power_spectrum_keeps_its_range(tmp_path: Path) -> None:
    """Clipping loud values away costs all of them, and the first sample may be a quiet one."""
    onnx.save(spectrum(), tmp_path / "model.onnx")
    (tmp_path / "data" / "x").mkdir(parents=True)
    for i, sound in enumerate(sounds(16, seed=0)):
        np.save(tmp_path / "data" / "x" / f"{i:02}.npy", sound)
    data = sounds(32, seed=1)[:, 0]

    def right(forward: Any) -> float:
        """Share of the sounds whose loudness is told within a tenth."""
        loudness = np.asarray(next(iter(forward({"x": data}).values()))).reshape(-1)
        truth = np.abs(data).reshape(len(data), -1).max(1)
        return float(np.mean(np.abs(loudness / truth - 1) < 0.1))

    report = jptq.tune(
        tmp_path / "model.onnx", tmp_path / "data", out=tmp_path / "out", evaluator=right
    )
    assert report.outcome is Outcome.MET
    taken = next(one for one in report.methods if one.chosen)
    assert not taken.clips_much
    clipping = [one for one in report.methods if one.clipped > 2]
    assert clipping
    assert all("INT16" in one.why for one in clipping)
