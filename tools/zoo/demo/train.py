"""Train the demonstration network and write its folder.

    python -m tools.zoo.demo.train [--out=configs/demo] [--steps=3000]

The network is an ONNX graph from the start. ``jptq.engine.trace`` turns it into a JAX function of
its weights, optax changes them, and the result goes back into the same graph: what is trained is
what is shipped. Every random choice follows from the seeds below; another processor or another
version of XLA rounds differently and ends at other weights with about the same scores.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jptq.engine import Forward
from tools.zoo import training
from tools.zoo.demo import export, losses, network, render
from tools.zoo.graph import Network, with_weights
from tools.zoo.training import Batch, Schedule, Weights

BATCH = 32
SCENES = 8000
STEPS = 3000
STATISTICS_BATCHES = 64
WEIGHT_SEED, ORDER_SEED = 0, 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path("configs/demo"), help="folder that holds evaluate.py"
    )
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()

    start = time.perf_counter()
    scenes = [losses.targets(render.render(export.TRAINING, i)) for i in range(SCENES)]
    data = {key: np.stack([scene[key] for scene in scenes]) for key in scenes[0]}
    print(f"rendered {SCENES} scenes in {time.perf_counter() - start:.0f} s", flush=True)
    weights = fit(data, arguments.steps)
    proto = with_weights(network.build().proto, weights)
    scores = export.write(arguments.out, proto)
    print(f"{scores} in {time.perf_counter() - start:.0f} s")


def fit(data: Batch, steps: int) -> dict[str, np.ndarray]:
    """Return trained weights and the statistics of the normalizations.

    Args:
      data: `losses.targets`, stacked.
      steps: Number of updates.
    """
    graph = network.build(WEIGHT_SEED, training=True)
    shape = (BATCH, 3, render.SIZE, render.SIZE)
    forward = training.traced(graph.proto, {"image": np.zeros(shape, np.float32)})

    def loss(weights: Weights, batch: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
        image = batch["image"].astype(jnp.float32) / 255
        return losses.total(forward.apply(weights, {"image": image}), batch)

    batches = training.shuffled(data, BATCH, steps, seed=ORDER_SEED)
    schedule = Schedule(steps=steps, learning_rate=4e-3, weight_decay=1e-3)
    weights = training.fit(graph, forward, loss, batches, schedule)
    statistics = _statistics(graph, forward, weights, data)
    names = (*graph.trained, *statistics)
    return {name: np.asarray({**weights, **statistics}[name]) for name in names}


def _statistics(graph: Network, forward: Forward, weights: Weights, data: Batch) -> Weights:
    """Return means and variances of the finished network, averaged over batches.

    Source: Wu and Johnson 2021, arXiv:2105.07576, section 3 ("precise" statistics).
    """

    @jax.jit
    def measure(image: Array) -> Weights:
        outputs = forward.apply(weights, {"image": image.astype(jnp.float32) / 255})
        return {key: outputs[name] for key, name in graph.statistics.items()}

    batches = training.shuffled(data, BATCH, STATISTICS_BATCHES, seed=ORDER_SEED)
    found = [measure(batch["image"]) for batch in batches]
    return {key: jnp.mean(jnp.stack([f[key] for f in found]), axis=0) for key in found[0]}


if __name__ == "__main__":
    main()
