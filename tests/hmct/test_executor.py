from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from jptq import ir
from jptq.errors import DataError, ShapeError, UnknownNameError
from jptq.hmct.calibration import CalibrationNode
from jptq.hmct.executor import ORTExecutor
from jptq.hmct.ir import OnnxModel, load_model
from jptq.quant.export import to_qdq
from tests.graphs import Graph
from tests.hmct import networks
from tests.hmct.networks import STEM
from tests.oracles import run_onnx

SAMPLE = networks.feeds()[0]


def opened(model: OnnxModel) -> ORTExecutor:
    return ORTExecutor(model).create_session()


def calibrations(model: OnnxModel) -> list[CalibrationNode]:
    found = model.graph.type2nodes["HzCalibration"]
    return [node for node in found if isinstance(node, CalibrationNode)]


@pytest.fixture(scope="module")
def first() -> ORTExecutor:
    """Return an executor of the INT8 network that has run: all is compiled."""
    executor = opened(load_model(networks.calibrated()))
    executor.forward(SAMPLE)
    return executor


def test_a_float_model_gives_what_onnxruntime_gives() -> None:
    model = networks.floating()
    outputs = ORTExecutor(model).inference(SAMPLE)
    expected = run_onnx(ir.to_proto(model), SAMPLE)
    assert list(outputs) == list(model.output_names)
    for name, value in expected.items():
        np.testing.assert_allclose(outputs[name], value, atol=2e-5)


@pytest.mark.seed("F8")
def test_after_an_edit_of_types_nothing_is_compiled(first: ORTExecutor) -> None:
    assert first.runner is not None
    compiled = first.runner.compilations.total
    before = first.forward(SAMPLE)
    model = load_model(networks.calibrated())
    for qtype in ("int16", "float32", "int8"):
        for node in calibrations(model):
            node.qtype = qtype
        executor = opened(model)
        after = executor.forward(SAMPLE)
        assert executor.runner is first.runner
        same = np.array_equal(after["Conv_8:0"], before["Conv_8:0"])
        assert same == (qtype == "int8")
    assert first.runner.compilations.total == compiled


@pytest.mark.seed("F3")
def test_every_type_is_simulated_as_an_exported_model_computes_it(first: ORTExecutor) -> None:
    model = load_model(networks.calibrated())
    for node, qtype in zip(
        calibrations(model), ["int8", "int16", "float16", "float32"] * 4, strict=False
    ):
        node.qtype = qtype
    found = ORTExecutor(model).inference(SAMPLE)
    expected = run_onnx(ir.to_proto(to_qdq(model.freeze())), SAMPLE)
    for name, value in expected.items():
        # Values within a rounding error of a tie may fall to the other side.
        assert np.mean(np.abs(found[name] - value) > 1e-5) < 0.02
    assert len({node.qtype for node in calibrations(model)}) == 4


@pytest.mark.seed("F3")
def test_float16_rounds_a_tensor_to_half_precision() -> None:
    g = Graph()
    g.output(g.add("HzCalibration", g.input("x", (64,)), name="c", domain="horizon"))
    model = load_model(g.proto())
    (node,) = calibrations(model)
    node.qtype = "float16"
    x = np.random.default_rng(0).standard_normal(64).astype(np.float32) * 7e4
    (found,) = ORTExecutor(model).inference(x).values()
    expected = np.clip(x, -65504, 65504).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.seed("F8")
def test_after_an_edit_of_thresholds_switches_and_weights_nothing_is_compiled(
    first: ORTExecutor,
) -> None:
    assert first.runner is not None
    compiled = first.runner.compilations.total
    model = load_model(networks.calibrated())
    nodes = model.graph.node_mappings
    last = opened(model).forward(SAMPLE)["Conv_8:0"]
    stem, weight = nodes[f"{STEM}_HzCalibration"], nodes["Conv_0"].inputs[1].src_op
    assert isinstance(stem, CalibrationNode)
    assert isinstance(weight, CalibrationNode)

    def changed() -> bool:
        nonlocal last
        assert first.runner is not None
        before, executor = last, opened(model)
        last = executor.forward(SAMPLE)["Conv_8:0"]
        assert executor.runner is not None
        assert executor.runner.compilations is first.runner.compilations
        return not np.array_equal(before, last)

    stem.thresholds = [1.0]
    assert changed()
    weight.thresholds = [0.5, 0.5, 0.5, 0.5]
    assert changed()
    weight.switch = "OFF"
    assert changed()
    kernel = weight.inputs[0].value
    assert kernel is not None
    weight.inputs[0].value = kernel * 2
    assert changed()
    assert first.runner.compilations.total == compiled


def test_a_weight_that_is_replaced_is_used(first: ORTExecutor) -> None:
    model = load_model(networks.floating())
    ORTExecutor(model).inference(SAMPLE)
    weight = model.graph.node_mappings["Conv_8"].inputs[1]
    assert weight.value is not None
    weight.value = weight.value * 3
    outputs = ORTExecutor(model).inference(SAMPLE)
    np.testing.assert_allclose(
        outputs["Conv_8:0"], run_onnx(model.proto, SAMPLE)["Conv_8:0"], rtol=1e-4, atol=1e-4
    )


