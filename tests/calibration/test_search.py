from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jptq.calibration import Calibrated, calibrate, candidates
from jptq.calibration.collect import channelwise, observed
from jptq.calibration.scoring import surpasses
from jptq.calibration.weights import weight_thresholds
from jptq.data import MemorySamples
from jptq.errors import ConfigError, DataError
from jptq.ir.model import Model
from jptq.quant.calibrated import plan_of, thresholds_of
from jptq.quant.config import Activation, Weight
from jptq.quant.plan import Plan
from tests.graphs import Graph
from tests.quant.networks import TARGET, placed

MAX = Activation(calibration_type=("max",))


def network() -> tuple[Model, Plan]:
    """x [1, 4, 32, 32] is read by a depthwise convolution; Tanh and Sigmoid meet in a Concat."""
    g = Graph()
    x = g.input("x", (1, 4, 32, 32))
    y = g.conv(x, 4, 4, group=4, name="depthwise")
    joined = g.add("Concat", g.add("Tanh", y, name="a"), g.add("Sigmoid", y, name="b"), axis=1)
    g.output(g.conv(joined, 8, 3, 1, name="head"))
    model = placed(g)
    return model, plan_of(model, TARGET)


SCALE = {"x": 1.0, "depthwise:0": 3.0, "a:0": 0.5, "b:0": 0.25, "Concat_3:0": 0.5}
"""What the stand-in for the network makes of its input."""


