"""An evaluator to start from: top-1 accuracy of a classifier on labelled samples.

    jptq tune --model=classifier.onnx --calibration_data=calibration --evaluator=evaluate.py

`forward` runs the float model first, for reference, and then every configuration that the search
tries; it takes and gives dicts of arrays, one batch of any size. Higher is better. A dict of scores
is fine too: each of them must then keep its share of the float model's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

Forward = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]

SAMPLES = Path(__file__).with_name("evaluation.npz")
"""Arrays ``images`` [S, 3, H, W], float32 as the model wants them, and ``labels`` [S]."""

BATCH = 32


def evaluate(forward: Forward) -> float:
    with np.load(SAMPLES, allow_pickle=False) as data:
        images, labels = data["images"], data["labels"]
    right = 0
    for start in range(0, len(images), BATCH):
        outputs = forward({"images": images[start : start + BATCH]})
        chosen = outputs["logits"].argmax(-1)
        right += int((chosen == labels[start : start + BATCH]).sum())
    return right / len(images)
