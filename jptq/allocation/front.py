"""The trade between error and time: a first-class result, not a by-product."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jptq.allocation import milp
from jptq.allocation.fastest import least_us
from jptq.allocation.problem import Problem
from jptq.errors import ConfigError
from jptq.results import Allocation

FIRST_STEP = 1e-3
"""Share of the whole extra time that the first step above the fastest choice may spend."""


def budgets(problem: Problem, points: int) -> np.ndarray:
    """Return a ladder of budgets, ``float64[points]`` in microseconds.

    It leads from the least reachable time to that of everything raised, geometric in what is
    spent above the least: the first microseconds buy the most.

    Args:
      problem: What to choose.
      points: At least two.

    Raises:
      ConfigError: There are fewer than two points.
    """
    if points < 2:
        raise ConfigError("a front needs at least two points", why=f"{points} asked for")
    low, high = least_us(problem), problem.time_us(problem.highest())
    if not np.isfinite(low) or high <= low:
        return np.array([low])
    ladder = low + (high - low) * np.geomspace(FIRST_STEP, 1.0, points - 1)
    # The ends are the exact times: rounding must not lock out the choices that define them.
    return np.array([low, *ladder[:-1], high])


def pareto(
    problem: Problem,
    points: int,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Allocation]:
    """Return allocations none of which is beaten in both error and time, fastest first.

    Args:
      problem: What to choose.
      points: Number of budgets to solve for; fewer allocations come back where two budgets give
        the same one.
      progress: Called with the number of budgets done and their total.
    """
    ladder = budgets(problem, points)
    solved: list[Allocation] = []
    for done, budget_us in enumerate(ladder, start=1):
        start = problem.choice(solved[-1].assignment) if solved else None
        allocation = milp.solve(problem, float(budget_us), start=start)
        if allocation.assignment:
            solved.append(allocation)
        progress(done, len(ladder))
    return undominated(solved)


def undominated(allocations: list[Allocation]) -> list[Allocation]:
    """Return those that no other beats or equals in error and time, fastest first."""
    kept: list[Allocation] = []
    for one in sorted(allocations, key=lambda a: (a.time_us, a.predicted_error)):
        if not kept or one.predicted_error < kept[-1].predicted_error:
            kept.append(one)
    return kept
