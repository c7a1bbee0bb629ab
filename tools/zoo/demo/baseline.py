"""Print what one precision for the whole network costs, by onnxruntime's own quantizer.

    python -m tools.zoo.demo.baseline [--folder=configs/demo]

Independent of jptq: ``onnxruntime.quantization.quantize_static`` with symmetric per-tensor
activations over the range of the calibration samples and symmetric per-channel weights.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from tools.zoo.folder import load_evaluator

_JOIN = "/detect/Concat"  # of pixels and probabilities
_SETTINGS = {
    "INT8": (QuantType.QInt8, QuantType.QInt8, []),
    f"INT8, {_JOIN} in float": (QuantType.QInt8, QuantType.QInt8, [_JOIN]),
    "INT16 activations, INT8 weights": (QuantType.QInt16, QuantType.QInt8, []),
    "INT16": (QuantType.QInt16, QuantType.QInt16, []),
}


class _Samples(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, folder: Path) -> None:
        self._feeds: Iterator[dict[str, np.ndarray]] = (
            {"image": np.load(path)} for path in sorted(folder.glob("*.npy"))
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("configs/demo"))
    folder = parser.parse_args().folder
    evaluate = load_evaluator(folder / "evaluate.py").evaluate
    floats = evaluate(forward(folder / "model.onnx"))
    print("float".ljust(32), "  ".join(f"{k} {v:.4f}" for k, v in floats.items()))
    with tempfile.TemporaryDirectory() as work:
        prepared, quantized = Path(work) / "prepared.onnx", Path(work) / "quantized.onnx"
        quant_pre_process(folder / "model.onnx", prepared, skip_symbolic_shape=True)
        for name, (activation, weight, excluded) in _SETTINGS.items():
            quantize_static(
                prepared,
                quantized,
                _Samples(folder / "calibration_data" / "image"),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=activation,
                weight_type=weight,
                calibrate_method=CalibrationMethod.MinMax,
                nodes_to_exclude=excluded,
                extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
            )
            scores = evaluate(forward(quantized))
            shown = (f"{k} {v:.4f} ({v / floats[k]:.1%})" for k, v in scores.items())
            print(name.ljust(32), "  ".join(shown), flush=True)


def forward(path: Path) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """Return a function that runs a model file in onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, feeds), strict=True))


if __name__ == "__main__":
    main()
