"""Networks in files with calibration data, and a score that onnxruntime defines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from jptq.tuning import Evaluator
from jptq.user_code import UserFunction
from tests.graphs import Graph
from tests.oracles import run_onnx

CONFIG = {"model_config": {"activation": {"calibration_type": "max"}}}

CALIBRATION = 5
"""Samples of a network. Evaluators feed as many at a time: one program serves both."""


def classifier() -> onnx.ModelProto:
    """Classify images; one channel of one layer is an outlier that eats its INT8 grid."""
    g = Graph(seed=3)
    x = g.add("Relu", g.conv(g.input("x", (1, 3, 8, 8)), 3, 8, name="stem"))
    loud = np.ones((8, 1, 1), np.float32)
    loud[2] = 300.0
    x = g.add("Mul", x, g.constant(loud), name="loud")
    x = g.add("Relu", g.conv(x, 8, 8, name="outlier"))
    weight = next(n for n in g.nodes if n.name == "outlier").input[1]
    g.constants[weight][:, 2] /= np.float32(300.0)
    x = g.add("Relu", g.conv(x, 8, 8, name="body"))
    flat = g.add("Flatten", g.add("GlobalAveragePool", x))
    g.output(g.add("Gemm", flat, g.random(4, 8), transB=1, name="head"))
    return g.proto()


def segmenter() -> onnx.ModelProto:
    """Name the class of every pixel: the only output is an integer."""
    g = Graph(seed=4)
    x = g.add("Relu", g.conv(g.input("x", (1, 3, 8, 8)), 3, 6, name="stem"))
    x = g.conv(x, 6, 3, 1, name="head")
    g.output(g.add("ArgMax", x, axis=1, keepdims=0), dtype=onnx.TensorProto.INT64)
    return g.proto()


def images(count: int, seed: int) -> list[np.ndarray]:
    """Return random images."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((1, 3, 8, 8)).astype(np.float32) for _ in range(count)]


def save(model: onnx.ModelProto, folder: Path) -> None:
    """Write ``model.onnx`` and ``data/x/*.npy``."""
    onnx.save(model, folder / "model.onnx")
    (folder / "data" / "x").mkdir(parents=True)
    for i, image in enumerate(images(CALIBRATION, seed=0)):
        np.save(folder / "data" / "x" / f"{i}.npy", image)


def evaluator(*, digest: str = "") -> Evaluator:
    """Score how near the classifier's answers are to onnxruntime's on images of its own."""
    model, held_out = classifier(), images(3 * CALIBRATION, seed=1)
    reference = np.concatenate([next(iter(run_onnx(model, {"x": x}).values())) for x in held_out])

    def evaluate(forward: object) -> float:
        starts = range(0, len(held_out), CALIBRATION)
        batches = [{"x": np.concatenate(held_out[i : i + CALIBRATION])} for i in starts]
        parts = [next(iter(forward(batch).values())) for batch in batches]  # type: ignore[operator]
        found = np.concatenate(parts)
        error = np.mean((found - reference) ** 2) / np.mean(reference**2)
        return float(1.0 - np.sqrt(error))

    return Evaluator(UserFunction(call=evaluate, where="test", digest=digest))
