"""What a tuning is asked for."""

from __future__ import annotations

import dataclasses

from jptq import sensitivity
from jptq.errors import ConfigError
from jptq.numerics.qtypes import DUAL_INT16, INT8
from jptq.quant.config import EC
from jptq.registry import lookup
from jptq.results import Goal
from jptq.tuning.evaluator import Evaluator
from jptq.tuning.prepare import Prepared

SEARCHES = ("milp", "walk", "head")

AUTO = "auto"
LEFTOVERS = (AUTO, DUAL_INT16, EC, INT8.name)
"""What to do with the operands that all-INT16 leaves INT8, if it misses the goal because of them:
dual-int16, and ec where that is not enough; one of both; or nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How to tune.

    Attributes:
      min_score: Share of float that every score must keep.
      min_cosine: Mean cosine that every output must keep; used without an evaluator.
      latency_budget_us: Largest modelled latency.
      latency_budget_ratio: The same, relative to modelled all-INT8.
      quality: Whether a quality is asked for at all; False with only a budget.
      method: How the search ranks: a key of `sensitivity.METHODS`.
      search: ``milp``, ``walk`` (the documented node-by-node walk), or ``head`` (the subgraph in
        front of the failing output).
      leftovers: Of `LEFTOVERS`.
      samples: Samples for sensitivity, taken evenly from the set.
      seed: Of everything random.
      loss: ``loss(outputs, feeds)`` for methods with a gradient.
      time_limit_s: No new run starts after this.
    """

    min_score: float | None = 0.99
    min_cosine: float | None = 0.99
    latency_budget_us: float | None = None
    latency_budget_ratio: float | None = None
    quality: bool = True
    method: str = "metric"
    search: str = "milp"
    leftovers: str = AUTO
    samples: int = 8
    seed: int = 0
    loss: sensitivity.Loss | None = None
    time_limit_s: float | None = None

    def check(self) -> None:
        """Refuse names that do not exist.

        Raises:
          UnknownNameError: A search, a method, or what is to be done with leftovers.
        """
        lookup(dict.fromkeys(SEARCHES), self.search, "search", where="--search")
        lookup(dict.fromkeys(LEFTOVERS), self.leftovers, "choice", where="--leftovers")
        lookup(sensitivity.METHODS, self.method, "method", where="--method")

    def allowed(self, prepared: Prepared) -> Prepared:
        """Return a network with the types that the search may give."""
        if self.leftovers in (AUTO, DUAL_INT16):
            return prepared
        return dataclasses.replace(prepared, plan=prepared.plan.without_dual)

    def goal(self, prepared: Prepared, evaluator: Evaluator | None) -> Goal:
        """Return the goal for a network.

        Raises:
          ConfigError: Two budgets.
        """
        budget = self.latency_budget_us
        if self.latency_budget_ratio is not None:
            if budget is not None:
                raise ConfigError(
                    "both --latency_budget_us and --latency_budget_ratio are given", hint="give one"
                )
            budget = self.latency_budget_ratio * prepared.latency.total_us(prepared.all("int8"))
        if not self.quality:
            return Goal(budget_us=budget)
        if evaluator is not None:
            return Goal(min_score=self.min_score, budget_us=budget)
        return Goal(min_cosine=self.min_cosine, budget_us=budget)
