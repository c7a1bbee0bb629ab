"""Selections whose length hangs on values: they are made on the host, from values that are known.

Source of every function here: ONNX operator specification, the version last in ``since``.
"""

from __future__ import annotations

import numpy as np

from jptq.ops.registry import op
from jptq.ops.traits import Traits


def _corners(boxes: np.ndarray, center_point_box: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the greatest corner of boxes ``[N, 4]``, both ``[N, 2]``."""
    first, second = boxes[:, :2], boxes[:, 2:]
    if center_point_box:
        half = second / np.asarray(2, boxes.dtype)
        return first - half, first + half
    return np.minimum(first, second), np.maximum(first, second)


def _overlaps(low: np.ndarray, high: np.ndarray, one: int, others: list[int]) -> np.ndarray:
    """Return intersection over union of one box with others; zero where a box has no area."""
    sides = np.minimum(high[one], high[others]) - np.maximum(low[one], low[others])
    shared = np.where((sides > 0).all(axis=1), sides.prod(axis=1), 0)
    area = (high - low).prod(axis=1)
    union = area[one] + area[others] - shared
    sound = (area[one] > 0) & (area[others] > 0) & (union > 0)
    return np.where(sound, shared / np.where(sound, union, 1), 0)


def _scalar(value: np.ndarray | None, default: float) -> float:
    """Return the one element of an optional input."""
    return default if value is None or value.size == 0 else float(value.item())


@op(
    "NonMaxSuppression",
    since=(10, 11),
    static=(
        "boxes",
        "scores",
        "max_output_boxes_per_class",
        "iou_threshold",
        "score_threshold",
    ),
    traits=Traits.float_only(),
)
def non_max_suppression(
    boxes: np.ndarray,
    scores: np.ndarray,
    max_output_boxes_per_class: np.ndarray | None = None,
    iou_threshold: np.ndarray | None = None,
    score_threshold: np.ndarray | None = None,
    *,
    center_point_box: int = 0,
) -> np.ndarray:
    """Select boxes in the order of their scores, none that overlaps a selected one of its class.

    Args:
      boxes: ``[B, N, 4]``: two opposite corners ``y, x, y, x``, or, with ``center_point_box``,
        centre and size ``x, y, width, height``.
      scores: ``[B, C, N]``.
      max_output_boxes_per_class: A scalar; nothing is selected if it is absent.
      iou_threshold: A scalar: greatest intersection over union of two selected boxes.
      score_threshold: A scalar: only higher scores are selected; all if absent.

    Returns:
      ``int64[selected, 3]``: batch, class and box. How many there are hangs on the values.

    Source: ONNX operator specification, NonMaxSuppression-11.
    """
    most = max(int(_scalar(max_output_boxes_per_class, 0)), 0)
    threshold = np.asarray(_scalar(iou_threshold, 0), boxes.dtype)
    least = _scalar(score_threshold, -np.inf)
    found: list[tuple[int, int, int]] = []
    for batch, of_batch in enumerate(scores):
        low, high = _corners(boxes[batch], center_point_box)
        for kind, of_class in enumerate(of_batch):
            kept: list[int] = []
            for box in np.argsort(-of_class, kind="stable").tolist():
                if len(kept) == most:
                    break
                above = score_threshold is None or of_class[box] > least
                if above and not (_overlaps(low, high, box, kept) > threshold).any():
                    kept.append(box)
            found.extend((batch, kind, box) for box in kept)
    return np.asarray(found, np.int64).reshape(-1, 3)


@op("Unique", since=(11, 28), static=("x",), traits=Traits.shape_only())
def unique(
    x: np.ndarray, *, axis: int | None = None, sorted: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the distinct values, or the distinct slices along an axis.

    Args:
      x: Any shape.
      axis: None flattens ``x``.
      sorted: Ascending; else in the order of first appearance.

    Returns:
      The values; where each first appears; which of them every position holds; how often each
      appears. All but the values are ``int64`` vectors.

    Source: ONNX operator specification, Unique-28.
    """
    y, first, inverse, counts = np.unique(
        x, return_index=True, return_inverse=True, return_counts=True, axis=axis
    )
    inverse = inverse.reshape(-1)
    if not sorted:
        order = np.argsort(first)
        y = np.take(y, order, axis=0 if axis is None else axis)
        first, counts = first[order], counts[order]
        inverse = np.argsort(order)[inverse]
    return y, first.astype(np.int64), inverse.astype(np.int64), counts.astype(np.int64)
