"""Scores of the demonstration network on scenes that it has not seen.

``evaluate(forward)`` gives two scores, higher is better, at most 1:

* ``detection``: average precision, the mean over three classes and over the overlaps
  0.50, 0.51, ..., 0.75 that a box must have with a labelled one to count as found;
* ``segmentation``: intersection over union, the mean of road and lane markings, pixels of all
  images counted together.

``forward(feeds)`` takes and gives dicts of arrays and runs one batch of any size.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

Forward = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]

BATCH = 32
OVERLAPS = np.linspace(0.5, 0.75, 26)
LEAST_SCORE = 0.05
SUPPRESSED_ABOVE = 0.5


def evaluate(forward: Forward) -> dict[str, float]:
    data = np.load(Path(__file__).with_name("evaluation.npz"), allow_pickle=False)
    images, masks, labels = data["images"], data["masks"], data["labels"]
    common, union = np.zeros(masks.shape[1]), np.zeros(masks.shape[1])
    found = []
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH].astype(np.float32) / 255
        outputs = forward({"image": batch})
        mask = np.asarray(outputs["segmentation"]) > 0.5
        truth = masks[start : start + BATCH]
        common += (mask & truth).sum((0, 2, 3))
        union += (mask | truth).sum((0, 2, 3))
        for i, rows in enumerate(np.asarray(outputs["detections"], np.float64)):
            kept = detections(rows)
            found.append(np.column_stack([np.full(len(kept), start + i), kept]))
    boxes = np.concatenate(found)
    precision = [
        average_precision(boxes[boxes[:, 1] == c], labels[labels[:, 1] == c])
        for c in np.unique(labels[:, 1])
    ]
    return {
        "detection": float(np.mean(precision)),
        "segmentation": float(np.mean(common / np.maximum(union, 1))),
    }


def detections(rows: np.ndarray) -> np.ndarray:
    """Return rows of class, score, left, top, right, bottom after non-maximum suppression."""
    centre, half = rows[:2], np.maximum(rows[2:4], 0) / 2
    corners = np.concatenate([centre - half, centre + half]).T
    sound = np.isfinite(corners).all(1)
    kept = []
    for c, scores in enumerate(rows[4:]):
        order = np.argsort(-scores, kind="stable")
        order = order[(scores[order] > LEAST_SCORE) & sound[order]]
        rivals = overlaps(corners[order], corners[order]) > SUPPRESSED_ABOVE
        alive = np.ones(order.size, bool)
        for i in range(order.size):
            if alive[i]:
                alive[i + 1 :] &= ~rivals[i, i + 1 :]
        best = order[alive]
        kept.append(np.column_stack([np.full(best.size, c), scores[best], corners[best]]))
    return np.concatenate(kept)


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return intersection over union of ``n`` boxes with ``m`` others, ``[n, m]``."""
    a = a[:, None]
    low, high = np.maximum(a[..., :2], b[:, :2]), np.minimum(a[..., 2:], b[:, 2:])
    common = np.clip(high - low, 0, None).prod(-1)
    area = (a[..., 2:] - a[..., :2]).prod(-1) + (b[:, 2:] - b[:, :2]).prod(-1)
    return common / np.maximum(area - common, 1e-9)


def average_precision(found: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the area under precision over recall of one class, per least overlap.

    The surest box chooses first: of the labelled boxes that are left, the one it overlaps most.

    Args:
      found: Rows of image, class, score, left, top, right, bottom.
      labels: Rows of image, class, left, top, right, bottom.
    """
    levels = np.arange(OVERLAPS.size)
    hits = np.zeros((OVERLAPS.size, len(found)), bool)
    rank = np.empty(len(found), np.int64)
    rank[np.argsort(-found[:, 2], kind="stable")] = np.arange(len(found))
    for image in np.unique(labels[:, 0]):
        here = np.flatnonzero(found[:, 0] == image)
        here = here[np.argsort(rank[here])]
        overlap = overlaps(found[here, 3:], labels[labels[:, 0] == image, 2:])
        left = np.ones((OVERLAPS.size, overlap.shape[1]), bool)
        for i in np.flatnonzero(overlap.max(1) >= OVERLAPS[0]):
            open_to = np.where(left, overlap[i], -1)
            best = open_to.argmax(1)
            hit = open_to[levels, best] >= OVERLAPS
            left[levels, best] &= ~hit
            hits[:, rank[here[i]]] = hit
    recall = np.cumsum(hits, 1) / len(labels)
    precision = np.cumsum(hits, 1) / np.arange(1, len(found) + 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    return np.sum(np.diff(recall, axis=1, prepend=0.0) * envelope, 1)
