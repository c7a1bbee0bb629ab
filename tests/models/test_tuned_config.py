"""The quant_config that tuning writes asks for nothing that is not applied, on real networks."""

from __future__ import annotations

from pathlib import Path

import pytest

import jptq
from jptq import ir
from jptq.api import timing
from jptq.quant.calibrated import assignment_of, plan_of
from jptq.quant.config import load_config
from jptq.quant.explain import REFUSED
from jptq.quant.resolve import explain, resolve
from jptq.targets import load_target
from jptq.tuning import Options

pytestmark = [pytest.mark.slow, pytest.mark.models]

IN_DEPTH = "ppocr_cls"
OTHERS = ("doc_orientation", "ppocr4_det", "ppocr4_rec", "yolov8n_face")
BASE = {"model_config": {"activation": {"calibration_type": "max"}}}
CHEAP = Options(samples=1, min_cosine=0.999, leftovers="int8", time_limit_s=30)
COMPENSATED = Options(samples=1, min_cosine=0.9999, leftovers="ec")


def tuned(folder: Path, out: Path, options: Options) -> Path:
    """Tune cheaply: two samples, no evaluator, few runs."""
    jptq.tune(
        folder / "model.onnx",
        folder / "calibration_data",
        out=out,
        quant_config=BASE,
        options=options,
        calibration_samples=2,
    )
    return out


def refused(folder: Path, out: Path) -> list[str]:
    """Return what a tuned configuration asks for in vain, of the float and the calibrated model."""
    target = load_target("nash-e")
    config = load_config(out / "quant_config.json")
    calibrated = ir.load(out / "calibrated_model.onnx")
    held = assignment_of(calibrated)
    shapes = {t.name: t.shape for t in calibrated.inputs}
    placed = timing.placed(ir.load(folder / "model.onnx"), config, target, input_shapes=shapes)
    found = []
    for model in (placed, calibrated):
        plan = plan_of(model, target)
        assert resolve(config, model, plan, target, report=False) == held
        outcomes = explain(config, model, plan, target)
        assert {one.calibration for one in outcomes} == set(held)
        found += [f"{one.node} {one.slot}: {one.why}" for one in outcomes if one.status == REFUSED]
    return found


@pytest.mark.parametrize(
    "name", [IN_DEPTH, *(pytest.param(name, marks=pytest.mark.deep) for name in OTHERS)]
)
def test_nothing_of_a_tuned_configuration_is_refused(
    models_folder: Path, tmp_path: Path, name: str
) -> None:
    folder = models_folder / name
    out = tuned(folder, tmp_path, CHEAP)
    assert "int16" in (out / "quant_config.json").read_text()
    assert not refused(folder, out)


def test_nothing_of_a_tuned_configuration_with_ec_is_refused(
    models_folder: Path, tmp_path: Path
) -> None:
    folder = models_folder / "ppocr_cls"
    out = tuned(folder, tmp_path, COMPENSATED)
    assert load_config(out / "quant_config.json").compensations()
    assert not refused(folder, out)
