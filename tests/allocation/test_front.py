from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jptq.allocation import least_us, milp, pareto
from jptq.allocation.front import budgets
from jptq.errors import ConfigError
from tests.allocation.problems import random_problem


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_more_time_buys_less_error_along_the_front(seed: int) -> None:
    front = pareto(random_problem(seed, nodes=8), 8)
    times = [allocation.time_us for allocation in front]
    errors = [allocation.predicted_error for allocation in front]
    assert times == sorted(set(times))
    assert errors == sorted(set(errors), reverse=True)


def test_the_front_ends_at_the_best_that_any_budget_can_buy() -> None:
    problem = random_problem(4, nodes=8)
    front = pareto(problem, 6)
    assert front[-1].predicted_error == pytest.approx(milp.solve(problem, 1e9).predicted_error)
    assert front[0].time_us == least_us(problem)


def test_budgets_grow_geometrically_above_the_least_time() -> None:
    problem = random_problem(4, nodes=8)
    low, *rest = budgets(problem, 5)
    assert low == least_us(problem)
    assert rest[-1] == problem.time_us(problem.highest())
    ratios = [(b - low) / (a - low) for a, b in itertools.pairwise(rest)]
    assert ratios == pytest.approx([10.0] * 3)


def test_progress_counts_the_budgets() -> None:
    seen: list[tuple[int, int]] = []
    pareto(random_problem(4, nodes=4), 3, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_front_of_one_point_is_refused() -> None:
    with pytest.raises(ConfigError, match="two points"):
        pareto(random_problem(4, nodes=4), 1)


def test_a_front_without_any_choice_is_empty() -> None:
    problem = random_problem(4, nodes=4)
    problem.limits[:] = 0.0
    assert math.isinf(least_us(problem))
    assert pareto(problem, 3) == []
