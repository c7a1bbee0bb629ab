from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jptq.allocation import (
    SOLVERS,
    Group,
    Problem,
    brute_force,
    greedy,
    least_us,
    milp,
    solve_latency,
)
from jptq.errors import ConfigError
from jptq.results import Boundary, LatencyTable, NodeTime, Status
from tests.allocation.problems import budget_of, random_problem

SEEDS = st.integers(0, 10**6)
SHARES = st.floats(0.0, 1.05)
MANY = settings(max_examples=40, deadline=None)


def every_choice(problem: Problem) -> list[tuple[float, float]]:
    """(error, time) of every choice that keeps the constraints, told from the tables alone."""
    found = []
    for types in itertools.product(*(group.types for group in problem.groups)):
        by_group = {group.name: kind for group, kind in zip(problem.groups, types, strict=True)}
        if any(
            by_group[problem.groups[c.second].name] == "int16"
            and all(by_group[problem.groups[f].name] == "int8" for f in c.first)
            for c in problem.couplings
        ):
            continue
        taken = np.array([kind == "int16" for kind in types], int)
        errors = problem.base_error + problem.errors[:, np.arange(len(types)), taken].sum(axis=1)
        if (errors > problem.limits * (1 + 1e-12)).any():
            continue
        assignment = {
            name: by_group[group.name] for group in problem.groups for name in group.calibrations
        }
        found.append((float(problem.weights @ errors), problem.latency.total_us(assignment)))
    return found


@MANY
@given(SEEDS, SHARES, st.booleans(), st.integers(1, 3))
def test_milp_finds_the_least_error_of_all_choices_within_the_budget(
    seed: int, share: float, monotone: bool, outputs: int
) -> None:
    problem = random_problem(seed, nodes=4, monotone=monotone, outputs=outputs, decades=12)
    budget_us = budget_of(problem, share)
    within = [error for error, time in every_choice(problem) if time <= budget_us]
    allocation = milp.solve(problem, budget_us)
    if not within:
        assert allocation.status is Status.INFEASIBLE
        return
    assert allocation.predicted_error == pytest.approx(min(within), rel=1e-9)
    assert allocation.bound <= min(within) * (1 + 1e-9)
    assert allocation.bound >= min(within) * (1 - 1e-5)
    assert allocation.status is Status.OPTIMAL


@MANY
@given(SEEDS, st.floats(0.0, 1.0), st.booleans())
def test_least_time_within_an_error_limit_is_that_of_all_choices(
    seed: int, share: float, monotone: bool
) -> None:
    problem = random_problem(seed, nodes=4, monotone=monotone)
    choices = every_choice(problem)
    if not choices:
        assert solve_latency(problem, math.inf).status is Status.INFEASIBLE
        return
    errors = [error for error, _ in choices]
    limit = min(errors) * (max(errors) / min(errors)) ** share
    allocation = solve_latency(problem, limit)
    least = min(time for error, time in choices if error <= limit * (1 + 1e-12))
    assert allocation.predicted_error <= limit * (1 + 1e-12)
    assert allocation.time_us == pytest.approx(least, rel=1e-6)
    assert allocation.bound <= least * (1 + 1e-9)
    assert allocation.goal == "latency"
    assert allocation.error_limit == limit


@pytest.mark.parametrize("name", SOLVERS)
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, share=SHARES)
def test_a_solver_keeps_the_budget_the_couplings_and_the_fixed_types(
    name: str, seed: int, share: float
) -> None:
    problem = random_problem(seed, nodes=4)
    budget_us = budget_of(problem, share)
    allocation = SOLVERS[name](problem, budget_us)
    if allocation.status is Status.INFEASIBLE:
        assert allocation.assignment == {}
        assert all(time > budget_us for _, time in every_choice(problem))
        return
    assert allocation.time_us == problem.latency.total_us(allocation.assignment) <= budget_us
    for group in problem.groups:
        assert {allocation.assignment[c] for c in group.calibrations} <= set(group.types)
    types = [allocation.assignment[group.calibrations[0]] for group in problem.groups]
    for coupling in problem.couplings:
        if types[coupling.second] == "int16":
            assert "int16" in {types[g] for g in coupling.first}
    assert allocation.bound <= allocation.predicted_error
    assert allocation.solver == name


@MANY
@given(SEEDS, SHARES)
def test_brute_force_is_the_least_of_all_choices(seed: int, share: float) -> None:
    problem = random_problem(seed, nodes=3)
    budget_us = budget_of(problem, share)
    within = [error for error, time in every_choice(problem) if time <= budget_us]
    allocation = brute_force.solve(problem, budget_us)
    assert allocation.predicted_error == pytest.approx(min(within, default=math.inf))
    assert (allocation.status is Status.OPTIMAL) == bool(within)


