"""float16 of a configuration, from calibration over questions to tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jptq import ir
from jptq.errors import ConfigError
from jptq.quant.calibrated import assignment_of
from jptq.quant.config import load_config
from jptq.quant.explain import REFUSED
from jptq.quant.resolve import explain
from jptq.tuning import Options, Prepared, WhatIf, prepare, tune_prepared
from jptq.tuning.reopen import from_calibrated
from tests.tuning.networks import CONFIG

HALF = {"node_config": {"loud": {"qtype": "float16"}}}


def with_types(folder: Path, **levels: Any) -> Prepared:
    config = {**CONFIG, **levels}
    return prepare(folder / "model.onnx", folder / "data", march="nash-e", quant_config=config)


def loud(prepared: Prepared) -> list[str]:
    """Return the types of what the factor reads: a feature and a constant."""
    types = prepared.configured
    return [types[name] for name in prepared.plan.by_node["loud"].inputs.values()]


def test_a_calibrated_model_holds_float16_and_gives_the_configuration_back(
    folder: Path, tmp_path: Path
) -> None:
    found = with_types(folder, **HALF)
    assert loud(found) == ["float16", "float16"]
    ir.save(found.calibrated, tmp_path / "calibrated_model.onnx")
    again = from_calibrated(tmp_path / "calibrated_model.onnx", folder / "data", march="nash-e")
    assert assignment_of(again.calibrated) == found.configured
    feeds = found.samples[0]
    mine, theirs = (one.runner.forward(one.table(one.configured))(feeds) for one in (found, again))
    for name, value in mine.items():
        np.testing.assert_array_equal(value, theirs[name])


def test_an_answer_to_float16_is_the_model_that_is_configured_so(
    prepared: Prepared, folder: Path
) -> None:
    ask = WhatIf(prepared, segments=6)
    half, int16 = (ask({"loud": qtype, "outlier": "int16"}) for qtype in ("float16", "int16"))
    assert [change.after for change in half.changes[:2]] == ["float16", "float16"]
    assert all(change.applied for change in half.changes[:2])
    nodes = {**HALF["node_config"], "outlier": {"qtype": "int16"}}
    assert half.after == WhatIf(with_types(folder, node_config=nodes), segments=6).base
    # It rounds otherwise than int16, and moves as many bytes.
    assert half.after.comparison != int16.after.comparison != int16.before.comparison
    assert half.after.time_us == int16.after.time_us
    (feature, weight) = ask({"body": "float16"}).changes
    assert (feature.after, weight.after) == ("int16", "int8")
    assert feature.note == "not applied: nash-e takes int8, int16 here"


@pytest.mark.slow
def test_tuning_keeps_float16_that_is_named_and_says_it(folder: Path) -> None:
    found = with_types(folder, **HALF)
    report = tune_prepared(found, Options(min_cosine=0.9999))
    names = found.plan.by_node["loud"].inputs.values()
    assert [report.assignment[name] for name in names] == ["float16", "float16"]
    assert report.quant_config["node_config"]["loud"] == {"qtype": "float16"}
    again = with_types(folder, **report.quant_config)
    assert dict(again.configured) == dict(report.assignment)
    config = load_config(report.quant_config)
    outcomes = explain(config, found.calibrated, found.plan, found.target)
    assert not [one for one in outcomes if one.status == REFUSED]


def test_ec_is_not_loaded_into_a_calibrated_model(folder: Path, tmp_path: Path) -> None:
    ir.save(with_types(folder).calibrated, tmp_path / "calibrated_model.onnx")
    content = {
        "model_config": {"activation": {"calibration_type": "load"}},
        "node_config": {"body": {"input1": "ec"}},
    }
    with pytest.raises(ConfigError, match="ec of 'body' cannot be built into a calibrated") as one:
        from_calibrated(
            tmp_path / "calibrated_model.onnx",
            folder / "data",
            march="nash-e",
            config=load_config(content),
        )
    assert "give the float model" in one.value.hint
