from __future__ import annotations

from jptq.results import Comparison, Evaluation, Goal, OutputError, Spread
from jptq.tuning.goal import Judge


def scored(time_us: float, *shares: float) -> Evaluation:
    return Evaluation(
        name="step", shares={f"s{i}": v for i, v in enumerate(shares)}, time_us=time_us
    )


def compared(time_us: float, *cosines: float) -> Evaluation:
    zero = Spread(min=0.0, mean=0.0, max=0.0)
    outputs = tuple(
        OutputError(
            output=f"y{i}",
            cosine=Spread(min=v, mean=v, max=v),
            l1=zero,
            l2=zero,
            chebyshev=zero,
            sqnr=zero,
        )
        for i, v in enumerate(cosines)
    )
    return Evaluation(
        name="step", time_us=time_us, comparison=Comparison(outputs=outputs, samples=1)
    )


def test_the_worst_of_all_scores_counts() -> None:
    judge = Judge(Goal(min_score=0.99))
    assert scored(1, 1.0, 0.97).quality == 0.97
    assert not judge.meets(scored(1, 1.0, 0.97))
    assert judge.meets(scored(1, 1.0, 0.99))


def test_without_scores_the_worst_output_counts() -> None:
    judge = Judge(Goal(min_cosine=0.999))
    assert compared(1, 0.9999, 0.998).quality == 0.998
    assert not judge.meets(compared(1, 0.9999, 0.998))
    assert judge.meets(compared(1, 0.9999, 0.9995))


def test_a_budget_is_kept_up_to_rounding() -> None:
    judge = Judge(Goal(budget_us=100.0))
    assert judge.affords(scored(100.0 * (1 + 1e-12)))
    assert not judge.affords(scored(100.001))
    assert Judge(Goal()).affords(scored(1e9))


def test_of_those_that_meet_the_goal_the_fastest_is_better() -> None:
    judge = Judge(Goal(min_score=0.99))
    assert judge.better(scored(10, 0.99), scored(11, 1.0))
    assert judge.better(scored(99, 0.99), scored(1, 0.98))
    assert not judge.better(scored(10, 0.995), scored(10, 0.995))
    assert judge.better(scored(10, 0.995), scored(10, 0.99))


def test_of_those_that_miss_the_goal_the_best_quality_is_better() -> None:
    judge = Judge(Goal(min_score=0.99))
    assert judge.better(scored(99, 0.98), scored(1, 0.97))


def test_the_budget_comes_before_the_quality() -> None:
    judge = Judge(Goal(min_score=0.99, budget_us=50.0))
    assert judge.better(scored(50, 0.5), scored(51, 1.0))
    assert judge.better(scored(50, 0.99), scored(40, 0.98))
    assert judge.better(scored(60, 0.5), scored(70, 1.0))


def test_with_only_a_budget_the_best_quality_within_it_is_better() -> None:
    judge = Judge(Goal(budget_us=50.0))
    assert judge.better(scored(50, 0.9), scored(10, 0.8))
    assert judge.better(scored(50, 0.1), scored(51, 0.9))
    assert judge.better(scored(40, 0.9), scored(50, 0.9))


def test_where_nothing_keeps_the_budget_the_fastest_is_better() -> None:
    for goal in (Goal(budget_us=50.0), Goal(min_score=0.99, budget_us=50.0)):
        assert Judge(goal).better(scored(100, 0.7), scored(180, 1.0))


def test_anything_is_better_than_nothing() -> None:
    assert Judge(Goal()).better(scored(1, 0.0), None)
