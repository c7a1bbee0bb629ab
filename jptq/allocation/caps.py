"""Errors that span many orders of magnitude, brought to where HiGHS can tell them apart.

HiGHS accepts a constraint that is missed by 1e-6 and stops 1e-6 from the optimum, both absolute.
Errors reach from 1e-12 to 1e6 in one network. So a sum of errors with an upper limit (the limit
of an output, or the error of a choice already known) is written as *excess* over the least error
of each group, in units of the slack that the limit leaves. A candidate whose excess alone is more
than the slack cannot be part of any solution: it is ruled out, and every coefficient that remains
is between -1 and 1.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jptq.allocation.problem import ROUNDING, Problem


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Cap:
    """``errors <= limit`` as ``coefficients @ x + constant <= 1``.

    Attributes:
      coefficients: ``float64[G]``, from -1 to 1.
      constant: Of the choice that raises nothing.
      allowed: ``bool[G, 2]``: candidates that some solution may take.
      floor: The sum of errors that the left side 0 stands for.
      slack: What one unit of the left side stands for.
    """

    coefficients: np.ndarray
    constant: float
    allowed: np.ndarray
    floor: float
    slack: float


def cap(problem: Problem, values: np.ndarray, base: float, limit: float) -> Cap | None:
    """Return a limit on a sum of errors in scaled form; None if nothing can keep it.

    Args:
      problem: G groups.
      values: ``float64[G, 2]``, errors of the candidates.
      base: Added to every sum.
      limit: The largest sum that is accepted.
    """
    choices = np.stack([~problem.fixed_int16, problem.fixed_int16 | problem.free], axis=1)
    least = np.where(choices, values, np.inf).min(axis=1)
    floor = float(base + least.sum())
    rounding = ROUNDING * max(abs(limit), floor)
    slack = limit - floor
    if slack < -rounding:
        return None
    excess = values - least[:, None]
    allowed = choices & (excess <= max(slack, 0.0) + rounding)
    if slack <= rounding:
        return Cap(
            coefficients=np.zeros(len(least)),
            constant=0.0,
            allowed=allowed,
            floor=floor,
            slack=0.0,
        )
    undecided = allowed.all(axis=1)
    return Cap(
        coefficients=np.where(undecided, excess[:, 1] - excess[:, 0], 0.0) / slack,
        constant=float(excess[undecided, 0].sum() / slack),
        allowed=allowed,
        floor=floor,
        slack=slack,
    )


def output_caps(problem: Problem) -> list[Cap] | None:
    """Return the limits of the outputs that have one; None if one of them cannot be kept."""
    found = []
    for o in np.flatnonzero(np.isfinite(problem.limits)):
        base, limit = float(problem.base_error[o]), float(problem.limits[o]) * (1 + ROUNDING)
        one = cap(problem, problem.errors[o], base, limit)
        if one is None:
            return None
        found.append(one)
    return found
