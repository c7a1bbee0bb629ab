from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import onnx
import pytest

from jptq.engine import Batching, Runner
from jptq.errors import ConfigError, ModelError, UnsupportedOpError
from jptq.ir import HORIZON, Model, Node, Tensor, to_bytes
from jptq.quant.assign import table, uniform
from jptq.quant.calibrated import (
    assignment_of,
    plan_of,
    thresholds_of,
    with_assignment,
    with_thresholds,
)
from jptq.quant.export import to_qdq
from tests.agreements import Network, max_thresholds, teacher_forced
from tests.graphs import Graph, feeds_for
from tests.oracles import relative_error, run_onnx
from tests.quant.networks import TARGET, attention, branches, float_model, placed

FLOAT = np.dtype(np.float32)


def _single(build: Callable[[Graph, str], str], shape: tuple[int, ...]) -> Callable[[], Graph]:
    def network() -> Graph:
        g = Graph()
        g.output(build(g, g.input("x", shape)))
        return g

    return network


def _up(g: Graph, x: str) -> str:
    return g.add("ConvTranspose", x, g.random(4, 3, 2, 2), g.random(3), strides=[2, 2], name="up")


NETWORKS: dict[str, Callable[[], Graph]] = {
    "convolution": _single(lambda g, x: g.conv(x, 4, 6), (1, 4, 8, 8)),
    "depthwise": _single(lambda g, x: g.conv(x, 6, 6, group=6), (1, 6, 8, 8)),
    "transposed convolution": _single(_up, (1, 4, 5, 5)),
    "product": _single(lambda g, x: g.add("MatMul", x, g.random(7, 5)), (1, 3, 7)),
    "transposed Gemm": _single(
        lambda g, x: g.add("Gemm", x, g.random(5, 7), g.random(5), transB=1), (2, 7)
    ),
    "attention": attention,
    "branches": branches,
}


def calibrated(graph: Graph, *, samples: int = 2) -> Network:
    """Return a small network with the thresholds of random samples."""
    model = placed(graph)
    feeds = [feeds_for(graph.proto(), seed=seed) for seed in range(samples)]
    thresholds = max_thresholds(model, plan_of(model, TARGET), feeds)
    return network(with_thresholds(model, thresholds), feeds, float_model(graph))


def network(model: Model, feeds: list[dict[str, np.ndarray]], plain: Model) -> Network:
    plan = plan_of(model, TARGET)
    return Network(
        name="small",
        model=plain,
        calibrated=model,
        plan=plan,
        thresholds=thresholds_of(model),
        samples=feeds,
        runner=Runner(model, feeds[0], plan=plan, batching=Batching(samples=1)),
    )


def outputs(net: Network, model: Model) -> tuple[np.ndarray, np.ndarray]:
    """Return the first output of our forward and of the export, for the first sample."""
    settings = table(net.plan, thresholds_of(model), assignment_of(model))
    feeds = {name: array[None] for name, array in net.samples[0].items()}
    mine = net.runner.run(net.runner.pack(settings), feeds)
    theirs = run_onnx(to_bytes(to_qdq(model)), net.samples[0])
    name = model.output_names[0]
    return np.asarray(mine[name])[0], theirs[name]


def numpy_grid(x: np.ndarray, scale: np.ndarray, zero: float, qtype: str) -> np.ndarray:
    """Return the integers of ``x``: ONNX's definition of QuantizeLinear, in NumPy."""
    limits = np.iinfo(qtype)
    return np.clip(np.rint(x / scale) + np.float32(zero), limits.min, limits.max).astype(qtype)


