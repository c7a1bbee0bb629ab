from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from jptq.quant.config import load_config
from jptq.quant.resolve import resolve
from jptq.results import Goal, Outcome
from jptq.results.problem import Head
from jptq.tuning import Journal, Measurer, Options, Prepared, prepare, tune_prepared
from jptq.tuning.goal import Judge
from jptq.tuning.heads import LIMIT, find_head, regions, stages
from tests.tuning.problems_by_type import coarse_weight, detections, detector, near, ready

pytestmark = pytest.mark.slow

GOAL = Judge(Goal(min_score=0.99))

BY_HAND = (
    (["joined"], ["joined"]),
    (["cat_a", "cat_b"], ["joined"]),
    (["p_a", "p_b"], ["joined"]),
    (["place_a", "p_a", "place_b", "p_b"], ["joined"]),
    (["box_a", "score_a", "box_b", "score_b"], ["joined"]),
    (["box_a", "box_b"], ["joined"]),
    (["body_2"], ["joined"]),
)
"""Subgraphs that a person would try at this head, the last matrix products among them."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("detector")


@pytest.fixture(scope="module")
def prepared(folder: Path) -> Prepared:
    return ready(detector(), folder)


@pytest.fixture(scope="module")
def measurer(prepared: Prepared) -> Measurer:
    return Measurer(prepared, detections(detector()), Journal(None))


@pytest.fixture(scope="module")
def head(measurer: Measurer) -> Head:
    found = find_head(measurer, GOAL, ("joined:0",))
    assert found is not None
    return found


def meant(prepared: Prepared, config: Any) -> dict[str, str]:
    read = load_config(json.loads(json.dumps(config)))
    return dict(resolve(read, prepared.calibrated, prepared.plan, prepared.target, report=False))


@pytest.mark.seed("C9")
def test_the_head_is_a_legal_subgraph_that_really_meets_the_goal(
    prepared: Prepared, head: Head, folder: Path
) -> None:
    assert head.met
    forward = prepared.runner.forward(prepared.table(head.assignment))
    assert detections(detector())(forward)["score"] >= 0.99
    (subgraph,) = head.quant_config["subgraph_config"].values()
    assert subgraph["outputs"] == ["joined"]
    assert subgraph["qtype"] == "int16"
    assert meant(prepared, head.quant_config) == head.assignment
    again = prepare(
        folder / "model.onnx",
        folder / "data",
        march="nash-e",
        quant_config=json.loads(json.dumps(head.quant_config)),
    )
    assert dict(again.configured) == head.assignment


@pytest.mark.seed("C9", "C10")
def test_few_runs_find_a_head_as_cheap_as_the_best_made_by_hand(
    prepared: Prepared, measurer: Measurer, head: Head
) -> None:
    int8_us = prepared.latency.total_us(prepared.all("int8"))
    times = []
    for inputs, outputs in BY_HAND:
        subgraph = {"inputs": inputs, "outputs": outputs, "qtype": "int16"}
        assignment = meant(prepared, {"subgraph_config": {"hand": subgraph}})
        found = measurer(str(inputs), assignment)
        if GOAL.meets(found):
            times.append(prepared.latency.total_us(assignment))
    assert 0 < len(times) < len(BY_HAND)
    assert len(head.trials) <= LIMIT == 10
    best, own = min(times), prepared.latency.total_us(head.assignment)
    assert own <= 1.1 * best
    # All that a head adds to a network is little here: compare what it adds, too.
    assert own - int8_us <= 1.1 * (best - int8_us)


@pytest.mark.seed("C10")
def test_an_accepted_subgraph_gives_back_what_the_goal_does_not_need(
    prepared: Prepared, head: Head
) -> None:
    accepted = next(trial for trial in head.trials if GOAL.meets(trial))
    assert head.evaluation.raised < accepted.raised
    assert head.evaluation.time_us < accepted.time_us  # type: ignore[operator]
    assert set(head.nodes) <= {"cat_a", "cat_b", "flat_a", "flat_b", "joined"}


def test_regions_grow_by_a_row_of_matrix_products_on_all_branches(prepared: Prepared) -> None:
    found = list(regions(prepared, ("joined:0",)))
    assert found[0].inputs == ("unit_a", "p_a", "unit_b", "p_b")
    assert found[1].inputs == ("box_a", "score_a", "box_b", "score_b")
    assert found[-1].inputs == ("stem",)
    for small, large in itertools.pairwise(found):
        assert set(small.nodes) < set(large.nodes)
    reached = stages(prepared.calibrated, prepared.latency, ("joined:0",))
    assert [reached[n] for n in ("joined", "box_a", "box_a2", "box_a2_loud")] == [0, 1, 3, 4]


def test_the_limit_bounds_the_runs_and_the_best_of_them_is_returned(measurer: Measurer) -> None:
    found = find_head(measurer, Judge(Goal(min_score=2.0)), ("joined:0",), limit=3)
    assert found is not None
    assert not found.met
    assert len(found.trials) == 3
    assert found.evaluation.worst_share == max(t.worst_share or 0.0 for t in found.trials)


def test_a_head_on_top_of_a_mixed_model_keeps_its_types(
    prepared: Prepared, measurer: Measurer
) -> None:
    base = prepared.all("int8")
    name = prepared.plan.by_node["stem"].calibrations[0]
    base[name] = "int16"
    found = find_head(measurer, GOAL, ("joined:0",), base=base)
    assert found is not None
    assert found.assignment[name] == "int16"
    assert found.quant_config["node_config"]["stem"] == {"qtype": "int16"}
    assert meant(prepared, found.quant_config) == found.assignment


@pytest.mark.seed("C9", "C10")
def test_tuning_finds_the_head_and_writes_it_as_a_subgraph(prepared: Prepared) -> None:
    report = tune_prepared(
        prepared,
        Options(min_score=0.99, search="head"),
        evaluator=detections(detector()),
    )
    assert report.outcome is Outcome.MET
    assert list(report.quant_config["subgraph_config"]) == ["head"]
    assert meant(prepared, report.quant_config) == report.assignment
    assert report.final.time_us < report.int16.time_us  # type: ignore[operator]


def test_a_network_that_no_subgraph_mends_says_so(tmp_path: Path) -> None:
    found = ready(coarse_weight(), tmp_path)
    options = Options(min_score=0.97, search="head")
    report = tune_prepared(found, options, evaluator=near(coarse_weight()))
    assert report.outcome is Outcome.NOT_MET
    assert any("Problem type 3" in note for note in report.notes)
