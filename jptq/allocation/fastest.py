"""The least time within an error limit: the allocation problem with its two sides exchanged."""

from __future__ import annotations

import math

import numpy as np

from jptq.allocation.caps import cap, output_caps
from jptq.allocation.linear import linearise, minimise
from jptq.allocation.moves import lower_error
from jptq.allocation.outcome import found_fast, nothing
from jptq.allocation.problem import ROUNDING, Problem
from jptq.results import Allocation, Status

RELATIVE_GAP = 1e-6
NODE_LIMIT = 20_000
"""Defaults of `solve_latency`, as of `milp`."""

MARGINS = (0.0, 3e-6, 1e-4)
"""What is kept from a scaled limit at each attempt: HiGHS overlooks up to 1e-6 of it."""


def solve_latency(
    problem: Problem,
    error_limit: float,
    *,
    relative_gap: float = RELATIVE_GAP,
    node_limit: int = NODE_LIMIT,
) -> Allocation:
    """Return the least time of any choice whose weighted error is at most a limit.

    Errors are sums: the limit is kept up to a relative `ROUNDING`.

    Args:
      problem: What to choose.
      error_limit: Upper limit of the weighted error, in the unit of the scores; inf for none.
      relative_gap: Distance to the bound at which the search stops.
      node_limit: Of each call of HiGHS.

    Returns:
      An allocation of goal ``latency``; `Allocation.bound` is on the time. If infeasible, it is
      a bound on the error of any choice.
    """
    infeasible = nothing(
        Status.INFEASIBLE, bound=problem.least_error(), solver="milp", error_limit=error_limit
    )
    limit = error_limit * (1 + ROUNDING)
    limits = output_caps(problem)
    total = cap(problem, problem.cost, problem.base_cost, limit)
    if limits is None or total is None:
        return infeasible
    caps = [*limits, total]
    allowed = np.logical_and.reduce([one.allowed for one in caps])
    if not allowed.any(axis=1).all():
        return infeasible
    linear = linearise(problem)
    scale = max(problem.time_us(problem.highest()), problem.time_us(problem.lowest())) or 1.0
    bound = 0.0
    choices: list[np.ndarray] = []
    for margin in MARGINS:
        answer = minimise(
            linear,
            linear.time_us / scale,
            constant=linear.constant_us / scale,
            rows=[(linear.pad(c.coefficients), 1.0 - c.constant - margin) for c in caps],
            least=~allowed[:, 0],
            most=allowed[:, 1],
            relative_gap=relative_gap,
            node_limit=node_limit,
        )
        if margin == 0.0:
            if answer.infeasible:
                return infeasible
            bound = max(answer.bound * scale, 0.0)
        if answer.raised is None:
            break
        exact = problem.error(answer.raised) <= limit
        # Where HiGHS overlooked an excess, the cheapest further raises make up for it.
        raised = answer.raised if exact else lower_error(problem, answer.raised, limit)
        if problem.admits(raised) and problem.error(raised) <= limit:
            choices.append(raised)
        if exact and choices:
            break
    if not choices:
        return nothing(Status.UNKNOWN, bound=bound, solver="milp", error_limit=error_limit)
    best = min(choices, key=problem.time_us)
    return found_fast(problem, best, bound=bound, solver="milp", error_limit=error_limit)


def fastest(problem: Problem) -> np.ndarray | None:
    """Return the choice of the least time, ``bool[G]``; None if no choice is admitted."""
    lowest = problem.lowest()
    dearer = all(term.int8 <= term.int16 <= term.dual for term in problem.terms)
    crossed = any(edge.time_us(lowest) > 0 for edge in problem.edges)
    if problem.admits(lowest) and dearer and not crossed:
        return lowest
    answer = solve_latency(problem, math.inf)
    return problem.choice(answer.assignment) if answer.assignment else None


def least_us(problem: Problem) -> float:
    """Return the least reachable time; infinite if the outputs' limits cannot be kept."""
    choice = fastest(problem)
    return math.inf if choice is None else problem.time_us(choice)
