"""Write a calibrated model as standard ONNX with QuantizeLinear and DequantizeLinear.

Writes qdq_model.onnx, which any ONNX runtime reads, and optimized_float_model.onnx, the same
network without quantizers, to --out (default: exported_<model>).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jptq.cli import inputs, output
from jptq.errors import ModelError

if TYPE_CHECKING:
    from absl.flags import FlagValues

FLAGS = ("model", "out")
REQUIRED = ("model",)


def run(flags: FlagValues) -> int:
    """Convert and write."""
    out = output.folder(inputs.beside(flags, "exported"))
    from jptq import ir
    from jptq.numerics.qtypes import FLOAT16
    from jptq.quant.calibrated import assignment_of
    from jptq.quant.export import to_qdq, without_quantizers

    model = ir.load(flags.model)
    if not any(node.is_calibration for node in model.nodes):
        raise ModelError(
            "the model has no quantizers", where=flags.model, hint="jptq calibrate makes them"
        )
    exported = to_qdq(model)
    ir.save(without_quantizers(model), out / "optimized_float_model.onnx")
    ir.save(exported, out / "qdq_model.onnx")
    pairs = sum(node.op == "DequantizeLinear" for node in exported.nodes)
    halves = sum(name == FLOAT16.name for name in assignment_of(model).values())
    output.print_text(
        f"{pairs} quantizers written as QuantizeLinear and DequantizeLinear"
        + (f", {halves} as casts to float16" if halves else ""),
        f"written to {out}: qdq_model.onnx, optimized_float_model.onnx",
    )
    return 0
