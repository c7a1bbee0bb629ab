"""Whole fits of small networks."""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Sequence

import numpy as np
import pytest

from jptq.engine import Runner
from jptq.errors import UnknownNameError
from jptq.fitting import Fitted, capture, fit
from jptq.fitting.fit import judged
from jptq.fitting.guards import Outcome
from jptq.fitting.layers import Layer
from jptq.fitting.observed import scores_of
from jptq.quant.assign import table
from jptq.quant.plan import WEIGHT, Calibration
from jptq.results.fit import BIAS, PLAIN, WEIGHTS, LayerFit
from tests.fitting.networks import images, int8, placed, thresholds
from tests.graphs import Graph
from tests.oracles import run_onnx

SHAPE = (1, 6, 10, 10)


def network() -> Graph:
    """Return convolutions of all kinds, a shared kernel, and a head behind global pooling."""
    g = Graph(seed=1)
    x = g.add("Relu", g.conv(g.input("x", SHAPE), 6, 12, 3, name="stem"))
    x = g.add("Relu", g.conv(x, 12, 12, 3, group=12, name="depthwise"))
    kernel = g.random(12, 12, 1, 1, scale=0.3, name="shared")
    for i in range(2):
        x = g.add("Relu", g.add("Conv", x, kernel, g.random(12, scale=0.1), name=f"shared_{i}"))
    x = g.add("ConvTranspose", x, g.random(12, 8, 2, 2, scale=0.3), strides=[2, 2], name="up")
    pooled = g.add("Flatten", g.add("GlobalAveragePool", x))
    hidden = g.add("Relu", g.add("MatMul", pooled, g.random(8, 40, scale=0.4), name="bare"))
    score = g.add("Gemm", hidden, g.random(40, 5, scale=0.2), g.random(5), alpha=0.5, beta=2.0)
    g.output(g.add("Softmax", score, name="probabilities"))
    return g


def _fit(runner: Runner, samples: Sequence[dict[str, np.ndarray]], mode: str = "auto") -> Fitted:
    return fit(runner, samples, thresholds(runner, samples), int8(runner), mode=mode)


@pytest.fixture(scope="module")
def samples() -> list[dict[str, np.ndarray]]:
    return images(12, SHAPE)


@pytest.fixture(scope="module")
def runner(samples: list[dict[str, np.ndarray]]) -> Runner:
    return placed(network(), samples)


@pytest.fixture(scope="module")
def found(runner: Runner, samples: list[dict[str, np.ndarray]]) -> Fitted:
    return _fit(runner, samples)


def test_no_layer_is_worse_on_held_out_samples_and_the_network_is_better(found: Fitted) -> None:
    report = found.report
    assert report.kept
    assert report.fitted < 0.5 * report.plain
    errors = {WEIGHTS: "fitted", BIAS: "biased", PLAIN: "plain"}
    for layer in report.layers:
        assert getattr(layer, errors[layer.kept]) <= layer.plain
        assert layer.rows > 0
    assert report.count(WEIGHTS) >= 4


