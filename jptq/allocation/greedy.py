"""Raise what gives the largest error drop per microsecond, until the budget is spent."""

from __future__ import annotations

import numpy as np

from jptq.allocation.fastest import fastest, least_us
from jptq.allocation.moves import fill
from jptq.allocation.outcome import found, nothing
from jptq.allocation.problem import Problem
from jptq.results import Allocation, Status


def solve(problem: Problem, budget_us: float) -> Allocation:
    """Return a good choice within a budget, without a bound of its own.

    The move is a group together with the first operand that its coupling asks for. A move that
    does not fit is passed over, not the end.

    Args:
      problem: What to choose.
      budget_us: Upper limit of the modelled time.
    """
    raised = choose(problem, budget_us)
    if raised is None:
        least = least_us(problem)
        return nothing(Status.INFEASIBLE, bound=least, solver="greedy", budget_us=budget_us)
    return found(problem, raised, bound=problem.least_error(), solver="greedy", budget_us=budget_us)


def choose(problem: Problem, budget_us: float) -> np.ndarray | None:
    """Return the greedy choice, ``bool[G]``; None if even the fastest exceeds the budget."""
    raised = fastest(problem)
    if raised is None or problem.time_us(raised) > budget_us:
        return None
    return fill(problem, raised, budget_us)