def test_a_constant_that_shapes_depend_on_makes_another_program(first: ORTExecutor) -> None:
    model = load_model(networks.floating())
    before = ORTExecutor(model).inference(SAMPLE)
    scales = model.graph.node_mappings["Resize_3"].inputs[2]
    scales.value = np.asarray([1, 1, 1, 1], np.float32)
    after = ORTExecutor(model).inference(SAMPLE)
    assert not np.allclose(before["Conv_8:0"], after["Conv_8:0"])
    np.testing.assert_allclose(
        after["Conv_8:0"], run_onnx(model.proto, SAMPLE)["Conv_8:0"], atol=2e-5
    )


def test_a_session_keeps_the_model_as_it_was(first: ORTExecutor) -> None:
    model = load_model(networks.calibrated())
    executor = opened(model)
    before = executor.forward(SAMPLE)["Conv_8:0"]
    for node in calibrations(model):
        node.qtype = "int16"
    np.testing.assert_array_equal(executor.forward(SAMPLE)["Conv_8:0"], before)
    assert not np.array_equal(executor.create_session().forward(SAMPLE)["Conv_8:0"], before)


def test_several_samples_run_at_once(first: ORTExecutor) -> None:
    samples = networks.feeds(3)
    stacked = {name: np.concatenate([feeds[name] for feeds in samples]) for name in SAMPLE}
    outputs = first.forward(stacked)["Conv_8:0"]
    assert outputs.shape == (3, 4, 8, 8)
    for index, feeds in enumerate(samples):
        np.testing.assert_allclose(
            outputs[index : index + 1], first.forward(feeds)["Conv_8:0"], atol=1e-5
        )


def test_inputs_come_by_name_or_in_order(first: ORTExecutor) -> None:
    by_name = first.forward(SAMPLE)
    in_order = first.forward(list(SAMPLE.values()), ["MatMul_12:0"])
    assert list(in_order) == ["MatMul_12:0"]
    np.testing.assert_array_equal(in_order["MatMul_12:0"], by_name["MatMul_12:0"])


def test_an_executor_tells_inputs_and_outputs(first: ORTExecutor) -> None:
    assert [(arg.name, arg.shape) for arg in first.get_inputs()] == [
        ("x", (1, 4, 8, 8)),
        ("grid", (1, 8, 8, 2)),
    ]
    assert [arg.name for arg in first.get_outputs()] == ["Conv_8:0", "MatMul_12:0"]
    assert first.to("cpu") is first


def test_wrong_use_is_refused_with_what_to_do(first: ORTExecutor) -> None:
    with pytest.raises(DataError, match=r"call create_session\(\) first"):
        ORTExecutor(networks.floating()).forward(SAMPLE)
    with pytest.raises(DataError, match="input 'grid' is missing"):
        first.forward({"x": SAMPLE["x"]})
    with pytest.raises(UnknownNameError, match="unknown input 'y'"):
        first.forward({**SAMPLE, "y": SAMPLE["x"]})
    with pytest.raises(DataError, match="1 arrays where the model takes 2 inputs"):
        first.forward(SAMPLE["x"])
    with pytest.raises(UnknownNameError, match="unknown output 'Conv_0'"):
        first.forward(SAMPLE, ["Conv_0"])
    with pytest.raises(ShapeError, match="float64"):
        first.forward({**SAMPLE, "x": SAMPLE["x"].astype(np.float64)})
    with pytest.raises(UnknownNameError, match="unknown device"):
        first.to("bpu")


def test_outputs_have_the_dtypes_that_the_model_declares() -> None:
    g = Graph()
    x = g.input("x", (1, 8))
    g.output(g.add("Relu", x, name="relu"))
    g.output(g.add("ArgMax", x, axis=1, name="best"), dtype=TensorProto.INT64)
    g.output(g.add("Cast", x, to=TensorProto.DOUBLE, name="double"), dtype=TensorProto.DOUBLE)
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 8)).astype(np.float32) * 9}
    found = ORTExecutor(g.proto()).inference(feeds)
    expected = run_onnx(g.proto(), feeds)
    assert {name: value.dtype for name, value in found.items()} == {
        name: value.dtype for name, value in expected.items()
    }
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def test_a_model_of_open_shapes_takes_those_of_its_feeds() -> None:
    g = Graph()
    g.output(g.add("Relu", g.conv(g.input("x", ("n", 3, "h", "w")), 3, 4, name="conv")))
    executor = ORTExecutor(g.proto()).create_session()
    for size in (4, 6, 4):
        x = np.ones((2, 3, size, size), np.float32)
        found, expected = executor.forward(x), run_onnx(g.proto(), {"x": x})
        np.testing.assert_allclose(found["Relu_1:0"], expected["Relu_1:0"], atol=1e-5)
