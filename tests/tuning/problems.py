"""A search over a synthetic network whose score is a known function of the assignment."""

from __future__ import annotations

import dataclasses
import itertools
import types
from collections.abc import Callable, Mapping

import numpy as np

from jptq.allocation import Problem
from jptq.quant.plan import FEATURE, WEIGHT, Calibration, Plan, Slots
from jptq.results import Evaluation, Goal, SensitivityTable
from jptq.tuning.goal import Judge
from jptq.tuning.search import Search
from tests.allocation.problems import random_problem

Score = Callable[[Mapping[str, str]], float]


class FakeMeasurer:
    """Gives the score of a function; counts what it is asked."""

    def __init__(self, problem: Problem, score: Score) -> None:
        self.problem = problem
        self.score = score
        self.measured: list[tuple[tuple[str, str], ...]] = []
        self.prepared = types.SimpleNamespace(
            plan=plan_of(problem),
            latency=problem.latency,
            all=lambda name: problem.assignment(
                problem.lowest() if name == "int8" else problem.highest()
            ),
        )

    def __call__(
        self, name: str, assignment: Mapping[str, str], *, predicted: float | None = None
    ) -> Evaluation:
        self.measured.append(tuple(sorted(assignment.items())))
        latency = self.problem.latency
        return Evaluation(
            name=name,
            shares={"score": self.score(assignment)},
            time_us=latency.total_us(assignment),
            macs_int16=latency.macs_share(assignment),
            raised=sum(kind == "int16" for kind in assignment.values()),
            predicted_error=predicted,
        )


@dataclasses.dataclass
class Case:
    """A search with all that it is made of."""

    problem: Problem
    measurer: FakeMeasurer
    judge: Judge
    search: Search

    def start(self) -> None:
        """Measure the two ends, as every tuning does first."""
        for name in ("int8", "int16"):
            self.search.run(f"all-{name}", self.measurer.prepared.all(name))

    def share(self, assignment: Mapping[str, str]) -> float:
        return self.measurer.score(assignment)

    def optimum_us(self) -> float:
        """Return the least time of any admitted choice that meets the quality, by trying all."""
        minimum = self.judge.goal.min_score
        assert minimum is not None
        problem = self.problem
        best = np.inf
        free = np.flatnonzero(problem.free)
        for bits in itertools.product((False, True), repeat=len(free)):
            raised = problem.lowest()
            raised[free] = bits
            if problem.admits(raised) and self.share(problem.assignment(raised)) >= minimum:
                best = min(best, problem.time_us(raised))
        return float(best)


def case(
    seed: int = 0,
    *,
    nodes: int = 7,
    min_score: float | None = 0.99,
    budget_us: float | None = None,
    score: Callable[[Problem], Score] | None = None,
) -> Case:
    """Return a search over a random network; by default the score falls with the error."""
    problem = random_problem(seed, nodes=nodes, decades=4.0, fixed=0.0)
    measurer = FakeMeasurer(problem, (score or additive)(problem))
    judge = Judge(Goal(min_score=min_score, budget_us=budget_us))
    search = Search(
        measurer,  # type: ignore[arg-type]
        judge,
        {"known": problem},
        mse=errors_of(problem),
    )
    return Case(problem, measurer, judge, search)


def additive(problem: Problem) -> Score:
    """Lose a tenth of the score with all of the error, nothing with none."""
    low, high = (problem.error(c) for c in (problem.highest(), problem.lowest()))

    def score(assignment: Mapping[str, str]) -> float:
        error = problem.error(problem.choice(assignment))
        return 1.0 - 0.1 * (error - low) / (high - low)

    return score


def bumpy(problem: Problem) -> Score:
    """The same with a part that no error model explains: raising more can lower the score."""
    smooth = additive(problem)

    def score(assignment: Mapping[str, str]) -> float:
        raised = problem.choice(assignment)
        return smooth(assignment) + 0.004 * float(np.sin(7.0 * (raised @ np.arange(raised.size))))

    return score


def plan_of(problem: Problem) -> Plan:
    """Return a plan with the problem's calibrations and nodes."""
    allowed = {name: g.types for g in problem.groups for name in g.calibrations}
    seconds = {name for node in problem.latency.nodes for name in node.second}
    known = dict.fromkeys(
        name for node in problem.latency.nodes for name in (*node.first, *node.second)
    )
    known |= dict.fromkeys(allowed)
    return Plan(
        calibrations=tuple(
            Calibration(
                name=name,
                tensor=name,
                output=f"{name}:q",
                kind=WEIGHT if name in seconds else FEATURE,
                allowed=("int8",) if name in seconds else allowed[name],
                dual=name in seconds,
            )
            for name in known
        ),
        slots=tuple(
            Slots(
                node=node.node,
                op=node.op,
                inputs=dict(enumerate((*node.first, *node.second))),
            )
            for node in problem.latency.nodes
        ),
    )


def errors_of(problem: Problem) -> SensitivityTable:
    """Return the problem's errors as a table of groups."""
    score = problem.errors.sum(0)[:, :, None]
    return SensitivityTable(
        rows=tuple(group.name for group in problem.groups),
        kind="group",
        members=tuple(group.calibrations for group in problem.groups),
        candidates=("int8", "int16"),
        metrics=("mse",),
        score=score,
        stderr=np.zeros_like(score),
        outputs=("y",),
        method="metric",
        samples=1,
    )


def ranking_of(problem: Problem) -> SensitivityTable:
    """Return the nodes ranked by the error of their own quantizers."""
    drop = {
        name: float(problem.errors[:, g, 0].sum())
        for g, group in enumerate(problem.groups)
        for name in group.calibrations
    }
    nodes = problem.latency.nodes
    score = np.array([sum(drop[c] for c in (*n.first, *n.second)) for n in nodes])[:, None, None]
    return SensitivityTable(
        rows=tuple(n.node for n in nodes),
        kind="node",
        members=tuple((*n.first, *n.second) for n in nodes),
        candidates=("current",),
        metrics=("mse",),
        score=score,
        stderr=np.zeros_like(score),
        outputs=("y",),
        method="metric",
        samples=1,
    )
