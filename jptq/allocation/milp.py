"""The least error within a budget as a mixed-integer linear programme, solved by HiGHS.

Every answer is checked against the exact float64 model before it is returned: it keeps the
budget to the last bit, is at least as good as the greedy one, and its bound is HiGHS's.
"""

from __future__ import annotations

import numpy as np

from jptq.allocation import greedy
from jptq.allocation.caps import Cap, cap, output_caps
from jptq.allocation.fastest import MARGINS, least_us
from jptq.allocation.linear import Linear, linearise, minimise
from jptq.allocation.moves import fill
from jptq.allocation.outcome import found, nothing
from jptq.allocation.problem import Problem
from jptq.results import Allocation, Status

RELATIVE_GAP = 1e-6
NODE_LIMIT = 20_000
"""Defaults of `solve`; real networks take well under a second. Nodes of the search tree are
counted, not seconds: a busy machine gives the same answer."""

_ROUNDS = 4
_RESCALE = 0.1
"""A choice whose excess error is this share of the one before calls for another round: HiGHS's
absolute tolerances are then coarse against what is left."""


def solve(
    problem: Problem,
    budget_us: float,
    *,
    start: np.ndarray | None = None,
    relative_gap: float = RELATIVE_GAP,
    node_limit: int = NODE_LIMIT,
) -> Allocation:
    """Return the least error within a budget.

    Args:
      problem: What to choose.
      budget_us: Upper limit of the modelled time.
      start: ``bool[G]``, a choice already known; used if it is admitted and within the budget.
      relative_gap: Distance to the bound at which the search stops.
      node_limit: Of each call of HiGHS, of which there is usually one and at most a dozen.

    Returns:
      An allocation with status OPTIMAL if the gap is closed to 1e-6, else FEASIBLE with the gap
      reached.
    """
    best = greedy.choose(problem, budget_us)
    if best is None:
        least = least_us(problem)
        return nothing(Status.INFEASIBLE, bound=least, solver="milp", budget_us=budget_us)
    if start is not None and _fits(problem, start, budget_us):
        best = min(best, fill(problem, start, budget_us), key=problem.error)
    linear = linearise(problem)
    limits = output_caps(problem) or []
    bound = problem.least_error()
    for _ in range(_ROUNDS):
        known = problem.error(best)
        objective = cap(problem, problem.cost, problem.base_cost, known)
        if objective is None or objective.slack == 0.0:
            bound = known
            break
        answer, reached = _improve(
            problem,
            linear,
            objective,
            limits,
            budget_us,
            relative_gap=relative_gap,
            node_limit=node_limit,
        )
        bound = max(bound, min(reached, known))
        if answer is not None:
            best = min(best, fill(problem, answer, budget_us), key=problem.error)
        if problem.error(best) - objective.floor > _RESCALE * (known - objective.floor):
            break
    return found(problem, best, bound=bound, solver="milp", budget_us=budget_us)


def _improve(
    problem: Problem,
    linear: Linear,
    objective: Cap,
    limits: list[Cap],
    budget_us: float,
    *,
    relative_gap: float,
    node_limit: int,
) -> tuple[np.ndarray | None, float]:
    """Return a choice that fits, or None, and a bound on the error of all that fit."""
    allowed = np.logical_and.reduce([one.allowed for one in (objective, *limits)])
    left_us = budget_us - linear.constant_us
    # A budget that leaves almost nothing must not blow the coefficients up.
    scale = max(left_us, 1e-4 * float(np.abs(linear.time_us).max(initial=0.0))) or 1.0
    bound = objective.floor
    for margin in MARGINS:
        answer = minimise(
            linear,
            linear.pad(objective.coefficients),
            constant=objective.constant,
            rows=[
                (linear.time_us / scale, left_us / scale - margin),
                *((linear.pad(c.coefficients), 1.0 - c.constant - margin) for c in limits),
            ],
            least=~allowed[:, 0],
            most=allowed[:, 1],
            relative_gap=relative_gap,
            node_limit=node_limit,
        )
        if margin == 0.0:
            # Where nothing better than the known choice exists, the known one is the bound.
            scaled = 1.0 if answer.infeasible else max(answer.bound, 0.0)
            bound = objective.floor + objective.slack * scaled
        if answer.raised is None:
            return None, bound
        if _fits(problem, answer.raised, budget_us):
            return answer.raised, bound
    return None, bound


def _fits(problem: Problem, raised: np.ndarray, budget_us: float) -> bool:
    return problem.admits(raised) and problem.time_us(raised) <= budget_us
