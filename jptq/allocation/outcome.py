"""How a choice becomes a result: error, time, bound and gap, all recomputed in float64."""

from __future__ import annotations

import math

import numpy as np

from jptq.allocation.problem import Problem
from jptq.results import Allocation, Status

PROVEN = 1e-6
"""Gap up to which a result counts as optimal: the tolerance of a floating-point solver."""


def relative_gap(value: float, bound: float) -> float:
    """Return how far a value lies above its lower bound, as a share of the value."""
    return (value - bound) / value if value > bound else 0.0


def found(
    problem: Problem, raised: np.ndarray, *, bound: float, solver: str, budget_us: float
) -> Allocation:
    """Return the result of a solve for the least error.

    Args:
      problem: What was solved.
      raised: ``bool[G]``, the choice.
      bound: A lower bound on the error of any choice within the budget.
      solver: Its name.
      budget_us: The budget.
    """
    error = problem.error(raised)
    gap = relative_gap(error, bound)
    return Allocation(
        assignment=problem.assignment(raised),
        predicted_error=error,
        time_us=problem.time_us(raised),
        bound=min(bound, error),
        gap=gap,
        status=Status.OPTIMAL if gap <= PROVEN else Status.FEASIBLE,
        solver=solver,
        budget_us=budget_us,
    )


def found_fast(
    problem: Problem, raised: np.ndarray, *, bound: float, solver: str, error_limit: float
) -> Allocation:
    """Return the result of a solve for the least time; `bound` is on the time."""
    time_us = problem.time_us(raised)
    gap = relative_gap(time_us, bound)
    return Allocation(
        assignment=problem.assignment(raised),
        predicted_error=problem.error(raised),
        time_us=time_us,
        bound=min(bound, time_us),
        gap=gap,
        status=Status.OPTIMAL if gap <= PROVEN else Status.FEASIBLE,
        solver=solver,
        budget_us=None,
        goal="latency",
        error_limit=error_limit,
    )


def nothing(
    status: Status,
    *,
    bound: float,
    solver: str,
    budget_us: float | None = None,
    error_limit: float | None = None,
) -> Allocation:
    """Return the result of a solve that ended without an assignment."""
    return Allocation(
        assignment={},
        predicted_error=math.inf,
        time_us=math.inf,
        bound=bound,
        gap=math.inf,
        status=status,
        solver=solver,
        budget_us=budget_us,
        goal="error" if error_limit is None else "latency",
        error_limit=error_limit,
    )
