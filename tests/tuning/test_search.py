from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from jptq.allocation import Problem, least_us
from tests.tuning.problems import Case, Score, additive, bumpy, case, ranking_of

SEEDS = range(6)


def _searched(c: Case) -> Case:
    c.start()
    c.search.ladder()
    c.search.refine()
    c.search.walk(ranking_of(c.problem))
    c.search.give_back()
    return c


@pytest.mark.parametrize("seed", SEEDS)
def test_the_search_ends_at_or_near_the_optimum(seed: int) -> None:
    c = _searched(case(seed))
    best = c.search.best().evaluation
    assert c.judge.meets(best)
    assert best.time_us is not None
    assert best.time_us <= 1.02 * c.optimum_us()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_score_that_is_not_monotone_is_met_all_the_same(seed: int) -> None:
    c = _searched(case(seed, score=bumpy))
    best = c.search.best().evaluation
    meeting = [s.evaluation for s in c.search.steps if c.judge.meets(s.evaluation)]
    assert meeting
    assert c.judge.meets(best)
    assert best.time_us == min(e.time_us or 0.0 for e in meeting)
    assert best.time_us <= c.search.steps[1].evaluation.time_us + 1e-9  # type: ignore[operator]


@pytest.mark.parametrize("seed", SEEDS)
def test_only_what_was_measured_is_believed(seed: int) -> None:
    c = _searched(case(seed, score=bumpy))
    measured = set(c.measurer.measured)
    for step in c.search.steps:
        assert tuple(sorted(step.assignment.items())) in measured
        assert step.evaluation.shares["score"] == c.share(step.assignment)
        assert step.evaluation.time_us == c.problem.latency.total_us(step.assignment)
    keys = [tuple(sorted(step.assignment.items())) for step in c.search.steps]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("seed", SEEDS)
def test_giving_back_never_loses_the_goal_and_never_costs(seed: int) -> None:
    c = case(seed, score=bumpy, min_score=0.985)
    c.start()
    before = c.search.cheapest()
    assert before is not None, "not even all-INT16 meets the goal: choose another seed"
    c.search.give_back()
    after = c.search.cheapest()
    assert after is not None
    assert c.judge.meets(after.evaluation)
    assert after.evaluation.time_us <= before.evaluation.time_us  # type: ignore[operator]


def test_giving_back_starts_from_all_int16_and_lowers_what_is_not_needed() -> None:
    c = case(3)
    c.start()
    c.search.give_back(attempts=100)
    best, highest = c.search.best().evaluation, c.search.steps[1].evaluation
    assert best.time_us < highest.time_us  # type: ignore[operator]
    assert best.raised < highest.raised


def test_giving_back_keeps_to_its_attempts() -> None:
    c = case(3)
    c.start()
    before = len(c.measurer.measured)
    c.search.give_back(attempts=3)
    assert len(c.measurer.measured) - before <= 3


def test_nothing_is_given_back_if_nothing_meets_the_goal() -> None:
    c = case(0, min_score=1.5)
    c.start()
    c.search.give_back()
    c.search.refine()
    assert len(c.search.steps) == 2
    assert c.search.cheapest() is None


def test_if_nothing_meets_the_goal_the_best_quality_is_the_end() -> None:
    c = case(0, min_score=1.5)
    c.start()
    c.search.ladder()
    best = c.search.best().evaluation
    assert best.shares["score"] == max(s.evaluation.shares["score"] for s in c.search.steps)


def test_all_int8_is_the_end_if_it_meets_the_goal() -> None:
    c = case(0, min_score=0.5)
    c.start()
    assert c.search.best() is c.search.steps[0]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("share", [0.2, 0.6])
def test_within_a_budget_the_best_quality_is_the_end(seed: int, share: float) -> None:
    probe = case(seed)
    low, high = (
        probe.problem.time_us(c) for c in (probe.problem.lowest(), probe.problem.highest())
    )
    budget = low + share * (high - low)
    c = case(seed, min_score=None, budget_us=budget)
    c.start()
    c.search.at(budget)
    best = c.search.best().evaluation
    assert best.time_us is not None
    assert best.time_us <= budget * (1 + 1e-9)
    assert best.shares["score"] >= c.search.steps[0].evaluation.shares["score"]


def test_a_budget_below_the_least_time_proposes_nothing() -> None:
    c = case(0)
    c.start()
    assert not c.search.at(0.5 * least_us(c.problem))
    assert len(c.search.steps) == 2


@pytest.mark.parametrize("seed", SEEDS)
def test_the_walk_finds_a_prefix_of_the_ranking(seed: int) -> None:
    c = case(seed)
    c.start()
    ranking = ranking_of(c.problem)
    found = c.search.walk_all(ranking)
    order = [ranking.rows[i] for i in ranking.order()]
    prefixes = [c.search.prefix(order[:k], "int16") for k in range(1, len(order) + 1)]
    meeting = [p for p in prefixes if c.share(p) >= 0.99]
    if not meeting:
        assert found is None
    else:
        assert found is not None
        assert dict(found.assignment) == meeting[0]
        assert c.judge.meets(found.evaluation)


def test_a_prefix_that_bisection_passes_over_is_found_if_it_is_faster() -> None:
    lucky: list[frozenset[str]] = []

    def score(problem: Problem) -> Score:
        smooth = additive(problem)

        def of(assignment: Mapping[str, str]) -> float:
            raised = frozenset(name for name, kind in assignment.items() if kind != "int8")
            return 1.0 if raised in lucky else smooth(assignment)

        return of

    c = case(3, score=score)
    c.start()
    c.search.ladder()
    ranking = ranking_of(c.problem)
    first = c.search.prefix([ranking.rows[ranking.order()[0]]], "int16")
    lucky.append(frozenset(name for name, kind in first.items() if kind != "int8"))
    before = c.search.cheapest()
    assert before is not None
    assert c.search.undercut(ranking)
    after = c.search.cheapest()
    assert after is not None
    assert dict(after.assignment) == first
    assert after.evaluation.time_us == c.search.walk_us
    assert after.evaluation.time_us < before.evaluation.time_us  # type: ignore[operator]
    assert not c.search.undercut(ranking)


def test_a_prefix_raises_features_and_leaves_weights() -> None:
    c = case(0)
    nodes = [n.node for n in c.problem.latency.nodes]
    found = c.search.prefix(nodes, "int16")
    seconds = {name for n in c.problem.latency.nodes for name in n.second}
    assert {found[name] for name in seconds} <= {"int8"}
    firsts = {name for n in c.problem.latency.nodes for name in n.first}
    assert {found[name] for name in firsts} == {"int16"}


def test_steps_of_one_name_are_numbered() -> None:
    c = case(0)
    for name in ("int8", "int16", "int8"):
        c.search.run("same", c.measurer.prepared.all(name))
    assert [step.evaluation.name for step in c.search.steps] == ["same", "same (2)"]


def test_the_prediction_is_the_sum_of_the_groups() -> None:
    c = case(0)
    for raised in (c.problem.lowest(), c.problem.highest()):
        want = float(c.problem.errors.sum(0)[np.arange(raised.size), raised.astype(int)].sum())
        assert c.search.predicted(c.problem.assignment(raised)) == pytest.approx(want)


def test_progress_names_every_run_and_how_many_may_follow() -> None:
    c = case(0)
    named: list[tuple[str, int]] = []
    c.search.progress = lambda what, left: named.append((what, left))
    c.search.expect(first=3, second=4)
    c.search.begin("first")
    c.start()
    assert named == [("all-int8", 6), ("all-int16", 5)]
    c.search.begin("second")
    assert c.search.left == 4
