"""Place quantizers and find their thresholds.

Fits weights and biases first, as far as that helps (jptq fit). Writes calibrated_model.onnx, the
float network that it was made of (optimized_float_model.onnx) and the one for the vendor's tool to
calibrate (prepared_float_model.onnx) to --out (default: calibrated_<model>). The last is read back
and calibrated plainly: what differs is named.

Types follow --quant_config; everything is INT8 without one. The YAML of the compile tool also
names network, samples and target, and `debug_mode: dump_calibration_data` writes the samples.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from jptq.cli import compile_flags, inputs, machine, output, progress

if TYPE_CHECKING:
    from absl.flags import FlagValues

    from jptq.results import Recalibration
    from jptq.tuning import Prepared

FLAGS = (
    "model",
    "calibration_data",
    "march",
    "quant_config",
    "unmatched",
    "strict_integers",
    "reach",
    "fit",
    "input_shape",
    "input_value",
    "batch_size",
    "memory_limit",
    "device",
    "threads",
    "resume",
    "out",
    "json",
)
REQUIRED = ("model", "calibration_data")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Made:
    """What is written.

    Attributes:
      network: Calibrated.
      recalibration: What a plain calibration of the prepared network gave.
    """

    network: Prepared
    recalibration: Recalibration


def run(flags: FlagValues) -> int:
    """Calibrate, write all models, and say what was found."""
    out = output.folder(inputs.beside(flags, "calibrated"))
    made = calibrated(flags, out)
    from jptq import tuning
    from jptq.data.samples import write_samples
    from jptq.report.fitted import sentence
    from jptq.results import PREPARED_FILE
    from jptq.tuning import findings
    from jptq.tuning.reference import FLOAT_FILE

    found, again = made.network, made.recalibration
    with progress.bars() as shown:
        ranges = tuning.integer_ranges(found, progress=shown)
    compiling = compile_flags.compile_file(flags)
    if compiling is not None and compiling.dump_calibration_data:
        write_samples(out / "calibration_data", found.samples)
    notes = (*found.notes, *findings.first_sample(found))
    kinds = Counter(calibration.kind for calibration in found.plan.calibrations)
    types = Counter(found.configured.values())
    if flags.json:
        output.print_json(
            {
                "method": found.method,
                "samples": len(found.samples),
                "quantizers": dict(sorted(kinds.items())),
                "types": dict(sorted(types.items())),
                "integer_ranges": ranges.to_json(),
                "limits": [one.to_json() for one in found.limits],
                "outlying": [one.to_json() for one in found.outlying],
                "fit": None if found.fit is None else found.fit.to_json(),
                "recalibration": again.to_json(),
                "notes": list(notes),
                "out": str(out),
            }
        )
        return 0
    listed = ", ".join(f"{count} {name}" for name, count in sorted(types.items()))
    output.print_text(
        f"thresholds  {found.method} over {len(found.samples)} samples",
        f"quantizers  {kinds['feature']} on features, {kinds['weight']} on weights ({listed})",
        f"written to  {out}: calibrated_model.onnx, {FLOAT_FILE}, {PREPARED_FILE}",
    )
    if found.fit is not None:
        output.print_paragraph(sentence(found.fit))
    output.print_paragraph(again.sentence)
    for note in (*ranges.notes, *notes):
        output.print_paragraph(note)
    return 0


def calibrated(flags: FlagValues, out: Path) -> Made:
    """Start JAX, calibrate a float model as `FLAGS` say, and write all models."""
    shapes = inputs.shapes(flags.input_shape)
    values = inputs.values(flags.input_value)
    machine.settle(flags.device, flags.threads)
    from jptq import ir, tuning
    from jptq.api.run import WORK, shipped
    from jptq.tuning.reference import FLOAT_FILE

    journal = tuning.Journal(out / WORK, reuse=flags.resume)
    with progress.bars() as shown:
        found = tuning.prepare(
            Path(flags.model),
            flags.calibration_data,
            march=flags.march,
            quant_config=inputs.config(flags),
            input_shapes=shapes,
            input_values=values,
            strict_integers=flags.strict_integers,
            reach=flags.reach,
            fit=flags.fit,
            journal=journal,
            progress=shown,
            batching=inputs.batching(flags),
        )
        again = shipped(found, out, journal=journal, progress=shown)
    ir.save(found.floating, out / FLOAT_FILE)
    ir.save(found.calibrated, out / "calibrated_model.onnx")
    return Made(network=found, recalibration=again)
