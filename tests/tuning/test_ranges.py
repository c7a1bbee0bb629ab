from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import jptq
from jptq.quant.assign import uniform
from jptq.results import Outcome
from jptq.results.ranges import BIAS, PARTS, SUM
from jptq.tuning import Options, Prepared, integer_ranges, prepare, tune_prepared
from jptq.tuning.ranges import kept_inside, note_inside
from jptq.tuning.reopen import from_calibrated
from tests.graphs import Graph

MAX = {"model_config": {"activation": {"calibration_type": "max"}}}
SAMPLES = [np.random.default_rng(i).uniform(-2, 2, (1, 4, 6, 6)).astype(np.float32) for i in (0, 1)]


def prepared(folder: Path, graph: Graph, samples: list[np.ndarray], **options: object) -> Prepared:
    onnx.save(graph.proto(), folder / "model.onnx")
    data = folder / "data"
    data.mkdir()
    for i, sample in enumerate(samples):
        np.save(data / f"{i}.npy", sample)
    return prepare(folder / "model.onnx", data, march="nash-e", quant_config=MAX, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def faint(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Return a network with a convolution of which two channels are all but dead."""
    g = Graph(seed=2)
    weight = g.rng.standard_normal((4, 4, 3, 3)).astype(np.float32)
    weight[1:3] *= np.float32(1e-8)
    bias = np.array([1.0, 4.0, 0.0, -2.0], np.float32)
    x = g.input("x", (1, 4, 6, 6))
    x = g.add("Conv", x, g.constant(weight, "w"), g.constant(bias, "b"), name="faint", pads=[1] * 4)
    flat = g.add("Reshape", g.add("Relu", x), g.constant([1, 36, 4]))
    g.constants["matrix"] = (g.rng.standard_normal((4, 3)) * 1e-9).astype(np.float32)
    product = g.add("MatMul", flat, "matrix", name="product")
    g.output(g.add("Add", product, g.constant(np.array([0, 0, -7], np.float32), "c"), name="add"))
    return prepared(tmp_path_factory.mktemp("faint"), g, SAMPLES)


def steps(found: Prepared, features: str, weights: str, kind: str = "int8") -> np.ndarray:
    """Return the unit of a product, float64, by the vendor's formula."""
    largest = 127.0 if kind == "int8" else 32767.0
    return (
        found.thresholds[features].astype(np.float64)
        / largest
        * found.thresholds[weights].astype(np.float64)
        / 127.0
    )


def calibrations(found: Prepared, node: str) -> tuple[str, str]:
    inputs = found.plan.of_node(node).inputs
    return inputs[0], inputs[1]


@pytest.mark.parametrize("kind", ["int8", "int16"])
def test_biases_that_leave_int32_are_named_with_the_factor(faint: Prepared, kind: str) -> None:
    ranges = integer_ranges(faint, uniform(faint.plan, kind))
    named = {one.node: one for one in ranges.found}
    assert set(named) == {"faint", "product"}
    for node, bias, channels in (("faint", 4.0, 1), ("product", 7.0, 1)):
        unit = steps(faint, *calibrations(faint, node), kind)
        channel = 1 if node == "faint" else 2
        one = named[node]
        assert one.what == BIAS
        assert one.factor == pytest.approx(bias / unit[channel] / 2**31, rel=1e-5)
        assert one.factor > 1
        assert (one.channels, one.bits) == (channels, 32)
    assert ranges.samples == 0, "no sum of so few products can leave"
    note = ranges.notes[0]
    assert "2 biases do not fit int32" in note
    assert "nearest that fits (assumed)" in note
    assert "published" in note


def test_a_bias_of_two_int16_operands_has_the_width_of_their_sums(faint: Prepared) -> None:
    dual = {**uniform(faint.plan, "int16")}
    for one in faint.plan.calibrations:
        dual[one.name] = "int16"
    target = faint.target.integers
    for one in integer_ranges(faint, dual).found:
        unit = steps(faint, *calibrations(faint, one.node), "int16") * 127 / 32767
        bias = {"faint": (1, 4.0), "product": (2, 7.0)}[one.node]
        assert one.operands == "INT16 x INT16"
        assert one.bits == target.bias_int16_bits.value
        assert one.factor == pytest.approx(bias[1] / unit[bias[0]] / 2 ** (one.bits - 1), rel=1e-5)


@pytest.mark.slow
def test_a_tuning_measures_what_is_left_within_the_integers(faint: Prepared) -> None:
    report = tune_prepared(faint, Options(min_cosine=0.9, leftovers="int8", samples=1))
    assert report.outcome is Outcome.MET
    assert report.inside is not None
    strict = kept_inside(faint)
    forward = strict.runner.forward(strict.table(report.assignment))
    exact = faint.runner.forward(None)
    lost = []
    for i in range(2):
        feeds = {"x": faint.samples[i]["x"]}
        (ours,), (want,) = forward(feeds).values(), exact(feeds).values()
        lost.append(np.abs(ours.astype(np.float64) - want).mean())
    assert report.inside.comparison is not None
    assert report.final.comparison is not None
    found, final = (one.comparison.outputs[0].l1 for one in (report.inside, report.final))
    assert found.mean == pytest.approx(np.mean(lost), rel=1e-5)
    assert found.mean > 1 > final.mean
    assert "Kept within the target's integers" in report.notes[0]
    assert "it meets the goal so too" in report.notes[0]
    assert "misses the goal so" in note_inside(report.inside, meets=False)
    assert report.to_json()["within_integers"]["name"] == "within integers"


def test_nothing_is_named_where_operands_stay_float(faint: Prepared) -> None:
    ranges = integer_ranges(faint, uniform(faint.plan, "float32"))
    assert (ranges.found, ranges.possible, ranges.products, ranges.notes) == ((), (), 0, ())


def test_a_threshold_larger_by_the_factor_makes_the_bias_fit(faint: Prepared) -> None:
    factor = {one.node: one.factor for one in integer_ranges(faint).found}["product"]
    _, weights = calibrations(faint, "product")
    wider = {**faint.thresholds, weights: faint.thresholds[weights] * np.float32(1.01 * factor)}
    other = dataclasses.replace(faint)
    other.__dict__["thresholds"] = wider
    assert [one.node for one in integer_ranges(other).found] == ["faint"]


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Return three products over 4,000 features, by how their terms add up: all, by half, none."""
    g = Graph(seed=3)
    x = g.input("x", (1, 1, 4000))
    weight = np.ones((4000, 3), np.float32)
    weight[::2, 1] = -1.0  # magnitudes add up, the sum does not
    same = g.add("MatMul", x, g.constant(weight[:, :1], "same_w"), name="same")
    halves = g.add("MatMul", x, g.constant(weight[:, 1:2], "halves_w"), name="halves")
    weight[:, 2] = 1.0
    few = g.add("Mul", x, g.constant(np.eye(1, 4000, dtype=np.float32)), name="few")
    g.output(same, halves, g.add("MatMul", few, g.constant(weight[:, 2:], "few_w"), name="one"))
    return prepared(
        tmp_path_factory.mktemp("long"), g, [np.full((1, 1, 4000), v, np.float32) for v in (0.5, 1)]
    )


def test_sums_that_leave_on_the_samples_are_told_from_those_that_could(long: Prepared) -> None:
    ranges = integer_ranges(long, uniform(long.plan, "int16"))
    found = {one.node: one for one in ranges.found}
    full = 4000 * 32767 * 127 / 2**31
    assert {node: one.what for node, one in found.items()} == {"same": SUM, "halves": PARTS}
    assert found["same"].factor == pytest.approx(full, rel=1e-3)
    assert found["halves"].factor == pytest.approx(full, rel=1e-3)
    assert [one.node for one in ranges.possible] == ["one"]
    assert ranges.possible[0].factor >= full
    assert ranges.samples == 2
    assert found["same"].operands == "INT16 x INT8"


def test_int8_sums_of_4000_products_cannot_leave_int32(long: Prepared) -> None:
    before = long.runner.compilations.total
    ranges = integer_ranges(long, uniform(long.plan, "int8"))
    assert (ranges.found, ranges.possible, ranges.samples) == ((), (), 0)
    assert long.runner.compilations.total == before


def test_strictness_reaches_every_way_to_a_calibrated_network(
    long: Prepared, tmp_path: Path
) -> None:
    folder = tmp_path
    for i in range(2):
        (folder / "data").mkdir(exist_ok=True)
        np.save(folder / "data" / f"{i}.npy", long.samples[i]["x"])
    jptq.save_model(long.calibrated, folder / "calibrated.onnx")
    strict = from_calibrated(
        folder / "calibrated.onnx", folder / "data", march="nash-e", strict_integers=True
    )
    table = strict.table(uniform(strict.plan, "int16"))
    ours = strict.runner.forward(table)({"x": long.samples[1]["x"]})
    (same, *_), names = strict.plan.sums, [t.name for t in strict.calibrated.outputs]
    unit = float(table.scale[strict.plan.offsets[same.features]]) / 127
    assert ours[names[0]].item() == pytest.approx(2**31 * unit, rel=1e-5)
    assert integer_ranges(strict, uniform(strict.plan, "int16")).strict
    exact = long.runner.forward(long.table(uniform(long.plan, "int16")))
    assert exact({"x": long.samples[1]["x"]})[names[0]].item() == pytest.approx(4000, rel=1e-3)
    json.dumps(integer_ranges(strict).to_json())
