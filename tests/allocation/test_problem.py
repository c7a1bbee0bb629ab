from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from jptq.allocation import Group, Problem, milp
from jptq.allocation.caps import cap
from jptq.errors import ConfigError, UnknownNameError
from jptq.results import Boundary, LatencyTable, NodeTime
from tests.allocation.problems import random_problem


def small(**changes: Any) -> Problem:
    times = {"int8": 1.0, "int16": 2.0, "float32": 9.0}
    parts: dict[str, Any] = {
        "groups": tuple(Group(name=name, calibrations=(name,)) for name in ("a", "b")),
        "errors": np.array([[[4.0, 1.0], [2.0, 1.0]]]),
        "latency": LatencyTable(
            target="test",
            nodes=(
                NodeTime(
                    node="n", op="Add", first=("a", "b"), second=(), macs=1, bytes=1, time_us=times
                ),
            ),
            boundaries=(Boundary(first=("a",), second="b", time_us=0.5),),
        ),
        "weights": np.ones(1),
        "limits": np.full(1, np.inf),
        "base_error": np.zeros(1),
    }
    return Problem(**{**parts, **changes})


def test_a_choice_costs_what_its_assignment_costs_in_the_tables() -> None:
    problem = small()
    raised = np.array([False, True])
    assert problem.assignment(raised) == {"a": "int8", "b": "int16"}
    assert problem.time_us(raised) == 2.0 + 0.5
    assert problem.error(raised) == 4.0 + 1.0
    assert problem.choice(problem.assignment(raised)).tolist() == raised.tolist()


@pytest.mark.parametrize("seed", range(5))
def test_terms_and_edges_add_up_to_the_latency_table(seed: int) -> None:
    problem = random_problem(seed, nodes=12)
    rng = np.random.default_rng(seed)
    for _ in range(20):
        raised = np.where(problem.free, rng.random(len(problem.groups)) < 0.5, problem.lowest())
        total = sum(part.time_us(raised) for part in problem.parts)
        assert total == pytest.approx(problem.time_us(raised))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"errors": np.zeros((1, 3, 2))}, "do not fit"),
        ({"errors": np.full((1, 2, 2), np.nan)}, "finite"),
        ({"errors": np.full((1, 2, 2), -1.0)}, "negative"),
        ({"weights": np.ones(2)}, "weights"),
        ({"limits": np.full(1, -1.0)}, "limits"),
        ({"limits": np.full(1, np.nan)}, "limits"),
        ({"base_error": np.full(1, np.inf)}, "finite"),
        ({"groups": (Group(name="a", calibrations=("a",)),) * 2}, "two groups"),
        (
            {"groups": tuple(Group(name=n, calibrations=(n,), types=("int4",)) for n in "ab")},
            "int4",
        ),
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused(changes: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        small(**changes)


def test_a_calibration_without_a_group_is_named() -> None:
    latency = dataclasses.replace(
        small().latency, boundaries=(Boundary(first=("c",), second="b", time_us=1.0),)
    )
    with pytest.raises(UnknownNameError, match="'c'"):
        small(latency=latency)


def test_a_result_is_written_without_infinities() -> None:
    found = milp.solve(small(), 2.0).to_json()
    assert found["status"] == "optimal"
    assert found["assignment"] == {"a": "int16", "b": "int16"}
    nothing = milp.solve(small(), 0.5).to_json()
    assert (nothing["status"], nothing["time_us"], nothing["bound"]) == ("infeasible", None, 1.0)
    json.dumps([found, nothing], allow_nan=False)


def test_a_cap_rules_out_what_alone_exceeds_it_and_scales_the_rest_to_one() -> None:
    problem = small(errors=np.array([[[1e6, 1e-9], [3e-9, 1e-9]]]))
    scaled = cap(problem, problem.cost, 0.0, 5e-9)
    assert scaled is not None
    assert scaled.allowed.tolist() == [[False, True], [True, True]]
    assert scaled.coefficients == pytest.approx([0.0, -2 / 3])
    assert scaled.constant == pytest.approx(2 / 3)
    assert cap(problem, problem.cost, 0.0, 1e-9) is None
