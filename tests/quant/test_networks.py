"""Placement on the real networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from jptq.ir import expand_units, load, optimize, to_bytes
from jptq.quant.assign import promote, uniform
from jptq.quant.calibrated import plan_of
from jptq.quant.config import load_config
from jptq.quant.emit import quant_config
from jptq.quant.placement import place
from jptq.quant.resolve import resolve
from tests.quant.networks import TARGET, floats_of

NAMES = ("ppocr_cls", "ppocr4_det", "yolov8n_face", "doc_orientation", "ppocr4_rec")


@pytest.mark.models
@pytest.mark.parametrize("name", NAMES)
def test_every_product_is_quantized_and_every_config_comes_back(
    models_folder: Path, name: str
) -> None:
    folder = models_folder / name
    model = load(folder / "model.onnx")
    shapes = {
        n: np.load(folder / "calibration_data" / n / "000.npy").shape for n in model.input_names
    }
    model = optimize(model, input_shapes=shapes)
    proto = onnx.load_from_string(to_bytes(expand_units(model)))
    plan = plan_of(place(model, TARGET, floats=floats_of(proto)), TARGET)
    for node in model.nodes:
        if node.op in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
            assert set(plan.by_node[node.name].inputs) >= {0, 1}, node.name
    assert 100 < len(plan.calibrations) < 300
    rng = np.random.default_rng(0)
    for share in (0.1, 0.5):
        raised = {s.node: "int16" for s in plan.slots if rng.random() < share}
        assignment = promote(uniform(plan, "int8"), plan, raised)
        content = quant_config(model, plan, TARGET, assignment)
        assert resolve(load_config(content), model, plan, TARGET) == assignment
