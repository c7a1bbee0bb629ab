"""The shipped demonstration network, run by onnxruntime: nothing of jptq judges it."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest

FOLDER = Path(__file__).parents[2] / "configs" / "demo"

Forward = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return onnx.load(FOLDER / "model.onnx")


@pytest.fixture(scope="module")
def evaluator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_evaluate", FOLDER / "evaluate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def forward() -> Forward:
    session = onnxruntime.InferenceSession(
        FOLDER / "model.onnx", providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, feeds), strict=True))


@pytest.fixture(scope="module")
def samples() -> list[np.ndarray]:
    paths = sorted((FOLDER / "calibration_data" / "image").glob("*.npy"))
    return [np.load(path, allow_pickle=False) for path in paths]


def test_the_float_scores_are_the_stored_ones(evaluator: ModuleType, forward: Forward) -> None:
    stored = json.loads((FOLDER / "scores.json").read_text())["float"]
    assert evaluator.evaluate(forward) == pytest.approx(stored, abs=1e-3)


def test_the_model_is_valid_and_smaller_than_a_megabyte(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    assert (FOLDER / "model.onnx").stat().st_size < 1_000_000


def test_the_folder_is_small() -> None:
    files = [path for path in FOLDER.rglob("*") if path.suffix in {".onnx", ".npy", ".npz"}]
    assert sum(path.stat().st_size for path in files) < 3_000_000


@pytest.mark.parametrize(
    ("part", "operators"),
    [
        ("squeeze and excitation", {"GlobalAveragePool", "HardSigmoid", "Mul"}),
        ("attention", {"MatMul", "Softmax"}),
        ("pyramid", {"Resize", "Concat"}),
        ("activations", {"HardSwish", "Relu", "Sigmoid", "Exp"}),
    ],
)
def test_it_has_the_operators_of_the_networks_it_stands_for(
    model: onnx.ModelProto, part: str, operators: set[str]
) -> None:
    assert operators <= {node.op_type for node in model.graph.node}, part


def test_it_has_depthwise_and_pointwise_convolutions(model: onnx.ModelProto) -> None:
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    kinds = set()
    for node in model.graph.node:
        if node.op_type == "Conv":
            channels, per_group, *kernel = shapes[node.input[1]]
            group = next(a.i for a in node.attribute if a.name == "group")
            if group == channels and per_group == 1:
                kinds.add("depthwise")
            elif kernel == [1, 1]:
                kinds.add("pointwise")
    assert kinds == {"depthwise", "pointwise"}


def test_there_are_32_samples_of_the_inputs_shape_and_range(samples: list[np.ndarray]) -> None:
    assert len(samples) == 32
    for sample in samples:
        assert sample.shape == (1, 3, 64, 64)
        assert sample.dtype == np.float32
        assert sample.min() >= 0
        assert sample.max() <= 1


def test_a_batch_gives_what_its_samples_give(forward: Forward, samples: list[np.ndarray]) -> None:
    together = forward({"image": np.concatenate(samples[:4])})
    for i, sample in enumerate(samples[:4]):
        alone = forward({"image": sample})
        for name, value in alone.items():
            np.testing.assert_allclose(together[name][i], value[0], rtol=1e-4, atol=1e-4)


def test_boxes_are_pixels_and_scores_probabilities(
    forward: Forward, samples: list[np.ndarray]
) -> None:
    outputs = forward({"image": np.concatenate(samples)})
    boxes, scores = np.split(outputs["detections"], [4], axis=1)
    assert scores.min() >= 0
    assert scores.max() <= 1
    sure = scores.max(1) > 0.5
    assert sure.any()
    centres = boxes[:, :2].transpose(0, 2, 1)[sure]
    assert (centres > 0).all()
    assert (centres < 64).all()
    assert centres.max() > 32


def test_a_perfect_network_scores_one(evaluator: ModuleType) -> None:
    data = np.load(FOLDER / "evaluation.npz", allow_pickle=False)
    served = 0

    def perfect(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal served
        count = len(feeds["image"])
        detections = np.zeros((count, 7, 16), np.float32)
        for i in range(count):
            for k, row in enumerate(data["labels"][data["labels"][:, 0] == served + i]):
                low, high = row[2:4], row[4:6]
                detections[i, :2, k], detections[i, 2:4, k] = (low + high) / 2, high - low
                detections[i, 4 + int(row[1]), k] = 1
        masks = data["masks"][served : served + count].astype(np.float32)
        served += count
        return {"detections": detections, "segmentation": masks}

    assert evaluator.evaluate(perfect) == pytest.approx({"detection": 1, "segmentation": 1})


def test_a_network_that_finds_nothing_scores_zero(evaluator: ModuleType) -> None:
    def blind(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        count = len(feeds["image"])
        return {
            "detections": np.zeros((count, 7, 16), np.float32),
            "segmentation": np.zeros((count, 2, 64, 64), np.float32),
        }

    assert evaluator.evaluate(blind) == {"detection": 0, "segmentation": 0}
