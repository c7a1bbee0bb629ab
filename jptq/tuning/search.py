"""Find the cheapest assignment that meets the goal: propose by MILP, believe only measurements."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from jptq import allocation
from jptq.allocation import Problem, milp
from jptq.quant.assign import Assignment, promote
from jptq.quant.plan import Plan
from jptq.results import Evaluation, LatencyTable, SensitivityTable
from jptq.results.latency import width
from jptq.tuning.goal import Judge
from jptq.tuning.measure import Measurer

LADDER = 24
"""Budgets for which the front is solved; only some of its points are run."""

REFINE = 5
"""Bisections of the budget below the cheapest point that meets the goal."""

GIVE_BACK = 24
"""Attempts to lower nodes again."""

UNDERCUT = 24
"""Prefixes of the documented walk that are run because they are faster than the best."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """A configuration that was run.

    Attributes:
      assignment: Its types.
      evaluation: What was measured.
    """

    assignment: Assignment
    evaluation: Evaluation


class Search:
    """Runs configurations and remembers the best.

    Args:
      measurer: Really runs them.
      judge: Knows the goal.
      problems: Error models by name; the first is tried first at every budget.
      mse: Errors of groups, to predict from; nothing is predicted if it has no such column.
      progress: Called with what is being run, and how many runs may follow at most.

    Attributes:
      steps: What was run, in order, without repetitions; no two have one name.
      prefixes: What walks measured, by how many of the worst nodes were raised.
      walked: Number of nodes in the ranking that walks went along.
      walk_us: Time of the shortest prefix of a walk that was seen to meet the goal, or None.
    """

    def __init__(
        self,
        measurer: Measurer,
        judge: Judge,
        problems: Mapping[str, Problem],
        *,
        mse: SensitivityTable,
        progress: Callable[[str, int], None] = lambda what, left: None,
    ) -> None:
        self.measurer = measurer
        self.judge = judge
        self.problems = problems
        self.progress = progress
        self.steps: list[Step] = []
        self.prefixes: dict[int, Evaluation] = {}
        self.walked = 0
        self.walk_us: float | None = None
        self._mse = mse
        self._seen: set[tuple[tuple[str, str], ...]] = set()
        self._names: collections.Counter[str] = collections.Counter()
        self._own = 0
        self._bounds: dict[str, int] = {}

    @property
    def left(self) -> int:
        """Most runs that may follow."""
        return self._own + sum(self._bounds.values())

    def expect(self, **bounds: int) -> None:
        """Take note of the most runs that each part of the search may take."""
        self._own, self._bounds = 0, dict(bounds)

    def begin(self, part: str) -> None:
        """Take note that a part begins, and that the ones before it are over."""
        self._own = self._bounds.pop(part, 0)

    @property
    def plan(self) -> Plan:
        """The quantizers."""
        return self.measurer.prepared.plan

    @property
    def latency(self) -> LatencyTable:
        """Node times."""
        return self.measurer.prepared.latency

    def run(self, name: str, assignment: Assignment) -> Evaluation:
        """Measure an assignment and remember it.

        Raises:
          OutOfTime: The deadline has passed.
        """
        key = tuple(sorted(assignment.items()))
        self._own = max(0, self._own - 1)
        self.progress(name, self.left)
        evaluation = self.measurer(name, assignment, predicted=self.predicted(assignment))
        if key not in self._seen:
            self._seen.add(key)
            self._names[name] += 1
            if self._names[name] > 1:
                evaluation = dataclasses.replace(evaluation, name=f"{name} ({self._names[name]})")
            self.steps.append(Step(assignment=dict(assignment), evaluation=evaluation))
        return evaluation

    def predicted(self, assignment: Assignment) -> float | None:
        """Return the additive prediction of the mean squared output error, if there is one."""
        if "mse" not in self._mse.metrics:
            return None
        int8, int16 = (self._mse.column("mse", c) for c in ("int8", "int16"))
        total = 0.0
        for row, members in enumerate(self._mse.members):
            held = assignment[members[0]]
            if held != "float32":
                fine = width(held) == "int16" and np.isfinite(int16[row])
                value = int16[row] if fine else int8[row]
                total += float(value)
        return total

    def best(self) -> Step:
        """Return the best step by the goal's order; of equals, the first."""
        best = self.steps[0]
        for step in self.steps[1:]:
            if self.judge.better(step.evaluation, best.evaluation):
                best = step
        return best

    def cheapest(self) -> Step | None:
        """Return the fastest step that meets the quality, whatever the budget."""
        meeting = [s for s in self.steps if self.judge.meets(s.evaluation)]
        return min(meeting, key=lambda s: self.judge.expense(s.evaluation), default=None)

    # ------------------------------------------------------------------ proposals

    def ladder(self) -> None:
        """Bisect the front of the first problem to the goal."""
        problem = next(iter(self.problems.values()))
        top = self.cheapest()
        limit = np.inf if top is None else top.evaluation.time_us or np.inf
        front = [a for a in allocation.pareto(problem, LADDER) if a.time_us < limit]
        low, high = 0, len(front)
        while low < high:
            middle = (low + high) // 2
            found = self.run(f"ladder {front[middle].time_us:.1f} us", front[middle].assignment)
            if self.judge.meets(found):
                high = middle
            else:
                low = middle + 1

    def refine(self) -> None:
        """Bisect the budget below the cheapest point that meets the goal, by every error model."""
        best = self.cheapest()
        if best is None:
            return
        failing = [
            s.evaluation.time_us or 0.0
            for s in self.steps
            if not self.judge.meets(s.evaluation)
            and (s.evaluation.time_us or 0.0) < (best.evaluation.time_us or 0.0)
        ]
        low = max(failing, default=0.0)
        for _ in range(REFINE):
            high = best.evaluation.time_us or 0.0
            if high - low <= 0.002 * high:
                return
            budget = (low + high) / 2
            if not self.at(budget):
                low = budget
            found = self.cheapest()
            assert found is not None
            best = found

    def at(self, budget_us: float) -> bool:
        """Run what the error models propose for a budget until one meets the goal."""
        return any(self.judge.meets(found) for found in self._proposed(budget_us))

    def propose(self, budget_us: float) -> None:
        """Run what each of the error models proposes for a budget."""
        for _ in self._proposed(budget_us):
            pass

    def _proposed(self, budget_us: float) -> Iterator[Evaluation]:
        for name, problem in self.problems.items():
            proposal = milp.solve(problem, budget_us)
            if proposal.assignment:
                yield self.run(f"{name} {budget_us:.1f} us", proposal.assignment)

    def walk(self, ranking: SensitivityTable, candidate: str = "int16") -> None:
        """Bisect the documented walk: the worst nodes raised together (hmct-spec 4.5).

        Args:
          ranking: Of nodes, by its first metric.
          candidate: What nodes are raised to.
        """
        order = self._order(ranking)
        self.walked = len(order)
        # Modelled times grow along the walk; measured ones need not.
        low, high = 0, max(self._faster(order, candidate), default=0)
        while low < high:
            middle = (low + high) // 2
            found = self.run(f"worst {middle + 1}", self.prefix(order[: middle + 1], candidate))
            self.prefixes[middle + 1] = found
            if self.judge.meets(found):
                high, self.walk_us = middle, found.time_us
            else:
                low = middle + 1

    def undercut(self, ranking: SensitivityTable, candidate: str = "int16") -> bool:
        """Run the prefixes of the walk that are faster than the best, until one meets the goal.

        Quality need not grow along a walk: bisection may pass over one that does.

        Args:
          ranking: Of nodes, by its first metric.
          candidate: What nodes are raised to.

        Returns:
          Whether one does; it is the best then.
        """
        order = self._order(ranking)
        for count in self._faster(order, candidate)[:UNDERCUT]:
            found = self.run(f"worst {count}", self.prefix(order[:count], candidate))
            if self.judge.meets(found):
                self.walk_us = found.time_us
                return True
        return False

    def _faster(self, order: Sequence[str], candidate: str) -> list[int]:
        """Return how many of the worst nodes take less time, raised, than the best so far."""
        best = self.cheapest()
        limit = np.inf if best is None else best.evaluation.time_us or np.inf
        return [
            count
            for count in range(1, len(order) + 1)
            if self.latency.total_us(self.prefix(order[:count], candidate)) < limit
        ]

    def walk_all(self, ranking: SensitivityTable, candidate: str = "int16") -> Step | None:
        """Take the documented walk node by node and return its first step that meets the goal."""
        order = self._order(ranking)
        self.walked = len(order)
        for count in range(1, len(order) + 1):
            assignment = self.prefix(order[:count], candidate)
            found = self.run(f"worst {count}", assignment)
            self.prefixes[count] = found
            if self.judge.meets(found):
                self.walk_us = found.time_us
                return Step(assignment=assignment, evaluation=found)
        return None

    def _order(self, ranking: SensitivityTable) -> list[str]:
        return [ranking.rows[i] for i in ranking.order()]

    def prefix(self, nodes: Sequence[str], candidate: str) -> dict[str, str]:
        """Return all-INT8 with some nodes raised."""
        prepared = self.measurer.prepared
        return promote(prepared.all("int8"), self.plan, dict.fromkeys(nodes, candidate))

    # ------------------------------------------------------------------ giving back

    def give_back(self, attempts: int = GIVE_BACK) -> None:
        """Lower again what the goal does not need, most waste first.

        Chunks of half of what is raised are tried, then quarters, down to single groups: whole
        branches that only the error model wanted go in a few runs.
        """
        problem = next(iter(self.problems.values()))
        best = self.cheapest()
        if best is None:
            return
        raised = problem.choice(best.assignment)
        size = max(1, int(raised.sum()) // 2)
        while attempts > 0:
            lowered = None
            order = self._by_waste(problem, raised)
            for start in range(0, len(order), size):
                trial = raised.copy()
                trial[order[start : start + size]] = False
                trial = _drop_orphans(problem, trial)
                if attempts == 0 or self._expense(problem, trial) >= self._expense(problem, raised):
                    continue
                attempts -= 1
                count = int(raised.sum() - trial.sum())
                if self.judge.meets(self.run(f"give back {count}", problem.assignment(trial))):
                    lowered = trial
                    break
            if lowered is not None:
                raised = lowered
                size = max(1, min(size, int(raised.sum()) // 2))
            elif size == 1:
                return
            else:
                size = max(1, size // 2)

    def _expense(self, problem: Problem, raised: np.ndarray) -> float:
        """Microseconds, and a trifle for INT16 work that the model of latency does not see.

        A percent of all MACs counts as a ten-thousandth of the time, a raised group as a
        millionth: between equally fast configurations the smaller one is wanted.
        """
        assignment = problem.assignment(raised)
        time_us = self.latency.total_us(assignment)
        return time_us * (
            1 + 0.01 * self.latency.macs_share(assignment) + 1e-6 * float(raised.sum())
        )

    def _by_waste(self, problem: Problem, raised: np.ndarray) -> list[int]:
        """Raised free groups, those first that cost most for the error they avoid."""
        total = self._expense(problem, raised)
        scored = []
        for g in np.flatnonzero(raised & problem.free):
            trial = raised.copy()
            trial[g] = False
            saved = total - self._expense(problem, _drop_orphans(problem, trial))
            error = float((problem.errors[:, g, 0] - problem.errors[:, g, 1]) @ problem.weights)
            scored.append((saved / max(error, 1e-30), int(g)))
        return [g for _, g in sorted(scored, key=lambda item: (-item[0], item[1]))]


def _drop_orphans(problem: Problem, raised: np.ndarray) -> np.ndarray:
    """Lower second operands whose first operands are not raised any more."""
    out = raised.copy()
    for coupling in problem.couplings:
        if out[coupling.second] and not any(out[g] for g in coupling.first):
            out[coupling.second] = False
    return out
