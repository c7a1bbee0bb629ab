"""Scores of the speech network on words that it has not heard.

``evaluate(forward)`` gives two scores, higher is better, at most 1:

* ``accuracy``: share of the words whose probability is the highest;
* ``probability``: of the right word, the mean of all.

An output that is not finite counts as wrong, with probability 0.

``forward(feeds)`` takes and gives dicts of arrays and runs one batch of any size.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

Forward = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]

BATCH = 100
FRAME, HOP = 64, 32


def evaluate(forward: Forward) -> dict[str, float]:
    data = np.load(Path(__file__).with_name("evaluation.npz"), allow_pickle=False)
    frames, labels = framed(data["levels"], data["gains"]), data["labels"].astype(np.int64)
    right, probability = [], []
    for start in range(0, len(frames), BATCH):
        label = labels[start : start + BATCH]
        feeds = {"frames": frames[start : start + BATCH]}
        shares = np.nan_to_num(np.asarray(forward(feeds)["probabilities"], np.float64))
        right += list((shares.argmax(1) == label) & (shares.max(1) > 0))
        probability += list(shares[np.arange(len(label)), label])
    return {"accuracy": float(np.mean(right)), "probability": float(np.mean(probability))}


def framed(levels: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Return overlapping frames ``float32[n, frames, FRAME]`` of ``int8[n, samples]``."""
    waves = levels.astype(np.float32) * gains[:, None]
    windows = np.lib.stride_tricks.sliding_window_view(waves, FRAME, axis=1)
    return np.ascontiguousarray(windows[:, ::HOP])
