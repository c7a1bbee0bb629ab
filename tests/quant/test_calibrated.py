from __future__ import annotations

import numpy as np
import pytest

from jptq.errors import ConfigError, UnknownNameError
from jptq.ir import load, save
from jptq.ir.model import Model
from jptq.quant.calibrated import (
    assignment_of,
    plan_of,
    thresholds_of,
    with_assignment,
    with_thresholds,
)
from jptq.quant.plan import Plan
from tests.graphs import Graph
from tests.quant.networks import TARGET, attention, branches, float_model, placed


def thresholds(plan: Plan) -> dict[str, np.ndarray]:
    """Weights have one threshold per channel, features one in all."""
    return {
        c.name: np.arange(1, (c.channels if c.constant else 1) + 1, dtype=np.float32)
        for c in plan.calibrations
    }


def calibrated(model: Model) -> Model:
    return with_thresholds(model, thresholds(plan_of(model, TARGET)))


def test_the_plan_lists_the_quantizers_in_graph_order() -> None:
    model = placed(branches())
    names = [node.name for node in model.nodes if node.is_calibration]
    assert [c.name for c in plan_of(model, TARGET).calibrations] == names


def test_a_node_behind_views_owns_the_quantizer_before_them() -> None:
    plan = plan_of(placed(branches()), TARGET)
    assert plan.by_node["pool"].inputs == {0: "residual:0_HzCalibration"}
    assert plan.by_node["resize"].inputs == {0: "residual:0_HzCalibration"}
    assert plan.by_node["gate"].inputs == {0: "residual:0_HzCalibration"}


def test_a_fused_operand_has_no_quantizer() -> None:
    plan = plan_of(placed(branches()), TARGET)
    assert plan.by_node["residual"].inputs == {1: "stem_relu:0_HzCalibration"}
    assert "stem_relu" not in plan.by_node


def test_a_shared_quantizer_accepts_what_all_its_readers_accept() -> None:
    plan = plan_of(placed(branches()), TARGET)
    # Resize takes int8 only and reads, through the pooling, what Sigmoid reads.
    assert plan.calibration("residual:0_HzCalibration").allowed == ("int8",)
    assert plan.calibration("concat:0_HzCalibration").allowed == ("int8", "int16")


def test_second_operands_of_products_are_int8_or_dual() -> None:
    plan = plan_of(placed(attention()), TARGET)
    name = plan.by_node["scores"].inputs[1]
    assert plan.calibration(name).allowed == ("int8",)
    assert plan.calibration(name).dual
    assert not plan.calibration(plan.by_node["scores"].inputs[0]).dual


def test_the_quantizer_of_a_graph_output_belongs_to_what_computed_it() -> None:
    plan = plan_of(placed(attention()), TARGET)
    assert plan.by_node["end"].output == "end:0_HzCalibration"
    assert plan.owners["end:0_HzCalibration"] == ("end",)


def test_weights_have_a_scale_per_output_channel() -> None:
    plan = plan_of(placed(branches()), TARGET)
    weight = plan.calibration(plan.by_node["head"].inputs[1])
    assert (weight.kind, weight.axis, weight.channels, weight.constant) == ("weight", 0, 4, True)


def test_thresholds_come_back_as_they_were_written() -> None:
    model = calibrated(placed(branches()))
    written = thresholds(plan_of(model, TARGET))
    assert any(values.size > 1 for values in written.values())
    for name, values in written.items():
        np.testing.assert_array_equal(thresholds_of(model)[name], values)


def test_scales_follow_the_type_while_thresholds_stay() -> None:
    model = calibrated(placed(attention()))
    name = "x_HzCalibration"
    for qtype, steps in (("int8", 127), ("int16", 32767)):
        attributes = with_assignment(model, {name: qtype}).by_name[name].attributes
        assert attributes["thresholds"] == (1.0,)
        assert attributes["scales"] == (float(np.float32(1) / np.float32(steps)),)
        assert attributes["zero_point"] == (0,)
    assert "scales" not in with_assignment(model, {name: "float32"}).by_name[name].attributes


def test_a_range_gets_a_shifted_zero() -> None:
    name = "x_HzCalibration"
    model = with_thresholds(
        placed(attention()), {name: np.array([-1.0, 3.0], np.float32)}, asymmetric={name}
    )
    attributes = model.by_name[name].attributes
    assert attributes["scales"] == pytest.approx((4 / 255,), rel=1e-6)
    assert attributes["zero_point"] == (127 - 191,)
    assert plan_of(model, TARGET).calibration(name).asymmetric
    back = with_thresholds(model, {name: np.array([2.0], np.float32)})
    assert not plan_of(back, TARGET).calibration(name).asymmetric


def test_a_feature_can_have_a_threshold_per_channel() -> None:
    name = "x_HzCalibration"
    model = with_thresholds(
        placed(branches()), {name: np.arange(1, 5, dtype=np.float32)}, axes={name: 1}
    )
    calibration = plan_of(model, TARGET).calibration(name)
    assert (calibration.axis, calibration.channels) == (1, 4)


def test_a_quantizer_that_is_switched_off_is_float() -> None:
    model = placed(attention())
    off = with_assignment(model, {"x_HzCalibration": "float32"})
    assert assignment_of(off)["x_HzCalibration"] == "float32"
    assert assignment_of(with_assignment(off, {"x_HzCalibration": "int16"})) == {
        **assignment_of(model),
        "x_HzCalibration": "int16",
    }


def test_a_saved_model_says_the_same(tmp_path) -> None:
    model = with_assignment(calibrated(placed(branches())), {"x_HzCalibration": "int16"})
    save(model, tmp_path / "calibrated.onnx")
    read = load(tmp_path / "calibrated.onnx")
    assert plan_of(read, TARGET) == plan_of(model, TARGET)
    assert assignment_of(read) == assignment_of(model)
    for name, values in thresholds_of(model).items():
        np.testing.assert_array_equal(thresholds_of(read)[name], values)


def test_a_single_threshold_leaves_room_for_one_per_channel_of_a_convolution() -> None:
    g = Graph()
    x = g.input("x", (1, 4, 8, 8))
    quantizer = {"thresholds": [2.0], "axis": 1, "qtype": "int8", "tensor_type": "feature"}
    y = g.add("HzCalibration", x, domain="horizon", name="q", **quantizer)
    g.output(g.conv(y, 4, 4))
    calibration = plan_of(float_model(g), TARGET).calibration("q")
    assert (calibration.axis, calibration.channels) == (1, 4)
    assert thresholds_of(float_model(g))["q"].shape == (1,)


@pytest.mark.parametrize("count", [0, 2, 5])
def test_a_wrong_number_of_thresholds_is_refused(count: int) -> None:
    with pytest.raises(ConfigError, match=f"{count} thresholds where 1"):
        with_thresholds(placed(attention()), {"x_HzCalibration": np.ones(count, np.float32)})


def test_a_name_that_is_no_quantizer_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="calibration 'y'"):
        with_assignment(placed(attention()), {"y": "int8"})
    with pytest.raises(UnknownNameError, match="qtype 'int7'"):
        with_assignment(placed(attention()), {"x_HzCalibration": "int7"})