def run(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    x = feeds["x"]
    out = {name: x * np.float32(scale) for name, scale in SCALE.items()}
    out["b:0"] = np.abs(out["b:0"])
    return out


def samples(count: int = 5, seed: int = 0) -> MemorySamples:
    rng = np.random.default_rng(seed)
    return MemorySamples(
        feeds=tuple(
            {"x": (rng.standard_normal((1, 4, 32, 32)) * (1 + i)).astype(np.float32)}
            for i in range(count)
        )
    )


def values() -> np.ndarray:
    return np.stack([sample["x"] for sample in samples()])


def found(activation: Activation, **options: object) -> Calibrated:
    return calibrate(run, *network(), samples(), activation=activation, **options)  # type: ignore[arg-type]


def test_every_quantizer_gets_thresholds() -> None:
    model, plan = network()
    result = found(MAX)
    assert set(result.thresholds) == set(plan.index)
    assert (result.method, result.samples, result.trials) == ("max", 5, ())
    written = thresholds_of(result.write(model))
    for name, expected in result.thresholds.items():
        np.testing.assert_array_equal(written[name], expected)


def test_max_is_the_largest_absolute_value() -> None:
    thresholds = found(MAX).thresholds
    largest = np.abs(values()).max()
    assert thresholds["x_HzCalibration"] == largest
    assert thresholds["depthwise:0_HzCalibration"] == largest * np.float32(3)


def test_tied_quantizers_share_the_largest_threshold() -> None:
    thresholds = found(MAX).thresholds
    for name in ("a:0", "b:0", "Concat_3:0"):
        assert thresholds[f"{name}_HzCalibration"] == thresholds["a:0_HzCalibration"]
    assert thresholds["b:0_HzCalibration"] == np.abs(values() * np.float32(0.5)).max()


@pytest.mark.parametrize(
    "activation",
    [
        MAX,
        Activation(calibration_type=("max",), max_percentile=(0.99,)),
        Activation(calibration_type=("kl",)),
        Activation(calibration_type=("max",), per_channel=(True,), asymmetric=(True,)),
    ],
)
def test_one_batch_or_many_give_the_same_thresholds(activation: Activation) -> None:
    one, many = found(activation, batch_size=8), found(activation, batch_size=2)
    for name, expected in one.thresholds.items():
        np.testing.assert_array_equal(many.thresholds[name], expected)


def test_a_percentile_is_a_quantile_over_all_samples() -> None:
    activation = Activation(calibration_type=("max",), max_percentile=(0.99,))
    result = found(activation)
    assert result.method == "max-percentile:percentile=0.99"
    magnitude = np.sort(np.abs(values()), axis=None)
    exact = magnitude[int(np.ceil(0.99 * magnitude.size)) - 1]
    resolution = magnitude[-1] / 8192
    assert exact <= result.thresholds["x_HzCalibration"] <= exact + resolution


def test_kl_cuts_off_lone_values() -> None:
    feeds = [{"x": sample["x"].copy()} for sample in samples()]
    feeds[-1]["x"][0, 0, 0, 0] = 500.0
    activation = Activation(calibration_type=("kl",))
    result = calibrate(run, *network(), MemorySamples(feeds=tuple(feeds)), activation=activation)
    assert result.method == "kl:num_bin=1024,max_num_bin=16384"
    assert 5 < result.thresholds["x_HzCalibration"] < 100


def test_only_features_that_convolutions_absorb_are_split_by_channel() -> None:
    model, plan = network()
    assert channelwise(plan) == {"x_HzCalibration", "Concat_3:0_HzCalibration"}
    result = found(Activation(calibration_type=("max",), per_channel=(True,)))
    assert result.axes == {"x_HzCalibration": 1}  # the other one is tied to its operands
    np.testing.assert_array_equal(
        result.thresholds["x_HzCalibration"], np.abs(values()).max(axis=(0, 1, 3, 4))
    )
    assert plan_of(result.write(model), TARGET).calibration("x_HzCalibration").channels == 4


def test_features_with_negative_values_get_a_range() -> None:
    result = found(Activation(calibration_type=("max",), asymmetric=(True,)))
    x = values()
    np.testing.assert_array_equal(result.thresholds["x_HzCalibration"], [x.min(), x.max()])
    # b alone is never negative, but it is tied to a.
    assert result.asymmetric == {f"{name}_HzCalibration" for name in SCALE}
    assert result.method == "max:asymmetric"


def test_weights_keep_the_largest_absolute_value_of_each_channel() -> None:
    model, plan = network()
    name = plan.by_node["head"].inputs[1]
    kernel = np.abs(model.initializers[plan.calibration(name).tensor])
    np.testing.assert_array_equal(weight_thresholds(model)[name], kernel.max(axis=(1, 2, 3)))
    shrunk = found(MAX, weight=Weight(max_percentile=0.5)).thresholds[name]
    np.testing.assert_allclose(shrunk, kernel.max(axis=(1, 2, 3)) / 2)


@pytest.mark.parametrize("kind", ["max", "max-percentile", "kl"])
def test_nan_is_refused_with_the_quantizer(kind: str) -> None:
    def broken(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {**run(feeds), "a:0": run(feeds)["a:0"] * np.float32(np.nan)}

    model, plan = network()
    with pytest.raises(DataError, match="NaN") as caught:
        calibrate(broken, model, plan, samples(), activation=Activation(calibration_type=(kind,)))
    assert "HzCalibration" in caught.value.where


def test_nan_in_a_weight_is_refused_with_the_weight() -> None:
    model, plan = network()
    name = plan.by_node["head"].inputs[1]
    tensor = plan.calibration(name).tensor
    kernel = model.initializers[tensor] * np.float32(np.nan)
    broken = dataclasses.replace(model, initializers={**model.initializers, tensor: kernel})
    with pytest.raises(DataError, match="NaN") as caught:
        calibrate(run, broken, plan, samples(), activation=MAX)
    assert caught.value.where == name


def test_a_mask_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    def masked(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        a = run(feeds)["a:0"]
        return {**run(feeds), "a:0": np.where(a > 0, np.float32(-np.inf), a)}

    calibrate(masked, *network(), samples(), activation=MAX)
    (warning,) = (record.message for record in caplog.records if record.levelname == "WARNING")
    assert warning.endswith("a:0_HzCalibration (read by 'Concat_3' (Concat))")


def test_no_samples_are_refused() -> None:
    with pytest.raises(DataError, match="no samples"):
        calibrate(run, *network(), samples(0), activation=MAX)


def test_a_tensor_of_zeros_gets_a_threshold_of_one() -> None:
    def zeros(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: x * np.float32(0) for name, x in run(feeds).items()}

    for activation in (MAX, Activation(calibration_type=("kl",))):
        result = calibrate(zeros, *network(), samples(), activation=activation)
        assert result.thresholds["x_HzCalibration"] == 1.0


def test_the_default_search_tries_what_the_vendor_tries_in_its_order() -> None:
    tags = [method.tag for method in candidates(Activation())]
    kl = "kl:num_bin=1024,max_num_bin=16384"
    assert tags[:6] == [
        "max-percentile:percentile=0.99995",
        "max",
        kl,
        "max-percentile:percentile=0.99995,asymmetric",
        "max:asymmetric",
        f"{kl},asymmetric",
    ]
    assert tags[6:9] == ["max-percentile:percentile=0.99995,per_channel", "max:per_channel",
                         f"{kl},per_channel"]  # fmt: skip
    assert len(tags) == 12


def test_a_list_asks_for_the_product_of_its_values() -> None:
    activation = Activation(
        calibration_type=("kl", "max"), num_bin=(512, 1024), max_percentile=(1.0,)
    )
    assert [m.tag for m in candidates(activation)] == [
        "kl:num_bin=512,max_num_bin=16384",
        "kl:num_bin=1024,max_num_bin=16384",
        "max",
    ]


@dataclasses.dataclass(frozen=True)
class Judge:
    """Scores by the method's tag; alone, by how near the thresholds are to wanted ones."""

    by_tag: dict[str, float]
    default: float = 0.9
    wanted: dict[str, float] = dataclasses.field(default_factory=dict)

    def whole(self, found: Calibrated) -> dict[str, float]:
        value = self.by_tag.get(found.method, self.default)
        return {"cosine-similarity": value, "mse": 1.0 - value}

    def alone(
        self, found: Calibrated, names: tuple[str, ...], qtype: str | None = None
    ) -> dict[str, float]:
        off = max(abs(found.thresholds[n].max() - self.wanted.get(n, 0.0)) for n in names)
        value = (1.0 if qtype else 0.998) - (0.0 if qtype else float(off) / 1000)
        return {"cosine-similarity": value, "mse": 1.0 - value}


def scores(by_tag: dict[str, float], default: float = 0.9) -> Judge:
    return Judge(by_tag, default)


def test_the_best_candidate_is_taken_the_first_among_equals() -> None:
    result = found(Activation(), scorer=scores({"max": 0.95, "max:asymmetric": 0.95}))
    assert result.method == "max"
    assert len(result.trials) == 12


@pytest.mark.parametrize(("error", "method"), [(0.0496, "max"), (0.0470, "max:asymmetric")])
def test_a_later_candidate_has_to_be_clearly_better(error: float, method: str) -> None:
    """By 5 % of the error: on another processor the order of near ones is another one."""
    judge = scores({"max": 0.95, "max:asymmetric": 1.0 - error})
    assert found(Activation(), scorer=judge).method == method


@pytest.mark.parametrize(
    ("metric", "top", "near", "clear"),
    [
        ("cosine-similarity", 0.9, 0.904, 0.906),
        ("mse", -2.0, -1.91, -1.89),
        ("sqnr", 20.0, 20.1, 20.12),
    ],
)
def test_clearly_better_is_a_share_of_the_error(
    metric: str, top: float, near: float, clear: float
) -> None:
    assert not surpasses(top, top, metric)
    assert not surpasses(near, top, metric)
    assert surpasses(clear, top, metric)
    assert surpasses(near, -np.inf, metric)


def test_no_further_method_is_compared_when_time_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    left = iter((False, True))
    judge = scores({}, default=0.9)
    result = found(Activation(), scorer=judge, enough=lambda: next(left))
    assert len(result.trials) == 2
    assert "2 of 12 calibration methods" in caplog.text


def test_per_channel_is_not_tried_once_the_rest_is_good_enough() -> None:
    result = found(Activation(), scorer=scores({"max": 0.996}))
    assert [trial.method for trial in result.trials if "per_channel" in trial.method] == []
    assert len(result.trials) == 6


def test_a_score_that_is_no_number_loses_to_any_other() -> None:
    result = found(Activation(), scorer=scores({"max:per_channel": -0.5}, default=float("nan")))
    assert result.method == "max:per_channel"


def test_several_methods_need_a_score() -> None:
    with pytest.raises(ConfigError, match="nothing to compare"):
        found(Activation())


def test_the_samples_are_read_twice_at_most() -> None:
    reads: list[int] = []

    class Counted(MemorySamples):
        def __getitem__(self, index: int) -> dict[str, np.ndarray]:
            reads.append(index)
            return super().__getitem__(index)

    model, plan = network()
    data = Counted(feeds=samples().feeds)
    calibrate(run, model, plan, data, activation=MAX, batch_size=2)
    assert sorted(reads) == list(range(5))
    reads.clear()
    calibrate(run, model, plan, data, scorer=scores({}), batch_size=2)
    assert sorted(reads) == sorted([*range(5), *range(5)])


def test_progress_ends_at_the_total() -> None:
    seen: list[tuple[int, int]] = []
    found(Activation(), scorer=scores({}), batch_size=2, progress=lambda *at: seen.append(at))
    assert seen[0] == (2, 10)
    assert seen[-1] == (10, 10)


def test_constants_are_not_observed() -> None:
    g = Graph()
    x = g.input("x", (1, 4))
    g.output(g.add("MatMul", g.add("Mul", x, g.random(4, name="factor")), g.random(4, 2)))
    model = placed(g)
    plan = plan_of(model, TARGET)
    assert {c.tensor for c in observed(plan)} == {"x", "Mul_0:0"}
    np.testing.assert_array_equal(
        weight_thresholds(model)["factor_HzCalibration"], [np.abs(g.constants["factor"]).max()]
    )
