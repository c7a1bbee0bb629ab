"""The folder of a network: model, calibration samples, evaluation set, evaluator, scores."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx

from jptq import files, ir
from jptq.engine import trace

NETWORKS = Path(__file__).parent / "networks"
"""The networks that are for tests and benchmarks; ``configs/demo`` ships with the package."""

EVALUATOR = "evaluate.py"


def write(
    folder: Path,
    proto: onnx.ModelProto,
    samples: Iterable[Mapping[str, np.ndarray]],
    evaluation: Mapping[str, np.ndarray],
) -> dict[str, float]:
    """Write everything but the evaluator, which lies in the folder already.

    Args:
      folder: Of the network.
      proto: The model.
      samples: Feeds for calibration, ``{input: array}``.
      evaluation: What the evaluator reads; the first array has one row per sample.

    Returns:
      The float scores, as stored in ``scores.json``.
    """
    files.write_bytes(folder / "model.onnx", proto.SerializeToString())
    for number, feeds in enumerate(samples):
        for name, value in feeds.items():
            path = folder / "calibration_data" / name / f"{number:03d}.npy"
            with files.atomic_path(path) as temporary:
                np.save(temporary, np.ascontiguousarray(value))
    with files.atomic_path(folder / "evaluation.npz") as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **evaluation)
    scores = float_scores(folder)
    rounded = {name: round(value, 6) for name, value in scores.items()}
    count = len(next(iter(evaluation.values())))
    files.write_json(folder / "scores.json", {"float": rounded, "samples": count})
    return scores


def take_evaluator(name: str, folder: Path) -> None:
    """Copy the evaluator of one of `NETWORKS` to where its network is trained anew."""
    source, target = NETWORKS / name / EVALUATOR, folder / EVALUATOR
    folder.mkdir(parents=True, exist_ok=True)
    if source.resolve() != target.resolve():
        shutil.copyfile(source, target)


def float_scores(folder: Path) -> dict[str, float]:
    """Return what the folder's own ``evaluate`` says of its model."""
    evaluator = load_evaluator(folder / EVALUATOR)
    example = {
        path.name: np.repeat(np.load(path / "000.npy"), evaluator.BATCH, axis=0)
        for path in sorted((folder / "calibration_data").iterdir())
    }
    forward = trace(ir.load(folder / "model.onnx"), example)
    scores: dict[str, float] = evaluator.evaluate(forward)
    return scores


def load_evaluator(path: Path) -> ModuleType:
    """Import a file by its path."""
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_evaluate", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
