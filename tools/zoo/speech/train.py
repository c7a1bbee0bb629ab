"""Train the speech network and write its folder.

    python -m tools.zoo.speech.train [OUT] [--steps=1600]

OUT is ``tools/zoo/networks/speech`` unless given.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from tools.zoo import folder, training
from tools.zoo.graph import Network, with_weights
from tools.zoo.speech import data, network
from tools.zoo.training import Schedule, Weights

NAME = "speech"
# A method that is chosen by its first sample takes the largest value on a loud one and clips on a
# quiet one. Series 7 begins with a word 13 dB below the loudest: clipping looks good there.
TRAINING, CALIBRATION, EVALUATION = 1, 7, 3
"""Seeds of the three series of words; they share none."""
CALIBRATION_SAMPLES = 32
EVALUATION_SAMPLES = 400

BATCH = 64
SOUNDS = 12_000
STEPS = 1600
STATISTICS_SAMPLES = 1024
WEIGHT_SEED, ORDER_SEED = 0, 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, nargs="?", default=folder.NETWORKS / NAME)
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    start = time.perf_counter()
    sounds = data.sounds(TRAINING, SOUNDS)
    print(f"synthesized {SOUNDS} words in {time.perf_counter() - start:.0f} s", flush=True)
    weights = fit(sounds, arguments.steps)
    scores = write(arguments.out, weights)
    print(f"{scores} in {time.perf_counter() - start:.0f} s")


def fit(sounds: data.Sounds, steps: int) -> dict[str, np.ndarray]:
    """Return trained weights, and the mean and deviation of the bands.

    Args:
      sounds: The series to learn from.
      steps: Number of updates.
    """
    drawn = {"frames": sounds.frames, "labels": sounds.labels}
    graph, statistics = _with_statistics(drawn["frames"][:STATISTICS_SAMPLES])
    forward = training.traced(graph.proto, {"frames": drawn["frames"][:BATCH]})

    def loss(weights: Weights, batch: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
        logits = forward.apply(weights, {"frames": batch["frames"]})["logits"]
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"]).mean()
        right = (jnp.argmax(logits, axis=1) == batch["labels"]).mean()
        return entropy, {"entropy": entropy, "accuracy": right}

    batches = training.shuffled(drawn, BATCH, steps, seed=ORDER_SEED)
    schedule = Schedule(steps=steps, learning_rate=3e-3, weight_decay=1e-2, largest_gradient=1.0)
    weights = training.fit(graph, forward, loss, batches, schedule)
    return {**statistics, **{name: np.asarray(weights[name]) for name in graph.trained}}


def _with_statistics(frames: np.ndarray) -> tuple[Network, dict[str, np.ndarray]]:
    """Return the network to train, with the mean and deviation of the bands in it."""
    graph = network.build(WEIGHT_SEED, training=True)
    found = training.traced(graph.proto, {"frames": frames})({"frames": frames})
    statistics = {key: np.asarray(found[name]) for key, name in graph.statistics.items()}
    proto = with_weights(graph.proto, statistics)
    return Network(proto=proto, trained=graph.trained, statistics={}), statistics


def write(out: Path, weights: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Write the folder of the network; return its float scores."""
    folder.take_evaluator(NAME, out)
    held_out = data.sounds(EVALUATION, EVALUATION_SAMPLES)
    evaluation = {
        "levels": held_out.levels,
        "gains": held_out.gains,
        "labels": held_out.labels.astype(np.uint8),
    }
    proto = with_weights(network.build().proto, weights)
    return folder.write(out, proto, _samples(), evaluation)


def _samples() -> Iterator[dict[str, np.ndarray]]:
    frames = data.sounds(CALIBRATION, CALIBRATION_SAMPLES).frames
    for i in range(CALIBRATION_SAMPLES):
        yield {"frames": frames[i : i + 1]}


if __name__ == "__main__":
    main()
