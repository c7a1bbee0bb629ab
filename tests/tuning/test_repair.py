"""The third problem type: what all-INT16 leaves INT8 is compensated on few nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from jptq.results import Goal
from jptq.tuning import Journal, Measurer, Prepared, prepare
from jptq.tuning.goal import Judge
from jptq.tuning.repair import Repair, repair
from tests.tuning.networks import CONFIG

GOAL = 0.9999


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(Goal(min_cosine=GOAL))


@pytest.fixture(scope="module")
def found(prepared: Prepared, judge: Judge) -> Repair:
    return repair(Measurer(prepared, None, Journal(None)), judge)


@pytest.mark.slow
@pytest.mark.seed("A3", "D3", "D4")
def test_ec_on_few_nodes_meets_the_goal_that_all_int16_misses(
    folder: Path, prepared: Prepared, judge: Judge, found: Repair
) -> None:
    before = Measurer(prepared, None, Journal(None))("all-INT16", prepared.all("int16"))
    assert not judge.meets(before)
    assert found.met
    assert dict(found.operands) == {"outlier": 1}
    real = prepare(
        folder / "model.onnx", folder / "data", march="nash-e", quant_config=found.quant_config
    )
    after = Measurer(real, None, Journal(None))("ec", real.configured)
    assert judge.meets(after)
    assert after.quality == pytest.approx(found.trial.quality, abs=1e-4)


def test_the_configuration_has_the_documents_form(found: Repair) -> None:
    activation = CONFIG["model_config"]["activation"]
    assert found.quant_config == {
        "model_config": {"all_node_type": "int16", "activation": activation},
        "node_config": {"outlier": {"input1": "ec"}},
    }


def test_a_goal_beyond_true_int16_is_not_met_and_all_operands_were_tried(
    prepared: Prepared,
) -> None:
    best = repair(Measurer(prepared, None, Journal(None)), Judge(Goal(min_cosine=1.1)))
    assert not best.met
    assert dict(best.operands).keys() == {"stem", "outlier", "body", "head"}


def test_nothing_is_compensated_where_all_int16_is_enough(prepared: Prepared) -> None:
    measurer = Measurer(prepared, None, Journal(None))
    enough = repair(measurer, Judge(Goal(min_cosine=0.5)))
    assert enough.met
    assert dict(enough.operands) == {}
    assert "node_config" not in enough.quant_config
