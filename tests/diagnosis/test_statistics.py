from __future__ import annotations

import numpy as np
import pytest

from jptq.diagnosis import PERCENTILES, statistics_of
from jptq.quant.assign import uniform
from tests.diagnosis.networks import case, joined, types


def test_numbers_are_numpys() -> None:
    made = case()
    name = made.plan.by_node["stem"].inputs[0]
    thresholds = {**made.thresholds, name: made.thresholds[name] * np.float32(0.5)}
    (one,) = statistics_of(made.runner, thresholds, types(made), [name], made.samples)
    values = joined(made.samples, "x").astype(np.float64)
    limit = float(thresholds[name][0])
    assert (one.minimum, one.maximum) == (values.min(), values.max())
    assert one.mean == pytest.approx(values.mean(), abs=1e-9)
    assert one.std == pytest.approx(values.std())
    assert one.threshold == limit
    steps = np.round(values / (limit / 127))
    codes = np.clip(steps, -128, 127)
    assert one.clipped == np.mean(steps != codes) > 0
    assert one.used_bits == pytest.approx(np.log2(len(np.unique(codes))))
    noise = np.square(codes * limit / 127 - values).sum()
    assert one.sqnr_db == pytest.approx(10 * np.log10(np.square(values).sum() / noise), abs=1e-4)
    cell = (values.max() - values.min()) / 65536
    for percent in PERCENTILES:
        want = np.percentile(values, percent, method="inverted_cdf")
        assert abs(one.percentiles[percent] - want) <= 1.001 * cell
    assert (one.kind, one.qtype, one.samples) == ("feature", "int8", 5)


def test_a_weight_uses_no_samples() -> None:
    made = case()
    name = made.plan.by_node["stem"].inputs[1]
    (one,) = statistics_of(made.runner, made.thresholds, types(made), [name], made.samples)
    weight = made.model.initializers[made.plan.calibration(name).tensor]
    assert (one.minimum, one.maximum, one.samples) == (weight.min(), weight.max(), 0)
    assert one.clipped == 0


def test_zeros_are_counted() -> None:
    made = case()
    name = made.plan.by_node["stem"].inputs[0]
    blank = [{"x": np.where(feeds["x"] > 0, feeds["x"], np.float32(0))} for feeds in made.samples]
    (one,) = statistics_of(made.runner, made.thresholds, types(made), [name], blank)
    assert one.zeros == np.mean(joined(made.samples, "x") <= 0)


@pytest.mark.parametrize("held", ["float32", "float16"])
def test_a_type_without_integers_has_no_used_bits(held: str) -> None:
    made = case()
    name = made.plan.by_node["stem"].inputs[0]
    kinds = {**uniform(made.plan, "int8"), name: held}
    (one,) = statistics_of(made.runner, made.thresholds, kinds, [name], made.samples)
    assert one.used_bits is None
    assert (one.sqnr_db is None) == (held == "float32")
