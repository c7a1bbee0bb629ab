"""What a solver proposes."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping
from typing import Any


class Status(enum.Enum):
    """How a solve ended; infeasible is an answer, not an error."""

    OPTIMAL = "optimal"
    FEASIBLE = "feasible, not proven optimal"
    INFEASIBLE = "no assignment fits the budget"
    UNKNOWN = "none found in time, none ruled out; allow more time or another solver"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Allocation:
    """An assignment with what the solver knows of it.

    Attributes:
      assignment: ``{calibration: type}``, total over the plan; empty if infeasible.
      predicted_error: The additive error of the assignment, in the unit of the scores used;
        infinite if there is none.
      time_us: Modelled latency; infinite if there is none.
      bound: Least error that any assignment within the budget can have, by the same model; under
        the goal ``latency``, the least time of any assignment within the error limit. If
        infeasible: the least reachable value of what was bounded (time, or error).
      gap: Relative distance of `predicted_error` (`time_us`) to `bound`; 0 if proven optimal.
      status: See `Status`.
      solver: ``milp``, ``greedy`` or ``brute_force``.
      budget_us: The budget that was asked for; None under the goal ``latency``.
      goal: What was minimised: ``error`` within a budget, or ``latency`` within an error limit.
      error_limit: The limit under the goal ``latency``, else None.
    """

    assignment: Mapping[str, str]
    predicted_error: float
    time_us: float
    bound: float
    gap: float
    status: Status
    solver: str
    budget_us: float | None
    goal: str = "error"
    error_limit: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values, the assignment included; what is infinite becomes None."""
        out = dataclasses.asdict(self)
        out["status"] = self.status.name.lower()
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in out.items()
        }
