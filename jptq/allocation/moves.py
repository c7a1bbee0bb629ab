"""Raising one group at a time, best error drop per microsecond first."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from jptq.allocation.problem import Edge, Problem, Term

_FREE_US = 1e-6
"""Extra times below this count as this: a drop that costs nothing is taken by its size."""

_CLOSE = 1e-9
"""Relative distance to the budget within which a running sum of times is not trusted."""


def fill(problem: Problem, raised: np.ndarray, budget_us: float) -> np.ndarray:
    """Return a choice with as much raised in it as the rest of the budget pays for.

    Args:
      problem: What to choose.
      raised: ``bool[G]``, admitted and within the budget; not changed.
      budget_us: Upper limit of the modelled time.
    """
    moves = Moves(problem, raised)
    while (best := moves.best(budget_us)) is not None:
        moves.take(best)
    return moves.raised


def lower_error(problem: Problem, raised: np.ndarray, error_limit: float) -> np.ndarray:
    """Return a choice with as much more raised as keeps an error limit, if it can be kept.

    Args:
      problem: What to choose.
      raised: ``bool[G]``; not changed.
      error_limit: Where to stop.
    """
    moves = Moves(problem, raised)
    while problem.error(moves.raised) > error_limit and (best := moves.best(math.inf)) is not None:
        moves.take(best)
    return moves.raised


class Moves:
    """The drop and the extra time of raising each group, kept up to date."""

    def __init__(self, problem: Problem, raised: np.ndarray) -> None:
        self.raised = raised.copy()
        self._problem = problem
        self._time_us = problem.time_us(raised)
        count = len(problem.groups)
        self._parts: list[list[Term | Edge]] = [[] for _ in range(count)]
        self._near: list[set[int]] = [{g} for g in range(count)]
        self._needs: list[list[tuple[int, ...]]] = [[] for _ in range(count)]
        for part in problem.parts:
            for g in part.groups:
                self._parts[g].append(part)
                self._near[g] |= part.groups
        for coupling in problem.couplings:
            self._needs[coupling.second].append(coupling.first)
            for g in coupling.first:
                self._near[g].add(coupling.second)
        self._drop, self._extra = np.zeros(count), np.zeros(count)
        for g in range(count):
            self._update(g)

    def best(self, budget_us: float) -> int | None:
        """Return the group whose raising is best among those that fit; ties in graph order."""
        ratio = np.where(self._drop > 0, self._drop / np.maximum(self._extra, _FREE_US), -np.inf)
        # The running sum may be off by rounding: what is close is decided by the exact time.
        time_us = self._time_us + self._extra
        ratio[time_us > budget_us * (1 + _CLOSE)] = -np.inf
        while ratio.size and ratio[g := int(ratio.argmax())] > -math.inf:
            after = self._with(g)
            clear = time_us[g] < budget_us * (1 - _CLOSE)
            if (clear or self._problem.time_us(after) <= budget_us) and self._problem.admits(after):
                return g
            ratio[g] = -np.inf
        return None

    def take(self, g: int) -> None:
        """Raise a group, and what its coupling asks for."""
        moved = self._closure(g)
        self.raised = self._with(g)
        self._time_us += self._extra[g]
        # A move two steps away may pass through a closure that has just become free of charge.
        near = set().union(*(self._near[m] for m in moved))
        for other in set().union(near, *(self._near[n] for n in near)):
            self._update(other)

    def _update(self, g: int) -> None:
        problem = self._problem
        if self.raised[g] or not problem.free[g]:
            self._drop[g] = 0.0
            return
        moved = self._closure(g)
        if not all(problem.free[m] for m in moved):
            self._drop[g] = 0.0
            return
        after = self._with(g)
        parts = {id(part): part for m in moved for part in self._parts[m]}.values()
        self._extra[g] = sum(p.time_us(after) - p.time_us(self.raised) for p in parts)
        self._drop[g] = sum(problem.cost[m, 0] - problem.cost[m, 1] for m in moved)

    def _closure(self, g: int) -> Sequence[int]:
        moved = [g]
        for first in self._needs[g]:
            if not any(self.raised[f] or f in moved for f in first):
                moved.extend([f for f in first if self._problem.free[f]][:1] or first[:1])
        return moved

    def _with(self, g: int) -> np.ndarray:
        after = self.raised.copy()
        after[list(self._closure(g))] = True
        return after
