"""The folder of the demonstration network: model, calibration samples, evaluation set, scores."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
from onnx import numpy_helper

from jptq import files, ir
from jptq.engine import trace
from tools.zoo.demo import render

# 96 scenes are few: from series to series INT16 scores scatter by up to 0.6 %, more than INT16
# costs. Of the series 3 to 12, series 4 has the INT16 scores nearest to those over 960 scenes.
TRAINING, CALIBRATION, EVALUATION = 1, 2, 4
"""Seeds of the three series of scenes; they share none."""

CALIBRATION_SAMPLES = 32
EVALUATION_SAMPLES = 96


def with_weights(proto: onnx.ModelProto, weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """Return a copy of a model in which the named initializers have new values."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for tensor in copy.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    return copy


def write(folder: Path, proto: onnx.ModelProto) -> dict[str, float]:
    """Write everything but ``evaluate.py``, which lies in the folder already.

    Returns:
      The float scores, as stored in ``scores.json``.
    """
    files.write_bytes(folder / "model.onnx", proto.SerializeToString())
    for number in range(CALIBRATION_SAMPLES):
        image = render.render(CALIBRATION, number).image.transpose(2, 0, 1)
        path = folder / "calibration_data" / "image" / f"{number:03d}.npy"
        with files.atomic_path(path) as temporary:
            np.save(temporary, np.ascontiguousarray(image[None], np.float32) / 255)
    with files.atomic_path(folder / "evaluation.npz") as temporary:
        images, masks, labels = evaluation_set()
        np.savez_compressed(temporary, images=images, masks=masks, labels=labels)
    scores = float_scores(folder)
    rounded = {name: round(value, 6) for name, value in scores.items()}
    files.write_json(folder / "scores.json", {"float": rounded, "samples": EVALUATION_SAMPLES})
    return scores


def evaluation_set() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images ``uint8[n, 3, S, S]``, masks ``bool[n, M, S, S]`` and labels ``float32``.

    A row of the labels is image, class, left, top, right, bottom.
    """
    scenes = [render.render(EVALUATION, i) for i in range(EVALUATION_SAMPLES)]
    rows = [
        np.column_stack([np.full(len(scene.classes), i), scene.classes, scene.boxes])
        for i, scene in enumerate(scenes)
    ]
    images = np.stack([scene.image.transpose(2, 0, 1) for scene in scenes])
    masks = np.stack([scene.masks for scene in scenes])
    return images, masks, np.concatenate(rows).astype(np.float32)


def float_scores(folder: Path) -> dict[str, float]:
    """Return what the folder's own ``evaluate`` says of its model."""
    evaluator = load_evaluator(folder / "evaluate.py")
    shape = (evaluator.BATCH, 3, render.SIZE, render.SIZE)
    forward = trace(ir.load(folder / "model.onnx"), {"image": np.zeros(shape, np.float32)})
    scores: dict[str, float] = evaluator.evaluate(forward)
    return scores


def load_evaluator(path: Path) -> ModuleType:
    """Import a file by its path."""
    spec = importlib.util.spec_from_file_location("demo_evaluate", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