@MANY
@given(SEEDS, st.floats(0.1, 1.0))
def test_limits_of_single_outputs_are_kept(seed: int, share: float) -> None:
    problem = random_problem(seed, nodes=4, outputs=2)
    lowest, highest = (
        problem.output_errors(c) for c in (problem.lowest(), problem.errors[0].argmin(1) == 1)
    )
    limits = np.array([np.sqrt(lowest[0] * highest[0]), np.inf])
    problem = dataclasses.replace(problem, limits=limits)
    budget_us = budget_of(problem, share)
    within = [error for error, time in every_choice(problem) if time <= budget_us]
    allocation = milp.solve(problem, budget_us)
    assert allocation.predicted_error == pytest.approx(min(within, default=math.inf))
    if within:
        chosen = problem.choice(allocation.assignment)
        assert problem.output_errors(chosen)[0] <= limits[0] * (1 + 1e-12)


def test_a_network_of_real_size_is_solved_to_proven_optimality_and_beats_greedy() -> None:
    problem = random_problem(3, nodes=330, fixed=0.05)
    budget_us = budget_of(problem, 0.2)
    exact, baseline = milp.solve(problem, budget_us), greedy.solve(problem, budget_us)
    assert exact.predicted_error < baseline.predicted_error
    assert exact.gap <= 1e-6
    assert baseline.bound <= exact.bound


def test_errors_of_eighteen_decades_do_not_hide_the_small_ones() -> None:
    problem = random_problem(5, nodes=5, decades=18, fixed=0.0)
    budget_us = budget_of(problem, 0.5)
    exact = brute_force.solve(problem, budget_us)
    allocation = milp.solve(problem, budget_us)
    assert allocation.predicted_error == pytest.approx(exact.predicted_error, rel=1e-12)


def test_a_solve_that_is_cut_short_says_so_and_still_has_an_answer() -> None:
    problem = random_problem(2, nodes=330, fixed=0.05)
    budget_us = budget_of(problem, 0.3)
    hurried = milp.solve(problem, budget_us, node_limit=0)
    exact = milp.solve(problem, budget_us)
    assert hurried.status is Status.FEASIBLE
    assert hurried.gap > 0
    assert hurried.bound <= exact.predicted_error <= hurried.predicted_error
    assert hurried.predicted_error <= greedy.solve(problem, budget_us).predicted_error


def test_the_fastest_choice_raises_what_closes_an_expensive_boundary() -> None:
    node = NodeTime(
        node="n",
        op="Add",
        first=("a",),
        second=(),
        macs=1,
        bytes=1,
        time_us={"int8": 1.0, "int16": 1.5, "float32": 9.0},
    )
    problem = Problem(
        groups=(
            Group(name="a", calibrations=("a",)),
            Group(name="b", calibrations=("b",), types=("int16",)),
        ),
        errors=np.ones((1, 2, 2)),
        latency=LatencyTable(
            target="test",
            nodes=(node,),
            boundaries=(Boundary(first=("a",), second="b", time_us=2),),
        ),
        weights=np.ones(1),
        limits=np.full(1, np.inf),
        base_error=np.zeros(1),
    )
    assert least_us(problem) == 1.5
    assert milp.solve(problem, 1.5).assignment == {"a": "int16", "b": "int16"}


def test_a_budget_of_exactly_the_least_time_is_feasible_and_anything_less_is_not() -> None:
    problem = random_problem(1, nodes=5)
    least = least_us(problem)
    assert least == min(time for _, time in every_choice(problem))
    for solve in SOLVERS.values():
        assert solve(problem, least).time_us == least
        refused = solve(problem, np.nextafter(least, 0.0))
        assert refused.status is Status.INFEASIBLE
        assert refused.bound == least


def test_a_solve_leaves_nothing_on_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    problem = random_problem(2, nodes=330, fixed=0.05)
    for share in (0.02, 0.1, 0.3):
        milp.solve(problem, budget_of(problem, share))
    assert capfd.readouterr().out == ""


def test_two_solves_give_the_same_allocation() -> None:
    problem = random_problem(7, nodes=60)
    budget_us = budget_of(problem, 0.3)
    assert milp.solve(problem, budget_us) == milp.solve(problem, budget_us)


def test_brute_force_refuses_what_would_never_end() -> None:
    with pytest.raises(ConfigError, match="too many"):
        brute_force.solve(random_problem(0, nodes=40), 1e9)
