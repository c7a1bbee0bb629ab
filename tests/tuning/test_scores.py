from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from jptq.errors import EvaluatorError
from jptq.tuning.evaluator import Evaluator, Forward
from jptq.tuning.journal import Journal
from jptq.tuning.scores import Scores
from jptq.user_code import UserFunction


def model(level: float) -> Callable[[], Forward]:
    """Return what gives a model whose only output is a number."""
    return lambda: lambda feeds: {"y": np.asarray(level)}


def evaluator(*noise: float, plus: float = 0.0) -> Evaluator:
    """Score a model by its output, with an error that follows a list and then stays 0."""
    errors: Iterator[float] = iter(noise)

    def evaluate(forward: Forward) -> float:
        return float(forward({})["y"]) + next(errors, 0.0) + plus

    return Evaluator(UserFunction(call=evaluate, where="score.py:evaluate", digest="the file"))


def scores(scored: Evaluator, folder: Path | None = None) -> Scores:
    return Scores(scored, Journal(folder), "network")


def test_the_float_model_is_scored_twice_and_once_asked_for() -> None:
    scored = evaluator()
    found = scores(scored)
    for _ in range(3):
        assert found.floating(model(0.8)) == {"score": 0.8}
    assert scored.calls == found.calls == 2
    assert found.noise == {"score": 0.0}


@pytest.mark.parametrize("error", [2e-7, -1e-7])
def test_a_difference_of_rounding_is_no_difference(error: float) -> None:
    assert scores(evaluator(0.0, error)).floating(model(0.5)) == {"score": 0.5}


def test_a_small_difference_is_kept_for_the_report() -> None:
    found = scores(evaluator(0.0, 2e-4))
    assert found.floating(model(0.5)) == {"score": 0.5}
    assert found.noise["score"] == pytest.approx(4e-4, rel=1e-3)


@pytest.mark.parametrize("level", [0.5, -0.5])
def test_chance_is_refused_with_both_scores(level: float) -> None:
    with pytest.raises(EvaluatorError, match="differently each time") as caught:
        scores(evaluator(0.0, 0.002)).floating(model(level))
    assert f"{level:g}" in caught.value.why
    assert f"{level + 0.002:g}" in caught.value.why


def test_scores_that_come_and_go_are_refused() -> None:
    names = iter(("a", "b"))

    def evaluate(forward: Forward) -> Mapping[str, float]:
        return {next(names): float(forward({})["y"])}

    with pytest.raises(EvaluatorError, match="differently each time"):
        scores(Evaluator.of(evaluate)).floating(model(0.5))


def test_a_float_score_of_zero_is_refused_unless_another_says_something() -> None:
    with pytest.raises(EvaluatorError, match="scores 0") as caught:
        scores(evaluator()).floating(model(0.0))
    assert "1 - e" in caught.value.hint

    def evaluate(forward: Forward) -> Mapping[str, float]:
        return {"rare": 0.0, "common": float(forward({})["y"])}

    assert scores(Evaluator.of(evaluate)).floating(model(0.7))["rare"] == 0.0


def test_a_resumed_run_scores_float_once_and_nothing_else(tmp_path: Path) -> None:
    first = scores(evaluator(), tmp_path)
    first.floating(model(0.8))
    assert first.of("int8", forward=model(0.7)) == {"score": 0.7}
    scored = evaluator()
    later = scores(scored, tmp_path)
    assert later.floating(model(0.8)) == {"score": 0.8}
    assert later.of("int8", forward=model(99.0)) == {"score": 0.7}
    assert scored.calls == 1
    assert later.calls == first.calls == 3


def test_findings_on_other_data_are_dropped_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = scores(evaluator(), tmp_path)
    before.floating(model(0.8))
    before.of("int8", forward=model(0.7))
    changed = scores(evaluator(plus=-0.1), tmp_path)
    with caplog.at_level(logging.WARNING):
        assert changed.floating(model(0.8)) == {"score": pytest.approx(0.7)}
    assert "what the evaluator reads has changed" in caplog.text
    assert "0.8" in caplog.text
    assert changed.of("int8", forward=model(0.7)) == {"score": pytest.approx(0.6)}
    again = scores(evaluator(plus=-0.1), tmp_path)
    caplog.clear()
    again.floating(model(0.8))
    assert again.of("int8", forward=model(99.0)) == {"score": pytest.approx(0.6)}
    assert not caplog.records


def test_an_evaluator_with_noise_is_resumed_within_its_noise(tmp_path: Path) -> None:
    scores(evaluator(0.0, 3e-4), tmp_path).floating(model(0.8))
    scored = evaluator(2e-4)
    assert scores(scored, tmp_path).floating(model(0.8)) == {"score": 0.8}
    assert scored.calls == 1


def test_a_function_of_the_program_is_not_kept(tmp_path: Path) -> None:
    for level in (0.7, 0.6):
        found = scores(Evaluator.of(lambda forward: float(forward({})["y"])), tmp_path)
        found.floating(model(0.8))
        assert found.of("int8", forward=model(level)) == {"score": level}
