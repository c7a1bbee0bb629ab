"""Fit weights and biases to the samples, so that INT8 weights lose less.

Rounds each weight so that what its layer gives out changes least on the samples, and lets biases
take up mean errors; keeps what helps on samples that were held out, layer by layer and for the
network. Neither types nor latency change. Writes prepared_float_model.onnx, the network with what
was kept, which the vendor's tool calibrates to the same integers; calibrated_model.onnx; the float
network (optimized_float_model.onnx); and fit.json, to --out (default: fitted_<model>). jptq
calibrate does the same as its first step, and jptq tune where all-INT8 misses the goal.

Exit codes: 0 done, whatever was kept; 3 prepared_float_model.onnx, calibrated again, does not give
the same integers, scales and biases.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jptq.cli import calibrate, inputs, output
from jptq.errors import ConfigError

if TYPE_CHECKING:
    from absl.flags import FlagValues

FLAGS = (*calibrate.FLAGS[:-2], "top", "out", "json")
REQUIRED = ("model", "calibration_data")

DIFFERS = 3
"""Exit code: the written network does not give the same."""


def run(flags: FlagValues) -> int:
    """Fit, write, and print the table of layers."""
    if flags.fit == "off":
        raise ConfigError("--fit=off leaves nothing to do", where="jptq fit", hint="--fit=auto")
    out = output.folder(inputs.beside(flags, "fitted"))
    made = calibrate.calibrated(flags, out)
    from jptq import files
    from jptq.report import fitted
    from jptq.results import PREPARED_FILE
    from jptq.tuning.reference import FLOAT_FILE

    network, again = made.network, made.recalibration
    assert network.fit is not None
    content = {
        "schema": 1,
        "model": Path(flags.model).stem,
        "march": network.target.march,
        "calibration": network.method,
        "samples": len(network.samples),
        "fit": network.fit.to_json(),
        "recalibration": again.to_json(),
        "notes": list(network.notes),
    }
    files.write_json(out / "fit.json", content)
    code = 0 if again.holds else DIFFERS
    if flags.json:
        output.print_json(content)
        return code
    output.print_tables([fitted.layers(network.fit, flags.top)])
    output.print_paragraph(fitted.sentence(network.fit))
    output.print_paragraph(again.sentence)
    for note in network.notes:
        output.print_paragraph(note)
    written = ", ".join((PREPARED_FILE, "calibrated_model.onnx", FLOAT_FILE, "fit.json"))
    output.print_paragraph(f"Written to {out}: {written}")
    return code