def test_a_shared_weight_is_one_layer_of_all_its_readers(runner: Runner, found: Fitted) -> None:
    (layer,) = [one for one in found.report.layers if len(one.nodes) > 1]
    assert layer.nodes == ("shared_0", "shared_1")
    assert layer.kept == WEIGHTS
    each = min(100, -(-capture.ROWS // 12))
    assert layer.rows == 2 * 8 * each  # readers, samples to fit to, positions


def test_only_weights_and_biases_change_and_nothing_is_added(runner: Runner, found: Fitted) -> None:
    names = {one.weight for one in found.report.layers if one.kept == WEIGHTS}
    for name, value in found.constants.items():
        own = runner.model.initializers[name]
        assert value.shape == own.shape
        assert value.dtype == np.float32
        assert name in names or own.size == max(own.shape)
    (bare,) = [one for one in found.report.layers if one.nodes == ("bare",)]
    assert bare.biased == bare.plain  # a MatMul has no bias, and is given none


def test_outputs_with_int8_weights_come_nearer_to_onnxruntime(
    runner: Runner, samples: list[dict[str, np.ndarray]], found: Fitted
) -> None:
    """Judged by samples that the fit has not seen at all."""

    def run(changed: dict[str, np.ndarray]) -> float:
        assert runner.plan is not None
        quantizers = runner.plan.calibrations
        types = {one.name: "int8" if one.constant else "float32" for one in quantizers}
        packed = runner.pack(table(runner.plan, thresholds(runner, samples), types), changed)
        lost = 0.0
        for sample in images(18, SHAPE)[12:]:
            (want,) = run_onnx(network().proto(), sample).values()
            (got,) = runner.forward(packed)(sample).values()
            lost += float(np.sum((got - want) ** 2))
        return lost

    assert run(dict(found.constants)) < 0.6 * run({})


def test_a_fit_is_the_same_every_time(
    runner: Runner, samples: list[dict[str, np.ndarray]], found: Fitted
) -> None:
    again = _fit(runner, samples)
    assert again.report == found.report
    assert list(again.constants) == list(found.constants)
    for name, value in again.constants.items():
        np.testing.assert_array_equal(value, found.constants[name])


def test_passes_over_few_layers_at_a_time_give_the_same_bytes(
    runner: Runner,
    samples: list[dict[str, np.ndarray]],
    found: Fitted,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(capture, "HESSIANS", 1)
    again = _fit(runner, samples)
    assert again.report == found.report
    for name, value in again.constants.items():
        np.testing.assert_array_equal(value, found.constants[name])


def test_other_batches_give_the_same_fit_but_for_sums_in_another_order(
    samples: list[dict[str, np.ndarray]], found: Fitted
) -> None:
    again = _fit(placed(network(), samples, batch=1), samples)
    assert [one.kept for one in again.report.layers] == [one.kept for one in found.report.layers]
    differ = total = 0
    for name, value in again.constants.items():
        if value.ndim > 1:
            differ += int(np.sum(value != found.constants[name]))
            total += value.size
        else:
            np.testing.assert_allclose(value, found.constants[name], rtol=1e-3, atol=1e-3)
    assert differ <= 0.02 * total


@pytest.mark.parametrize(("mode", "other"), [(BIAS, WEIGHTS), (WEIGHTS, BIAS)])
def test_a_mode_names_what_is_tried(
    runner: Runner, samples: list[dict[str, np.ndarray]], mode: str, other: str
) -> None:
    found = _fit(runner, samples, mode)
    assert found.report.kept
    assert found.report.count(mode) >= 3
    assert found.report.count(other) == 0
    if mode == BIAS:
        assert all(math.isnan(one.fitted) for one in found.report.layers)
        assert all(value.ndim == 1 for value in found.constants.values())


def test_off_changes_nothing_and_other_words_are_refused(runner: Runner) -> None:
    found = _fit(runner, [], "off")
    assert not found.constants
    assert not found.report.kept
    with pytest.raises(UnknownNameError, match="'wieghts'"):
        _fit(runner, [], "wieghts")


def test_a_single_sample_cannot_be_judged(
    runner: Runner, samples: list[dict[str, np.ndarray]]
) -> None:
    found = _fit(runner, samples[:1])
    assert not found.constants
    assert "single sample" in found.report.reason
    assert _fit(runner, samples[:2]).report.layers[0].rows == 100


def test_weights_above_int8_are_left_out(
    runner: Runner, samples: list[dict[str, np.ndarray]]
) -> None:
    types = int8(runner)
    assert runner.plan is not None
    slots = runner.plan.of_node("stem")
    types[slots.inputs[1]] = "int16"
    found = fit(runner, samples, thresholds(runner, samples), types)
    stem = next(one for one in found.report.layers if "stem" in one.nodes)
    assert stem.kept == PLAIN
    assert stem.reason == "the configuration makes it int16"
    assert stem.weight not in found.constants


def test_a_layer_of_more_inputs_than_memory_holds_is_left_out_with_the_reason(
    runner: Runner, samples: list[dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("jptq.fitting.fit")
    monkeypatch.setattr(module, "bytes_of", lambda layer: 10**9 * ("up" in layer.nodes))
    found = _fit(runner, samples)
    (up,) = [one for one in found.report.layers if one.nodes == ("up",)]
    assert "--memory_limit" in up.reason
    assert found.report.kept


def test_features_that_never_change_make_no_nan() -> None:
    g = Graph(seed=3)
    x = g.input("x", (1, 3, 6, 6))
    dead = g.constant(np.full(4, -100, np.float32))
    y = g.add("Relu", g.add("Conv", x, g.random(4, 3, 1, 1), dead))
    y = g.add("Concat", y, g.conv(x, 3, 4, 1, name="live"), axis=1)
    y = g.conv(y, 8, 5, 3, name="half")
    g.output(y)
    given = images(6, (1, 3, 6, 6))
    found = _fit(placed(g, given), given)
    assert all(np.isfinite(value).all() for value in found.constants.values())
    (half,) = [one for one in found.report.layers if one.nodes == ("half",)]
    assert half.fitted < half.plain


def test_an_output_that_is_always_the_same_is_left_alone() -> None:
    g = Graph(seed=3)
    x = g.input("x", (1, 3, 6, 6))
    dead = g.constant(np.full(4, -100, np.float32))
    y = g.add("Relu", g.add("Conv", x, g.random(4, 3, 1, 1), dead))
    g.output(g.add("Add", g.conv(y, 4, 4, 1, name="same"), g.conv(x, 3, 4, 1)))
    given = images(6, (1, 3, 6, 6))
    found = _fit(placed(g, given), given)
    (same,) = [one for one in found.report.layers if one.nodes == ("same",)]
    assert same.kept == PLAIN
    assert "same for all held-out rows" in same.reason


def test_inputs_whose_products_are_no_numbers_are_left_alone() -> None:
    g = Graph(seed=3)
    x = g.input("x", (1, 3, 6, 6))
    loud = g.conv(g.add("Mul", x, g.constant(1e25)), 3, 4, 1, name="loud")
    quiet = g.add("Mul", loud, g.constant(1e-25))
    masked = g.add("Where", g.add("Less", quiet, g.constant(0.0)), g.constant(-np.inf), quiet)
    g.output(g.conv(quiet, 4, 4, 1, name="normal"), g.conv(masked, 4, 2, 1, name="masked"))
    given = images(6, (1, 3, 6, 6))
    found = _fit(placed(g, given), given)
    by_node = {one.nodes[0]: one for one in found.report.layers}
    for name in ("loud", "masked"):
        assert by_node[name].kept == PLAIN
        assert "range of float32" in by_node[name].reason
    assert by_node["normal"].fitted < by_node["normal"].plain


def test_few_rows_overfit_and_are_not_kept() -> None:
    """Behind global pooling a sample is one row: 6 rows say little of 200 inputs."""
    g = Graph(seed=4)
    pooled = g.add("Flatten", g.add("GlobalAveragePool", g.input("x", (1, 200, 2, 2))))
    g.output(g.add("Gemm", pooled, g.random(200, 8), g.random(8), name="head"))
    rng = np.random.default_rng(0)
    given = [{"x": rng.standard_normal((1, 200, 2, 2)).astype(np.float32)} for _ in range(9)]
    found = _fit(placed(g, given), given)
    (head,) = found.report.layers
    assert head.rows == 6
    assert head.kept == PLAIN
    assert "on 3 held-out rows" in head.reason
    assert not found.constants


def test_scores_are_taken_before_probabilities_and_apart(runner: Runner) -> None:
    (score,) = scores_of(runner)
    assert runner.model.producers[score].op == "Gemm"
    g = Graph(seed=5)
    x = g.input("x", (1, 3, 4, 4))
    boxes, logits = g.conv(x, 3, 4, 1, name="boxes"), g.conv(x, 3, 2, 1, name="logits")
    sure = g.add("HardSigmoid", g.add("Reshape", logits, g.constant([1, 2, 16])))
    flat = g.add("Reshape", boxes, g.constant([1, 4, 16]))
    joined = g.add("Concat", flat, sure, axis=1)
    g.output(g.add("Transpose", joined, perm=[0, 2, 1]))
    other = placed(g, images(1, (1, 3, 4, 4)))
    producers = [other.model.producers[name].name for name in scores_of(other)]
    assert sorted(producers) == ["boxes", "logits"]


def _outcome(weight: str, kept: str) -> Outcome:
    row = LayerFit(nodes=(weight,), weight=weight, kept=kept)
    quantizer = Calibration(
        name=f"{weight}_quantizer", tensor=weight, output="", kind=WEIGHT, allowed=("int8",)
    )
    layer = Layer(weight=weight, calibration=quantizer, nodes=(weight,), shape=(1,))
    one = np.ones(1, np.float32)
    full = {weight: one, f"{weight}_bias": one} if kept == WEIGHTS else {f"{weight}_bias": one}
    return Outcome(layer=layer, row=row, constants=full, biases={f"{weight}_bias": -one})


def test_the_network_takes_biases_alone_where_weights_make_it_worse_or_nothing() -> None:
    outcomes = [_outcome("a", WEIGHTS), _outcome("b", BIAS)]
    errors = {0: 1.0, 3: 2.0, 2: 0.5}
    found = judged("auto", outcomes, lambda changed: errors[len(changed)])
    assert set(found.constants) == {"a_bias", "b_bias"}
    assert found.constants["a_bias"][0] == -1.0
    assert found.owners == {"a_bias": "a_quantizer", "b_bias": "b_quantizer"}
    assert [one.kept for one in found.report.layers] == [BIAS, BIAS]
    assert (found.report.plain, found.report.fitted) == (1.0, 0.5)
    for bad in (1.0, math.nan):
        nothing = judged("auto", outcomes, lambda changed, bad=bad: bad if changed else 1.0)
        assert not nothing.constants
        assert not nothing.report.kept
        assert {one.kept for one in nothing.report.layers} == {PLAIN}
        assert "no better" in nothing.report.reason
    alone = judged("weights", outcomes, lambda changed: errors[len(changed)])
    assert not alone.constants
    all_of_it = judged("auto", outcomes, lambda changed: 1.0 - 0.1 * len(changed))
    assert len(all_of_it.constants) == 3
    assert dataclasses.asdict(all_of_it.report)["kept"]
