"""Scores of the encoder on reviews that it has not seen.

``evaluate(forward)`` gives two scores, higher is better, at most 1:

* ``accuracy``: share of the reviews whose grade has the highest logit;
* ``probability``: of the right grade, by Softmax, the mean of all reviews.

An output that is not finite counts as wrong, with probability 0.

``forward(feeds)`` takes and gives dicts of arrays and runs one batch of any size.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

Forward = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]

BATCH = 100


def evaluate(forward: Forward) -> dict[str, float]:
    data = np.load(Path(__file__).with_name("evaluation.npz"), allow_pickle=False)
    ids, labels = data["input_ids"].astype(np.int64), data["labels"].astype(np.int64)
    right, probability = [], []
    for start in range(0, len(ids), BATCH):
        batch, label = ids[start : start + BATCH], labels[start : start + BATCH]
        feeds = {"input_ids": batch, "attention_mask": (batch != 0).astype(np.int64)}
        shares = softmax(np.asarray(forward(feeds)["logits"], np.float64))
        right += list((shares.argmax(1) == label) & (shares.max(1) > 0))
        probability += list(shares[np.arange(len(label)), label])
    return {"accuracy": float(np.mean(right)), "probability": float(np.mean(probability))}


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities ``[n, grades]``; where a logit is not finite, none is above 0."""
    finite = np.isfinite(logits).all(1, keepdims=True)
    logits = np.where(finite, logits, 0)
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return finite * shares / shares.sum(1, keepdims=True)
