"""What-if questions to a calibrated network, from its file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jptq import ir
from jptq.engine import Batching
from jptq.quant.attributes import with_sound_quantizers
from jptq.quant.calibrated import assignment_of, plan_of, thresholds_of
from jptq.targets import load_target
from jptq.tuning.changes import Changer, Setting, Value
from jptq.tuning.evaluator import Evaluator, Forward
from jptq.tuning.prepare import Progress, quiet
from jptq.tuning.reopen import from_calibrated
from jptq.tuning.source import is_calibrated
from jptq.tuning.what_if import WhatIf


def check(
    calibrated_model: Path | str, requests: Mapping[str, Value], *, march: str = "nash-e"
) -> None:
    """Refuse requests that mean nothing to a network, before anything is run.

    Args:
      calibrated_model: Its file.
      requests: As `what_if` takes them.
      march: Target.

    Raises:
      JptqError: What the first question would raise.
    """
    model = ir.load(calibrated_model)
    if not is_calibrated(model):
        return  # taking it up says so
    model = with_sound_quantizers(model)
    plan = plan_of(model, load_target(march))
    held = Setting(assignment=assignment_of(model), thresholds=thresholds_of(model))
    Changer(model, plan, march)(held, requests)


def what_if(
    calibrated_model: Path | str,
    calibration_data: Path | str,
    *,
    march: str = "nash-e",
    evaluator: str | Callable[[Forward], Any] | None = None,
    batching: Batching | None = None,
    measured_latency: Path | str | None = None,
    strict_integers: bool = False,
    reference: Path | str | None = None,
    progress: Progress = quiet,
) -> WhatIf:
    """Return a calibrated network that tells what changed types or thresholds do.

    Args:
      calibrated_model: ``calibrated_model.onnx`` of ours or of the vendor.
      calibration_data: Folder of samples; all are used.
      march: Target: decides which requests are applied.
      evaluator: ``path.py[:function]`` or a function ``evaluate(forward)``; higher is better.
      batching: Bounds the samples of a program run and the memory that states are kept in.
      measured_latency: Per-node times of the user.
      strict_integers: Biases and sums are kept within the target's integers.
      reference: Its float network, where its weights were fitted; ``optimized_float_model.onnx``
        beside it if None.
      progress: ``progress(step, done, total)``.

    Returns:
      ``ask({"Conv_12": "int16"})`` runs only what depends on the change.

    Raises:
      JptqError: Bad input, with what to do.

    Example::

        ask = jptq.what_if("calibrated_model.onnx", "calibration_data")
        print(ask({"Conv_12": "int16", "Mul_943.input0": "int16"}))
        print(ask({"Conv_3.threshold": 4.2}, accumulate=True))
    """
    times = None if measured_latency is None else Path(measured_latency)
    scorer = Evaluator.load(evaluator) if isinstance(evaluator, str) else None
    if evaluator is not None and not isinstance(evaluator, str):
        scorer = Evaluator.of(evaluator)
    prepared = from_calibrated(
        Path(calibrated_model),
        calibration_data,
        march=march,
        batching=batching,
        measured_latency=times,
        strict_integers=strict_integers,
        reference=reference,
    )
    return WhatIf(prepared, scorer, progress=progress)
