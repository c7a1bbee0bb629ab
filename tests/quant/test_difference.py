from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from jptq.ir import from_bytes
from jptq.ir.model import Model
from jptq.quant.assign import uniform
from jptq.quant.calibrated import assignment_of, with_assignment, with_thresholds
from jptq.quant.difference import ABSENT, differences, states_of
from jptq.quant.export import to_qdq
from tests.quant.planned import network


def calibrated(name: str = "branches", **types: str) -> Model:
    """Return a network with thresholds; some quantizers have other types than int8."""
    model, plan = network(name)
    rng = np.random.default_rng(0)
    thresholds = {
        c.name: rng.uniform(0.5, 3.0, c.channels if c.kind == "weight" else 1).astype(np.float32)
        for c in plan.calibrations
    }
    model = with_thresholds(model, thresholds)
    return with_assignment(model, {**uniform(plan, "int8"), **types})


def test_a_model_does_not_differ_from_itself_or_its_export() -> None:
    model = calibrated(**{"x_HzCalibration": "int16"})
    assert not differences(states_of(model), states_of(model))
    assert not differences(states_of(model), states_of(to_qdq(model)))


def test_a_range_comes_back_from_the_export() -> None:
    model = calibrated()
    limits = np.array([-0.3, 2.1], np.float32)
    model = with_thresholds(model, {"x_HzCalibration": limits}, asymmetric=["x_HzCalibration"])
    state = states_of(to_qdq(model))["x"]
    # The zero point is rounded to the grid: the range moves by less than a step.
    step = (limits[1] - limits[0]) / 255
    np.testing.assert_allclose(state.thresholds, limits, atol=step)


def test_a_quantizer_that_is_off_is_float32_on_both_sides() -> None:
    model = calibrated(**{"x_HzCalibration": "float32"})
    assert not differences(states_of(model), states_of(to_qdq(model)))
    (found,) = differences(states_of(calibrated()), states_of(model))
    assert (found.tensor, found.first.qtype, found.second.qtype) == ("x", "int8", "float32")


def test_float16_is_the_same_in_the_export() -> None:
    model = calibrated(**{"x_HzCalibration": "float16"})
    assert not differences(states_of(model), states_of(to_qdq(model)))
    (found,) = differences(states_of(calibrated()), states_of(to_qdq(model)))
    assert (found.tensor, found.second.qtype, found.factor) == ("x", "float16", None)


def test_types_and_thresholds_that_differ_are_named() -> None:
    first = calibrated()
    second = with_thresholds(
        calibrated(**{"x_HzCalibration": "int16"}),
        {"constant_0_HzCalibration": 2 * states_of(first)["constant_0"].thresholds},
    )
    for other in (second, to_qdq(second)):
        found = {one.tensor: one for one in differences(states_of(first), states_of(other))}
        assert set(found) == {"x", "constant_0"}
        assert (found["x"].first.qtype, found["x"].second.qtype) == ("int8", "int16")
        assert found["x"].factor is None
        assert found["constant_0"].factor == pytest.approx(2.0, rel=1e-5)
        assert found["constant_0"].to_json()["factor"] == found["constant_0"].factor


def test_an_assignment_takes_the_place_of_the_models_own() -> None:
    model, plan = network("branches")
    wanted = {**uniform(plan, "int8"), "x_HzCalibration": "int16"}
    (found,) = differences(states_of(calibrated()), states_of(model, wanted))
    assert (found.tensor, found.factor) == ("x", None)  # without thresholds there is no factor


def test_per_tensor_and_per_channel_thresholds_are_compared() -> None:
    model, _ = network("branches")
    weight = "constant_0_HzCalibration"
    one = with_thresholds(model, {weight: np.ones(4, np.float32)})
    other = with_thresholds(model, {weight: np.array([1, 1, 3, 1], np.float32)})
    (found,) = differences(states_of(one), states_of(other))
    assert found.factor == pytest.approx(3.0)


def test_a_foreign_qdq_model_is_read_by_its_tensors() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="a"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], name="b"),
        helper.make_node("DequantizeLinear", ["w", "s"], ["v"], name="c"),
        helper.make_node("Add", ["y", "v"], ["out"]),
    ]
    constants = [
        numpy_helper.from_array(np.float32(0.5), "s"),
        numpy_helper.from_array(np.uint8(128), "z"),
        numpy_helper.from_array(np.array([1, -2], np.int8), "w"),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in ("x", "out")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], constants)
    opset = [helper.make_opsetid("", 21)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    states = states_of(from_bytes(model.SerializeToString()))
    assert (states["x"].qtype, states["w"].qtype) == ("int8", "int8")
    np.testing.assert_array_equal(states["x"].thresholds, [63.5])  # 128 is the middle of uint8
    np.testing.assert_array_equal(states["w"].thresholds, [63.5])


def asymmetric(**types: str) -> Model:
    """Return a calibrated network whose input has the range [-1, 3]."""
    model = with_thresholds(
        calibrated(),
        {"x_HzCalibration": np.array([-1, 3], np.float32)},
        asymmetric=["x_HzCalibration"],
    )
    return with_assignment(model, {**assignment_of(model), **types})


@pytest.mark.parametrize("qtype", ["int8", "int16", "float16"])
def test_a_range_is_compared_as_the_grid_that_it_makes(qtype: str) -> None:
    model = asymmetric(**{"x_HzCalibration": qtype})
    assert differences(states_of(model), states_of(to_qdq(model))) == ()


def test_a_range_differs_from_a_threshold_by_its_width() -> None:
    first = with_thresholds(calibrated(), {"x_HzCalibration": np.array([2], np.float32)})
    (found,) = differences(states_of(first), states_of(asymmetric()))
    assert (found.first.asymmetric, found.second.asymmetric) == (False, True)
    # The 64 steps below 0 and 191 above it that hold [-1, 3] in 255.
    np.testing.assert_allclose(found.second.thresholds, np.array([-64, 191]) * 4 / 255, rtol=1e-6)
    assert found.factor == pytest.approx(1.0, rel=1e-4)  # as wide, but elsewhere
    # Beyond int8 the device has no ranges: the larger end counts.
    wide = asymmetric(**{"x_HzCalibration": "int16"})
    (found,) = differences(states_of(first), states_of(wide))
    assert (found.second.asymmetric, found.factor) == (False, pytest.approx(1.5))


def test_what_one_graph_does_not_have_is_absent_and_counts_where_it_is_quantized() -> None:
    plain, _ = network("branches")
    split, _ = network("compensated")
    found = {one.tensor: one for one in differences(states_of(plain), states_of(split))}
    low = [name for name in found if "split_low" in name]
    assert low
    assert all(found[name].first.qtype == ABSENT for name in low)
    # The other way round nothing is missing: a split only adds.
    assert {one.second.qtype for one in found.values()} <= {"int8"}
