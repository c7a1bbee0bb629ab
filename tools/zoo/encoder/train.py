"""Train the encoder and write its folder.

    python -m tools.zoo.encoder.train [OUT] [--steps=6000]

OUT is ``tools/zoo/networks/encoder`` unless given.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from tools.zoo import folder, training
from tools.zoo.encoder import data, network
from tools.zoo.graph import with_weights
from tools.zoo.training import Schedule, Weights

NAME = "encoder"
TRAINING, CALIBRATION, EVALUATION = 1, 2, 3
"""Seeds of the three series of reviews; they share none."""
CALIBRATION_SAMPLES = 48
EVALUATION_SAMPLES = 400

BATCH = 64
REVIEWS = 100_000
STEPS = 6000
WEIGHT_SEED, ORDER_SEED = 0, 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, nargs="?", default=folder.NETWORKS / NAME)
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    start = time.perf_counter()
    weights = fit(arguments.steps)
    scores = write(arguments.out, weights)
    print(f"{scores} in {time.perf_counter() - start:.0f} s")


def fit(steps: int) -> dict[str, np.ndarray]:
    """Return trained weights.

    Args:
      steps: Number of updates.
    """
    graph = network.build(WEIGHT_SEED)
    drawn = dataclasses.asdict(data.reviews(TRAINING, REVIEWS))
    inputs = ("input_ids", "attention_mask")
    forward = training.traced(graph.proto, {name: drawn[name][:BATCH] for name in inputs})

    def loss(weights: Weights, batch: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
        logits = forward.apply(weights, {name: batch[name] for name in inputs})["logits"]
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"]).mean()
        right = (jnp.argmax(logits, axis=1) == batch["labels"]).mean()
        return entropy, {"entropy": entropy, "accuracy": right}

    batches = training.shuffled(drawn, BATCH, steps, seed=ORDER_SEED)
    schedule = Schedule(steps=steps, learning_rate=3e-3, weight_decay=1e-2, largest_gradient=1.0)
    weights = training.fit(graph, forward, loss, batches, schedule)
    return {name: np.asarray(weights[name]) for name in graph.trained}


def write(out: Path, weights: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Write the folder of the network; return its float scores."""
    folder.take_evaluator(NAME, out)
    held_out = data.reviews(EVALUATION, EVALUATION_SAMPLES)
    evaluation = {
        "input_ids": held_out.input_ids.astype(np.uint8),
        "labels": held_out.labels.astype(np.uint8),
    }
    proto = with_weights(network.build().proto, weights)
    return folder.write(out, proto, _samples(), evaluation)


def _samples() -> Iterator[dict[str, np.ndarray]]:
    found = data.reviews(CALIBRATION, CALIBRATION_SAMPLES)
    for i in range(CALIBRATION_SAMPLES):
        one = slice(i, i + 1)
        yield {
            "input_ids": found.input_ids[one],
            "attention_mask": found.attention_mask[one],
        }


if __name__ == "__main__":
    main()
