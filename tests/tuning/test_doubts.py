from __future__ import annotations

import pytest

from jptq.results import Comparison, Evaluation, OutputError, Spread
from jptq.tuning.doubts import doubts


def run(error: float, **scores: float) -> Evaluation:
    """Return a configuration whose only output has an error."""
    same, worst = (Spread(min=v, mean=v, max=v) for v in (1.0 - error, error))
    output = OutputError(output="y", cosine=same, l1=worst, l2=worst, chebyshev=worst, sqnr=worst)
    return Evaluation(
        name="any", scores=scores, comparison=Comparison(outputs=(output,), samples=1)
    )


def floating(noise: float = 0.0, **scores: float) -> Evaluation:
    return Evaluation(name="float", scores=scores, noise=dict.fromkeys(scores, noise))


def test_a_score_that_moves_is_not_doubted() -> None:
    assert doubts(floating(a=0.9), [run(0.1, a=0.8), run(0.01, a=0.9)]) == ()


def test_a_score_that_nothing_moves_is_named_with_the_outputs_that_moved() -> None:
    found = [run(0.125, a=0.8, b=1.0), run(0.25, a=0.7, b=1.0)]
    (said,) = doubts(floating(a=0.9, b=1.0), found)
    assert said.startswith("Score 'b' is 1 for float and for every quantized configuration")
    assert "0.750000" in said


def test_outputs_that_do_not_move_are_no_reason_to_doubt_the_score() -> None:
    assert doubts(floating(a=0.9), [run(0.0, a=0.9), run(0.0, a=0.9)]) == ()
    assert doubts(floating(a=0.9), [run(0.0, a=0.9), run(0.1, a=0.8)]) == ()


@pytest.mark.parametrize(("value", "word"), [(0.0, "is 0"), (-0.5, "below 0")])
def test_a_float_score_that_is_not_above_zero_is_said(value: float, word: str) -> None:
    (said,) = doubts(floating(a=value, b=1.0), [run(0.1, a=value - 1, b=0.5)])
    assert word in said


def test_noise_beyond_rounding_is_said() -> None:
    (said,) = doubts(floating(noise=4e-4, a=0.5), [run(0.1, a=0.4)])
    assert "'a' by 0.04 %" in said
    assert not doubts(floating(noise=5e-7, a=0.5), [run(0.1, a=0.4)])


def test_without_scores_there_is_nothing_to_doubt() -> None:
    assert doubts(floating(), [run(0.1)]) == ()
