from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from onnx import TensorProto

from jptq import engine, ir
from jptq.hmct.calibration import CalibrationNode
from jptq.hmct.engines import Engines, engines
from jptq.hmct.executor import ORTExecutor
from jptq.hmct.ir import OnnxModel, load_model
from jptq.hmct.quantizer.debugger import get_sensitivity_of_nodes, loading
from jptq.quant.calibrated import plan_of
from tests.graphs import Graph
from tests.hmct import debugged, networks
from tests.hmct.networks import STEM
from tests.quant.networks import TARGET

SAMPLE = networks.feeds()[0]


@pytest.fixture
def fresh() -> None:
    """Forget what other tests have compiled."""
    engines.cache_clear()


def calibrations(model: OnnxModel) -> list[CalibrationNode]:
    found = model.graph.type2nodes["HzCalibration"]
    return [node for node in found if isinstance(node, CalibrationNode)]


@pytest.mark.slow
@pytest.mark.seed("F8")
def test_a_script_that_edits_evaluates_and_ranks_compiles_every_program_once(
    fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lowered = []
    lower = engine.runner.lower

    def counted(*args: object, **options: object) -> object:
        lowered.append(args)
        return lower(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(engine.runner, "lower", counted)
    model, samples = load_model(ir.to_bytes(debugged.calibrated())), debugged.samples()
    weight = model.graph.node_mappings["Conv_559"].inputs[1].src_op
    assert isinstance(weight, CalibrationNode)
    scores, outputs = [], []
    for qtype in ("int8", "int16"):
        for node in calibrations(model):
            node.qtype = qtype
        weight.thresholds = [value * 1.1 for value in weight.thresholds or ()]
        executor = ORTExecutor(model).create_session()
        outputs.append(executor.forward(samples[0])[debugged.DET + ":0"])
        # Another first sample: its shapes count, its values do not.
        scores.append(get_sensitivity_of_nodes(model, "mse", samples[::-1]))
    assert executor.runner is not None
    assert len(lowered) == 1
    assert set(executor.runner.compilations.counts.values()) == {1}
    assert loading.loaded(model, samples).runner.compilations is executor.runner.compilations
    assert float(scores[1]["Conv_559"]["mse"]) < float(scores[0]["Conv_559"]["mse"]) / 100
    assert not np.array_equal(*outputs)


@pytest.mark.slow
def test_a_weight_that_a_script_replaces_is_what_the_debugger_ranks(fresh: None) -> None:
    edited = load_model(ir.to_bytes(debugged.calibrated()))
    samples = debugged.samples(1)
    ORTExecutor(debugged.calibrated()).inference(samples[0])
    kernel = edited.graph.node_mappings["Conv_707"].inputs[1].src_op
    assert kernel is not None
    assert kernel.inputs[0].value is not None
    kernel.inputs[0].value = kernel.inputs[0].value * 2
    found = get_sensitivity_of_nodes(edited, "mse", samples)
    programs = loading.loaded(edited, samples).runner.compilations.counts
    assert set(programs.values()) == {1}
    engines.cache_clear()
    assert get_sensitivity_of_nodes(edited.proto, "mse", samples) == found
    engines.cache_clear()
    assert get_sensitivity_of_nodes(debugged.calibrated(), "mse", samples) != found


def test_a_constant_that_is_part_of_the_program_makes_another_one() -> None:
    kept, model = Engines(), networks.floating()
    first = kept.runner(model, SAMPLE, plan=None)
    (scales,) = [n.inputs[2] for n in model.nodes if n.name == "Resize_3"]
    changed = dict(model.initializers) | {scales: np.asarray([1, 1, 1, 1], np.float32)}
    second = kept.runner(dataclasses.replace(model, initializers=changed), SAMPLE, plan=None)
    assert second.compilations is not first.compilations
    assert second.program.shapes["GridSample_6:0"] == first.program.shapes["GridSample_6:0"]
    assert second.program.shapes["Resize_3:0"] != first.program.shapes["Resize_3:0"]


def test_values_of_an_input_that_shapes_depend_on_are_told_apart() -> None:
    g = Graph()
    x, shape = g.input("x", (1, 6)), g.input("shape", (2,), TensorProto.INT64)
    g.output(g.add("Reshape", x, shape, name="view"))
    kept, model = Engines(), ir.from_bytes(g.proto().SerializeToString())
    x_value = np.zeros((1, 6), np.float32)
    wide, tall = ({"x": x_value, "shape": np.asarray(s, np.int64)} for s in ([2, 3], [3, 2]))
    first = kept.runner(model, wide, plan=None)
    assert kept.runner(model, tall, plan=None) is not first
    assert kept.runner(model, {"x": x_value + 1, "shape": wide["shape"]}, plan=None) is first


def test_quantizers_with_room_for_other_scales_make_another_program() -> None:
    kept, model = Engines(), networks.small()
    plan = plan_of(model, TARGET)
    sample = {"x": SAMPLE["x"]}
    first = kept.runner(model, sample, plan=plan)
    single = dataclasses.replace(
        plan,
        calibrations=tuple(
            dataclasses.replace(c, axis=None, channels=1) if c.name == "x_HzCalibration" else c
            for c in plan.calibrations
        ),
    )
    assert not first.serves(single)
    assert kept.runner(model, sample, plan=single).compilations is not first.compilations
    assert kept.runner(model, sample, plan=plan) is first


def test_few_networks_are_kept() -> None:
    kept = Engines()
    for size in range(1, 8):
        model = ir.rename(networks.floating(), {STEM: f"stem_{size}"})
        kept.runner(model, SAMPLE, plan=None)
    assert len(kept) == 4
    assert engines() is engines()
