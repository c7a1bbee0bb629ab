"""Every choice in turn: the oracle of small problems."""

from __future__ import annotations

import itertools

import numpy as np

from jptq.allocation.outcome import found, nothing
from jptq.allocation.problem import Problem
from jptq.errors import ConfigError
from jptq.results import Allocation, Status

MOST_FREE = 20
"""Free groups up to which trying everything ends in minutes."""


def solve(problem: Problem, budget_us: float) -> Allocation:
    """Return the least error within a budget; the cheaper, then the first choice of equal ones.

    Args:
      problem: At most `MOST_FREE` free groups.
      budget_us: Upper limit of the modelled time.

    Raises:
      ConfigError: The problem is too large.
    """
    free = np.flatnonzero(problem.free)
    if len(free) > MOST_FREE:
        raise ConfigError(
            f"{len(free)} free groups are too many to try every choice",
            hint="take solver 'milp'",
        )
    best: tuple[float, float] | None = None
    winner = problem.lowest()
    least_us = np.inf
    for bits in itertools.product((False, True), repeat=len(free)):
        raised = problem.lowest()
        raised[free] = bits
        if not problem.admits(raised):
            continue
        time_us = problem.time_us(raised)
        least_us = min(least_us, time_us)
        if time_us > budget_us:
            continue
        key = (problem.error(raised), time_us)
        if best is None or key < best:
            best, winner = key, raised
    if best is None:
        return nothing(
            Status.INFEASIBLE, bound=float(least_us), solver="brute_force", budget_us=budget_us
        )
    return found(problem, winner, bound=best[0], solver="brute_force", budget_us=budget_us)
