"""Answers that do not come from the code under test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx.reference import ReferenceEvaluator

_ERRORS_ONLY = 3

FAST_TO_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Options of ``jax.jit`` for programs of the tests' own: nobody runs them for long."""


def run_onnx(
    model: onnx.ModelProto | bytes | Path,
    feeds: Mapping[str, np.ndarray],
    *,
    optimized: bool = False,
) -> dict[str, np.ndarray]:
    """Run a model by onnxruntime.

    Args:
      model: A model, its bytes, or its file (which may have external data).
      feeds: Arrays by input name.
      optimized: As its default session does; otherwise graph optimisations are off.

    Returns:
      Arrays by output name.
    """
    options = ort.SessionOptions()
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = 1
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
    session = ort.InferenceSession(
        source if isinstance(source, bytes) else str(source),
        options,
        providers=["CPUExecutionProvider"],
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def run_reference(
    model: onnx.ModelProto | bytes, feeds: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Run a model by ONNX's own evaluator in NumPy: slow, every operator and type."""
    proto = onnx.load_model_from_string(model) if isinstance(model, bytes) else model
    names = [output.name for output in proto.graph.output]
    return dict(zip(names, ReferenceEvaluator(proto).run(names, dict(feeds)), strict=True))


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference as a share of the largest expected magnitude."""
    if actual.shape != expected.shape:
        raise AssertionError(f"shapes differ: {actual.shape} and {expected.shape}")
    difference = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
    largest = float(np.max(np.abs(expected), initial=0.0))
    return float(np.max(difference, initial=0.0)) / (largest or 1.0)
