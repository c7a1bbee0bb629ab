"""Methods that need no search: what they take their thresholds from."""

from __future__ import annotations

import numpy as np
import pytest

from jptq.calibration import Calibrated, activation_of, calibrate, candidates
from jptq.calibration.noise import random_samples
from jptq.data import MemorySamples
from jptq.errors import ConfigError
from jptq.quant.calibrated import plan_of, thresholds_of
from jptq.quant.config import Activation, Weight
from tests.calibration.test_search import MAX, found, network, run, samples
from tests.quant.networks import TARGET


def by(name: str, **settings: tuple[bool, ...]) -> Activation:
    return Activation(calibration_type=(name,), **settings)


def features(result: Calibrated) -> dict[str, np.ndarray]:
    names = {c.name for c in network()[1].calibrations if not c.constant}
    return {name: values for name, values in result.thresholds.items() if name in names}


def test_min_max_is_the_largest_value_on_a_symmetric_grid_and_the_range_on_another() -> None:
    for flags in ((False,), (True,)):
        largest = found(by("max", asymmetric=flags))
        span = found(by("min-max", asymmetric=flags))
        assert span.asymmetric == largest.asymmetric
        for name, values in largest.thresholds.items():
            np.testing.assert_array_equal(span.thresholds[name], values)
    assert found(by("min-max")).method == "min-max"


def test_fixed_thresholds_are_one_and_no_sample_is_run() -> None:
    def never(feeds: object) -> dict[str, np.ndarray]:
        raise AssertionError("run")

    result = calibrate(never, *network(), samples(), activation=by("fixed"))
    assert result.method == "fixed"
    assert all(values == 1.0 for values in features(result).values())
    assert any(values.max() != 1.0 for values in result.thresholds.values())  # weights


def test_loaded_thresholds_are_those_in_the_model() -> None:
    model, plan = network()
    before = found(Activation(calibration_type=("max",), asymmetric=(True,), per_channel=(True,)))
    carrying = before.write(model)
    plan = plan_of(carrying, TARGET)
    halved = Weight(max_percentile=0.5)
    loaded = calibrate(run, carrying, plan, samples(), activation=by("load"), weight=halved)
    assert loaded.method == "load"
    assert loaded.axes == before.axes
    again = thresholds_of(loaded.write(model))
    for name, values in features(before).items():
        np.testing.assert_array_equal(again[name], values)
    weight = plan.by_node["head"].inputs[1]
    np.testing.assert_allclose(again[weight], before.thresholds[weight] / 2)
    both = calibrate(
        run,
        loaded.write(model),
        plan,
        samples(),
        activation=by("load"),
        weight=Weight(calibration_type="load"),
    )
    np.testing.assert_array_equal(both.thresholds[weight], again[weight])


def test_a_model_without_thresholds_has_nothing_to_load() -> None:
    with pytest.raises(ConfigError, match="no thresholds to load") as error:
        found(by("load"))
    assert "x_HzCalibration" in error.value.where
    with pytest.raises(ConfigError, match="no thresholds to load"):
        found(MAX, weight=Weight(calibration_type="load"))


def test_skipping_takes_random_samples_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    result = found(by("skip"))
    assert any("random samples" in r.message for r in caplog.records if r.levelname == "WARNING")
    assert result.method == "skip"
    largest = max(np.abs(sample["x"]).max() for sample in random_samples(samples()).feeds)
    assert result.thresholds["x_HzCalibration"] == largest
    np.testing.assert_array_equal(
        result.thresholds["x_HzCalibration"], found(by("skip")).thresholds["x_HzCalibration"]
    )


def test_random_samples_keep_what_is_no_float() -> None:
    given = {"x": np.zeros((1, 2), np.float32), "index": np.asarray([3])}
    drawn = random_samples(MemorySamples(feeds=(given,)))
    assert all(np.array_equal(sample["index"], given["index"]) for sample in drawn.feeds)
    assert drawn.feeds[0]["x"].dtype == np.float32
    assert (drawn.feeds[0]["x"] != drawn.feeds[1]["x"]).all()


@pytest.mark.parametrize("name", ["max", "kl", "min-max", "load", "fixed", "skip", "mix"])
def test_a_tag_names_the_settings_that_give_it_again(name: str) -> None:
    assert activation_of(name).calibration_type == (name,)
    if name != "mix":
        (method,) = candidates(by(name))
        assert candidates(activation_of(method.tag)) == (method,)
