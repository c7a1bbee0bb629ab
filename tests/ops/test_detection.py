"""Selections on the host, against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from jptq.ops import detection
from tests.ops.agreement import check_against_onnxruntime


@pytest.mark.parametrize("center_point_box", [0, 1])
@pytest.mark.parametrize(("most", "overlap", "least"), [(3, 0.5, 0.2), (40, 0.1, 0.0), (0, 0.5, 0)])
def test_boxes_are_selected_as_by_onnxruntime(
    most: int, overlap: float, least: float, center_point_box: int
) -> None:
    rng = np.random.default_rng(3)
    first = rng.uniform(0, 1, (2, 30, 2))
    second = rng.uniform(0.05, 0.6, (2, 30, 2)) + (0 if center_point_box else first)
    boxes = np.concatenate((first, second), axis=2).astype(np.float32)
    boxes[0, :4, 2:] = boxes[0, :4, :2]  # without area, unless these are sizes
    scores = rng.integers(0, 12, (2, 2, 30)).astype(np.float32) / 12  # many are equal
    inputs = [boxes, scores, np.asarray([most]), np.float32([overlap]), np.float32([least])]
    check_against_onnxruntime(
        "NonMaxSuppression", inputs, {"center_point_box": center_point_box}, opset=11
    )


@pytest.mark.parametrize("sorted", [0, 1])
@pytest.mark.parametrize("axis", [None, 0, -1])
def test_distinct_values_are_those_of_onnxruntime(axis: int | None, sorted: int) -> None:
    x = np.random.default_rng(0).integers(0, 3, (7, 2)).astype(np.float32)
    attributes = {"sorted": sorted} | ({} if axis is None else {"axis": axis})
    check_against_onnxruntime("Unique", [x], attributes, opset=11, n_outputs=4)


def test_nothing_has_no_boxes() -> None:
    none = detection.non_max_suppression(
        np.zeros((1, 0, 4), np.float32), np.zeros((1, 2, 0), np.float32), np.asarray(5)
    )
    assert (none.shape, none.dtype) == ((0, 3), np.int64)