@pytest.mark.slow
@pytest.mark.parametrize("qtype", ["int8", "int16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_unit_agrees_with_the_export_to_one_step(name: str, qtype: str) -> None:
    figure = teacher_forced(calibrated(NETWORKS[name]()), qtype)
    assert figure.values["quantizers"] > 0
    assert figure.holds, str(figure)


@pytest.mark.parametrize("qtype", ["int8", "int16", "float16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_forward_agrees_with_the_export_end_to_end(name: str, qtype: str) -> None:
    net = calibrated(NETWORKS[name]())
    model = with_assignment(net.calibrated, uniform(net.plan, qtype))
    mine, theirs = outputs(net, model)
    assert relative_error(mine, theirs) < 1e-5


def test_float32_quantizers_vanish_one_by_one() -> None:
    net = calibrated(attention())
    names = [c.name for c in net.plan.calibrations]
    for name in names:
        model = with_assignment(net.calibrated, {name: "float32"})
        assert name not in {n.name for n in to_qdq(model).nodes if n.op == "DequantizeLinear"}
        mine, theirs = outputs(net, model)
        assert relative_error(mine, theirs) < 1e-5
    plain = to_qdq(with_assignment(net.calibrated, dict.fromkeys(names, "float32")))
    assert not {"QuantizeLinear", "DequantizeLinear"} & {node.op for node in plain.nodes}
    want = run_onnx(to_bytes(net.model), net.samples[0])
    np.testing.assert_equal(run_onnx(to_bytes(plain), net.samples[0]), want)


def test_a_quantizer_that_is_switched_off_vanishes() -> None:
    net = calibrated(NETWORKS["convolution"]())
    nodes = tuple(
        dataclasses.replace(node, attributes={**node.attributes, "switch": "OFF"})
        if node.is_calibration
        else node
        for node in net.calibrated.nodes
    )
    exported = to_qdq(dataclasses.replace(net.calibrated, nodes=nodes))
    assert [node.op for node in exported.nodes] == ["Conv"]


def test_weights_are_stored_as_the_integers_of_the_definition() -> None:
    net = calibrated(NETWORKS["transposed convolution"]())
    exported = to_qdq(net.calibrated)
    (weight,) = (c for c in net.plan.calibrations if c.kind == "weight")
    node = exported.by_name[weight.name]
    integers, scale, zero = (exported.initializers[name] for name in node.inputs)
    assert node.op == "DequantizeLinear"
    assert node.attributes["axis"] == 1
    want = net.thresholds[weight.name] / np.float32(127)
    np.testing.assert_array_equal(scale, want)
    np.testing.assert_array_equal(zero, np.zeros(3, np.int8))
    expected = numpy_grid(
        net.calibrated.initializers[weight.tensor], want.reshape(1, 3, 1, 1), 0, "int8"
    )
    np.testing.assert_array_equal(integers, expected)
    assert integers.dtype == np.int8
    assert weight.tensor not in exported.initializers


def test_our_packed_weights_are_those_of_the_export() -> None:
    net = calibrated(NETWORKS["convolution"]())
    exported = to_qdq(net.calibrated)
    (weight,) = (c for c in net.plan.calibrations if c.kind == "weight")
    integers, scale, _ = (
        exported.initializers[name] for name in exported.by_name[weight.name].inputs
    )
    program = net.runner.program
    (key,) = (k for k, slot in program.slots.items() if slot.tensor == weight.tensor)
    want = integers.astype(np.float32) * scale.reshape(-1, 1, 1, 1)
    pack = program.slots[key].pack
    found = net.runner.pack(net.table("int8")).weights[key]
    np.testing.assert_array_equal(np.asarray(found), want if pack is None else pack(want))


@pytest.mark.parametrize("qtype", ["int8", "int16"])
def test_features_quantized_per_channel_and_lopsided_agree(qtype: str) -> None:
    net = calibrated(NETWORKS["convolution"]())
    (feature,) = (c for c in net.plan.calibrations if c.kind == "feature")
    x = net.samples[0]["x"]
    per_channel = np.abs(x).max((0, 2, 3))
    cases = {
        "per channel": with_thresholds(
            net.calibrated, {feature.name: per_channel}, axes={feature.name: 1}
        ),
        "lopsided": with_thresholds(
            net.calibrated, {feature.name: np.float32([-0.7, 2.1])}, asymmetric=[feature.name]
        ),
    }
    for model in cases.values():
        model = with_assignment(model, {feature.name: qtype})
        other = network(model, list(net.samples), net.model)
        mine, theirs = outputs(other, model)
        assert relative_error(mine, theirs) < 2e-6


def test_a_lopsided_quantizer_has_a_zero_point() -> None:
    net = calibrated(NETWORKS["convolution"]())
    (feature,) = (c for c in net.plan.calibrations if c.kind == "feature")
    model = with_thresholds(
        net.calibrated, {feature.name: np.float32([-0.5, 2.05])}, asymmetric=[feature.name]
    )
    exported = to_qdq(model)
    node = exported.by_name[feature.name]
    assert exported.initializers[node.inputs[1]] == np.float32(2.55) / np.float32(255)
    assert exported.initializers[node.inputs[2]] == -78
    assert exported.initializers[node.inputs[2]].dtype == np.int8


@pytest.mark.parametrize("qtype", ["int8", "int16"])
def test_one_quantizer_equals_onnxruntime_bit_for_bit(qtype: str) -> None:
    rng = np.random.default_rng(0)
    threshold = np.float32(1.3)
    scale = threshold / np.float32(np.iinfo(qtype).max)
    ties = (np.arange(-200, 200) + np.float32(0.5)) * scale
    x = np.concatenate([rng.normal(size=4000), ties, [2, -2, 0, -0.0]]).astype(np.float32)
    model = _alone(x.shape, thresholds=(float(threshold),), qtype=qtype)
    plan = plan_of(model, TARGET)
    runner = Runner(model, {"x": x}, plan=plan, batching=Batching(samples=1))
    settings = table(plan, thresholds_of(model), {c.name: qtype for c in plan.calibrations})
    found = np.asarray(runner.run(runner.pack(settings), {"x": x[None]})["y"])[0]
    (theirs,) = run_onnx(to_bytes(to_qdq(model)), {"x": x}).values()
    np.testing.assert_array_equal(found, theirs)
    want = numpy_grid(x, scale, 0, qtype).astype(np.float32) * scale
    np.testing.assert_array_equal(found, want)


def _alone(shape: tuple[int, ...], **attributes: object) -> Model:
    """Return a graph that is one quantizer between its input and its output."""
    return Model(
        inputs=(Tensor(name="x", dtype=FLOAT, shape=shape),),
        outputs=(Tensor(name="y", dtype=FLOAT, shape=shape),),
        nodes=(
            Node(
                name="only",
                op="HzCalibration",
                domain=HORIZON,
                inputs=("x",),
                outputs=("y",),
                attributes={"tensor_type": "feature", "switch": "ON", **attributes},  # type: ignore[dict-item]
            ),
        ),
        opsets={"": 17, HORIZON: 1},
    )


def test_an_output_behind_an_idle_quantizer_keeps_its_name() -> None:
    exported = to_qdq(_alone((2,), qtype="float32"))
    assert [node.op for node in exported.nodes] == ["Identity"]
    x = np.float32([1, 2])
    np.testing.assert_array_equal(run_onnx(to_bytes(exported), {"x": x})["y"], x)


def test_a_shared_quantizer_stays_one() -> None:
    g = Graph()
    x = g.input("x", (1, 4, 8, 8))
    shared = g.add("Sigmoid", x)
    g.output(g.conv(shared, 4, 4, name="left"), g.conv(shared, 4, 4, name="right"))
    net = calibrated(g)
    exported = to_qdq(net.calibrated)
    left, right = (exported.by_name[name].inputs[0] for name in ("left", "right"))
    assert left == right
    guard = exported.producers[left]
    assert exported.producers[guard.inputs[0]].op == "DequantizeLinear"
    features = [c for c in net.plan.calibrations if c.kind == "feature"]
    assert [node.op for node in exported.nodes].count("QuantizeLinear") == len(features)


@pytest.mark.parametrize(
    ("given", "assigned", "opset", "ir_version"),
    [
        (11, "int8", 13, 8),
        (17, "int8", 17, 8),
        (20, "int8", 20, 9),
        (22, "int8", 22, 10),
        (11, "int16", 21, 10),
        (17, "float16", 17, 8),
        (17, "float32", 17, 8),
    ],
)
def test_the_opset_is_as_low_as_the_content_allows(
    given: int, assigned: str, opset: int, ir_version: int
) -> None:
    g = Graph(given)
    g.output(g.add("MaxPool", g.conv(g.input("x", (1, 4, 8, 8)), 4, 4), kernel_shape=[2, 2]))
    model = calibrated(g).calibrated
    exported = to_qdq(with_assignment(model, dict.fromkeys(assignment_of(model), assigned)))
    assert dict(exported.opsets) == {"": opset}
    assert onnx.load_from_string(to_bytes(exported)).ir_version == ir_version
    assert (exported.input_names, exported.output_names) == (model.input_names, model.output_names)


def test_an_operator_that_the_opset_of_pairs_has_renamed_is_exported() -> None:
    # An Upsample of opset 9 is a Resize in opset 10, without the attributes of later ones.
    g = Graph(9)
    scales = g.constant(np.float32([1, 1, 2, 2]))
    g.output(g.add("Upsample", g.conv(g.input("x", (1, 2, 3, 3)), 2, 2), scales, mode="nearest"))
    net = calibrated(g)
    assert dict(to_qdq(with_assignment(net.calibrated, uniform(net.plan, "float32"))).opsets) == {
        "": 9
    }
    features = {c.name: "int8" for c in net.plan.calibrations if not c.constant}
    model = with_assignment(net.calibrated, {**uniform(net.plan, "float32"), **features})
    assert dict(to_qdq(model).opsets) == {"": 10}
    mine, theirs = outputs(net, model)
    assert relative_error(mine, theirs) < 1e-5


def test_an_operator_without_quantizers_keeps_its_opset() -> None:
    g = Graph(9)
    g.output(g.add("Relu", g.input("x", (1, 4))))
    assert dict(to_qdq(float_model(g)).opsets) == {"": 9}


def test_int8_is_unsigned_where_onnxruntime_forgets_the_sign() -> None:
    """From opset 21 on; the grid is the same."""
    for opset, zero, kind in ((20, 0, np.int8), (21, 128, np.uint8)):
        g = Graph(opset)
        g.output(g.conv(g.input("x", (1, 4, 8, 8)), 4, 4))
        net = calibrated(g)
        exported = to_qdq(net.calibrated)
        (feature,) = (c for c in net.plan.calibrations if c.kind == "feature")
        point = exported.initializers[exported.by_name[feature.name].inputs[2]]
        assert (point, point.dtype) == (zero, kind)
        mine, theirs = outputs(net, net.calibrated)
        assert relative_error(mine, theirs) < 1e-5


def test_vendor_units_are_written_out() -> None:
    g = Graph(11)
    x = g.input("x", (1, 4, 6, 6))
    unit = g.add("HzSwish", g.conv(x, 4, 4), domain=HORIZON, name="unit")
    g.output(g.conv(unit, 4, 2, name="end"))
    model = float_model(g)
    exported = to_qdq(model)
    assert exported.by_name["unit"].op == "Mul"
    assert not any(node.domain for node in exported.nodes)


def test_vendor_operators_without_an_equal_are_named() -> None:
    g = Graph()
    g.input("x", (1, 4, 6, 6))
    g.output(g.add("HzSpaceToDepth", "x", domain=HORIZON, blocksize=2, name="deeper"))
    with pytest.raises(UnsupportedOpError, match="1 vendor operators") as caught:
        to_qdq(float_model(g))
    assert "'deeper' (HzSpaceToDepth)" in caught.value.where


def test_a_quantizer_without_thresholds_is_refused() -> None:
    with pytest.raises(ConfigError, match="no thresholds"):
        to_qdq(placed(NETWORKS["convolution"]()))


def test_what_the_opset_cannot_express_is_refused() -> None:
    g = Graph(18)
    x = g.input("x", (1, 4, 6, 6))
    ones = g.constant(np.ones(2, np.float32))
    g.output(g.add("GroupNormalization", x, ones, ones, num_groups=2, name="grouped"))
    model = calibrated(g).calibrated
    to_qdq(model)
    int16 = with_assignment(model, dict.fromkeys(assignment_of(model), "int16"))
    with pytest.raises(ModelError, match="cannot be raised") as caught:
        to_qdq(int16)
    assert "grouped" in caught.value.where
