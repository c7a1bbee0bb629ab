"""Quantizers as files hold them: ours, the vendor's, and damaged ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from jptq import ir
from jptq.engine import Runner
from jptq.errors import ModelError, ShapeError
from jptq.ir.model import Model, Node
from jptq.quant.assign import table
from jptq.quant.attributes import attributes_of, with_sound_quantizers
from jptq.quant.calibrated import assignment_of, plan_of, thresholds_of, with_assignment
from jptq.quant.export import to_qdq
from tests.graphs import Graph
from tests.oracles import relative_error, run_onnx
from tests.quant.networks import TARGET, float_model

LARGEST = float(np.finfo(np.float32).max)


def node(**attributes: Any) -> Node:
    return Node(name="q", op="HzCalibration", inputs=("x",), outputs=("y",), attributes=attributes)


def network(feature: Mapping[str, Any], weight: Mapping[str, Any] | None = None) -> Model:
    """Return a convolution of four channels whose operands have such quantizers."""
    g = Graph()
    x = g.input("x", (1, 4, 5, 5))
    kernel = g.constant(np.ones((3, 4, 1, 1), np.float32), name="kernel")
    own = {"thresholds": [1.0] * 3, "axis": 0, "tensor_type": "weight", **(weight or {})}
    operands = (
        g.add("HzCalibration", source, domain="horizon", name=name, **attributes)
        for source, name, attributes in ((x, "feature", feature), (kernel, "weight", own))
    )
    g.output(g.add("Conv", *operands))
    return float_model(g)


@pytest.mark.parametrize(
    ("given", "held"),
    [
        ((0.0,), (1.0,)),
        ((-3.0,), (1.0,)),
        ((float("inf"),), (LARGEST,)),
        ((0.5, 0.0, 2.0), (0.5, 1.0, 2.0)),
    ],
)
def test_thresholds_that_make_no_grid_are_replaced_with_a_word(
    given: tuple[float, ...], held: tuple[float, ...], caplog: pytest.LogCaptureFixture
) -> None:
    found = attributes_of(node(thresholds=given, tensor_type="feature"))
    assert found.thresholds is not None
    assert tuple(found.thresholds.tolist()) == held
    sound = with_sound_quantizers(network({"thresholds": list(given)}))
    assert sound.by_name["feature"].attributes["thresholds"] == held
    assert "feature: 1 of" in caplog.text


@pytest.mark.parametrize(
    "damaged",
    [
        {"thresholds": "x"},
        {"thresholds": (float("nan"),)},
        {"thresholds": (1.0,), "axis": "a"},
        {"tensor_type": "weigth"},
        {"switch": "off"},
        {"thresholds": (1.0, 2.0, 3.0), "asymmetric": 1},
        {"thresholds": (2.0, 1.0), "asymmetric": 1},
    ],
    ids=str,
)
def test_what_is_damaged_is_refused_with_the_quantizer(damaged: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="a quantizer is damaged") as caught:
        attributes_of(node(**damaged))
    assert caught.value.where == "q"


@pytest.mark.parametrize("weight", [{"axis": 9}, {"axis": -5}, {"thresholds": [1.0] * 4}], ids=str)
def test_channels_that_a_weight_does_not_have_are_refused(weight: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="a quantizer is damaged") as caught:
        plan_of(network({"thresholds": [1.0]}, weight), TARGET)
    assert caught.value.where == "weight"
    assert "(3, 4, 1, 1)" in caught.value.why


@pytest.mark.parametrize("feature", [{"axis": 9}, {"axis": 2}], ids=str)
def test_channels_that_a_feature_does_not_have_are_refused(feature: dict[str, Any]) -> None:
    model = network({"thresholds": [1.0, 2.0, 3.0, 4.0], **feature})
    with pytest.raises(ShapeError, match="4 channels on axis") as caught:
        Runner(model, {"x": np.zeros((1, 4, 5, 5), np.float32)}, plan=plan_of(model, TARGET))
    assert caught.value.where == "feature"


def test_the_channel_axis_is_one_where_the_file_names_none() -> None:
    calibration = plan_of(network({"thresholds": [1.0, 2.0, 3.0, 4.0]}), TARGET).calibrations[0]
    assert (calibration.axis, calibration.channels) == (1, 4)


@pytest.mark.parametrize("ends", [(-2.0, 3.0), (0.0, 3.0), (-2.0, 0.0)])
def test_a_range_of_the_vendor_is_no_pair_of_channels(ends: tuple[float, float]) -> None:
    model = network({"thresholds": list(ends), "axis": 1, "tensor_type": "feature"})
    plan = plan_of(model, TARGET)
    assert plan.calibration("feature").asymmetric
    sample = {"x": np.random.default_rng(0).uniform(*ends, (1, 4, 5, 5)).astype(np.float32)}
    runner = Runner(model, sample, plan=plan)
    (found,) = runner.forward(table(plan, thresholds_of(model), assignment_of(model)))(
        sample
    ).values()
    # A range of 5 in 255 steps, four channels of weight one.
    (exact,) = runner.forward(None)(sample).values()
    assert 0 < np.abs(found - exact).max() <= 4 * 0.51 * (ends[1] - ends[0]) / 255 + 1e-5
    for one in (model, with_sound_quantizers(model)):
        (exported,) = run_onnx(ir.to_proto(to_qdq(one)), sample).values()
        assert relative_error(found, exported) < 1e-5
    raised = with_assignment(model, {"feature": "int16"}).by_name["feature"].attributes
    assert raised["scales"] == pytest.approx((max(map(abs, ends)) / 32767,))


def test_two_channels_stay_two_channels() -> None:
    assert not attributes_of(node(thresholds=(1.0, 2.0), tensor_type="feature")).asymmetric
    assert not attributes_of(node(thresholds=(-1.0, 2.0), tensor_type="weight")).asymmetric


def test_a_weight_of_a_transposed_convolution_is_a_weight() -> None:
    assert attributes_of(node(tensor_type="convt_weight")).kind == "weight"


def test_a_sound_model_is_left_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    model = network({"thresholds": [1.0]})
    assert with_sound_quantizers(model).nodes == model.nodes
    assert not caplog.records
