"""Which calibrations to raise to int16 within a latency budget."""

from collections.abc import Callable, Mapping

from jptq.allocation import brute_force, greedy, milp
from jptq.allocation.build import build
from jptq.allocation.fastest import least_us, solve_latency
from jptq.allocation.front import pareto
from jptq.allocation.problem import Coupling, Group, Problem
from jptq.results import Allocation

SOLVERS: Mapping[str, Callable[[Problem, float], Allocation]] = {
    "milp": milp.solve,  # the default: near-optimal with a proven bound
    "greedy": greedy.solve,  # a baseline, and where milp starts from
    "brute_force": brute_force.solve,  # the oracle of small problems
}

__all__ = [
    "SOLVERS",
    "Coupling",
    "Group",
    "Problem",
    "build",
    "least_us",
    "pareto",
    "solve_latency",
]
