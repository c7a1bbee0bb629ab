from __future__ import annotations

import numpy as np
import pytest

from jptq.diagnosis import channel_axis, channel_ranges_of, channels_of
from jptq.errors import ConfigError
from tests.diagnosis.networks import by_onnxruntime, case, joined, on


def test_quartiles_are_numpys() -> None:
    made = case()
    weight = made.plan.by_node["stem"].inputs[1]
    tensors = {weight: made.plan.calibration(weight).tensor, "in": "x", "gate": "stem_gate:0"}
    axes = {weight: 0, "in": 1, "gate": -1}
    kernel, inside, gate = channels_of(made.runner, on(made), tensors, made.samples, axes=axes)
    values = joined(by_onnxruntime(made, [], ["stem_gate:0"]), "stem_gate:0")
    whole = {
        kernel: made.model.initializers[tensors[weight]],
        inside: np.moveaxis(joined(made.samples, "x"), 2, 0),
        gate: np.moveaxis(values, -1, 0),
    }
    for one, rows in whole.items():
        rows = rows.reshape(len(rows), -1)
        want = np.percentile(rows, [0, 25, 50, 75, 100], axis=1).T
        np.testing.assert_allclose(one.quartiles, want, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(one.mean, rows.mean(1), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(one.largest, np.abs(rows).max(1), rtol=1e-5)
    assert (kernel.samples, inside.samples, gate.axis) == (0, 5, 3)


def test_of_too_many_values_evenly_spread_samples_are_looked_at() -> None:
    made = case()
    room = 3 * made.samples[0]["x"].size
    (one,) = channels_of(made.runner, on(made), {"": "x"}, made.samples, axes={"": 1}, limit=room)
    picked = joined([made.samples[i] for i in (0, 2, 4)], "x")
    assert one.samples == 3
    assert one.quartiles[:, 2] == pytest.approx(
        np.median(np.moveaxis(picked, 2, 0).reshape(3, -1), 1)
    )


def test_an_axis_that_does_not_exist_is_refused() -> None:
    made = case()
    with pytest.raises(ConfigError, match="axis 4"):
        channels_of(made.runner, on(made), {"": "x"}, made.samples, axes={"": 4})


def test_ranges_are_over_all_samples() -> None:
    made = case()
    names = [made.plan.by_node["stem"].inputs[i] for i in (0, 1)]
    found = channel_ranges_of(made.runner, on(made), names, made.samples)
    rows = np.abs(np.moveaxis(joined(made.samples, "x"), 2, 0).reshape(3, -1))
    assert found[names[0]].largest == pytest.approx(rows.max(1))
    assert found[names[0]].least == pytest.approx(rows.min(1))
    kernel = made.model.initializers[made.plan.calibration(names[1]).tensor]
    assert found[names[1]].largest == pytest.approx(np.abs(kernel).reshape(4, -1).max(1))


def test_weights_have_their_own_axis_and_features_the_second() -> None:
    made = case()
    stem = made.plan.by_node["stem"]
    feature, weight = (made.plan.calibration(stem.inputs[i]) for i in (0, 1))
    assert channel_axis(feature, 4, constant=False) == 1
    assert channel_axis(feature, 1, constant=False) == 0
    assert channel_axis(weight, 4, constant=True) == 0
