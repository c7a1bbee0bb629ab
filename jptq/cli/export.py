"""Write a calibrated model as standard ONNX with QuantizeLinear and DequantizeLinear.

Writes qdq_model.onnx, which onnxruntime runs as it is, without options, and
optimized_float_model.onnx, the float network that was quantized, to --out (default:
exported_<model>); the latter not if weights were fitted and --reference is not at hand. With
--check, and --calibration_data, qdq_model.onnx is run in onnxruntime where that is installed, in a
default session and without graph optimisations, and compared with the quantized forward over a few
samples.

Exit codes: 0 done; 3 the file was checked and does not agree.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jptq.cli import inputs, machine, output, progress
from jptq.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from absl.flags import FlagValues

    from jptq.results import Agreement

FLAGS = (
    "model",
    "check",
    "calibration_data",
    "reference",
    "march",
    "batch_size",
    "memory_limit",
    "device",
    "threads",
    "out",
)
REQUIRED = ("model",)

DIFFERS = 3
"""Exit code: the file does not agree."""


def run(flags: FlagValues) -> int:
    """Convert, write, and check if that is asked for."""
    if flags.check and flags.calibration_data is None:
        raise ConfigError("--check needs --calibration_data", hint="the samples to run")
    out = output.folder(inputs.beside(flags, "exported"))
    from jptq import ir
    from jptq.numerics.qtypes import FLOAT16
    from jptq.quant.calibrated import assignment_of
    from jptq.quant.export import to_qdq, without_quantizers
    from jptq.tuning.reference import FLOAT_FILE, float_values

    model = ir.load(flags.model)
    if not any(node.is_calibration for node in model.nodes):
        raise ModelError(
            "the model has no quantizers", where=flags.model, hint="jptq calibrate makes them"
        )
    exported = to_qdq(model)
    written, missing = ["qdq_model.onnx"], ""
    try:
        floats = float_values(model, Path(flags.model), flags.reference)
    except ModelError as error:
        if flags.reference is not None or flags.check:
            raise
        missing = f"{FLOAT_FILE} is not written: {error.what}, {error.why}. Try {error.hint}."
    else:
        floating = without_quantizers(model, floats=floats)
        ir.save(ir.for_vendor(floating), out / FLOAT_FILE)
        written.append(FLOAT_FILE)
    ir.save(exported, out / "qdq_model.onnx")
    pairs = sum(node.op == "DequantizeLinear" for node in exported.nodes)
    halves = sum(name == FLOAT16.name for name in assignment_of(model).values())
    output.print_text(
        f"{pairs} quantizers written as QuantizeLinear and DequantizeLinear"
        + (f", {halves} as casts to float16" if halves else "")
        + f", opset {exported.opset('')}",
        f"written to {out}: {', '.join(written)}",
        "onnxruntime runs qdq_model.onnx as it is, without options",
    )
    if missing:
        output.print_paragraph(missing)
    if not flags.check:
        return 0
    found = _checked(flags)
    from jptq.report import agreement

    output.print_text("")
    output.print_tables([agreement(found)] if found.outputs else [])
    output.print_paragraph(found.sentence)
    return DIFFERS if found.agrees is False else 0


def _checked(flags: FlagValues) -> Agreement:
    """Run the file beside the forward."""
    machine.settle(flags.device, flags.threads)
    from jptq.api import steps
    from jptq.api.agreement import check_export

    with progress.bars() as shown:
        prepared = steps.calibrate(
            flags.model,
            flags.calibration_data,
            march=flags.march,
            reference=flags.reference,
            batching=inputs.batching(flags),
            progress=shown,
        )
        return check_export(prepared, progress=shown)
