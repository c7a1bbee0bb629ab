"""Train the demonstration network and write its folder.

    python -m tools.zoo.demo.train [--out=configs/demo] [--steps=3000]

The network is an ONNX graph from the start. ``jptq.engine.trace`` turns it into a JAX function of
its weights, optax changes them, and the result goes back into the same graph: what is trained is
what is shipped. Every random choice follows from the seeds below; another processor or another
version of XLA rounds differently and ends at other weights with about the same scores.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import optax
from jax import Array

from jptq import ir
from jptq.engine import Forward, trace
from tools.zoo.demo import export, losses, network, render

BATCH = 32
SCENES = 8000
STEPS = 3000
STATISTICS_BATCHES = 64

_LEARNING_RATE = 4e-3
_WARM_UP = 0.05  # of all steps
_WEIGHT_DECAY = 1e-3
_LARGEST_GRADIENT = 5.0
WEIGHT_SEED, ORDER_SEED = 0, 0

Weights = dict[str, Array]
Data = Mapping[str, np.ndarray]


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
    proto = export.with_weights(network.build().proto, weights)
    scores = export.write(arguments.out, proto)
    print(f"{scores} in {time.perf_counter() - start:.0f} s")


def fit(data: Data, steps: int) -> dict[str, np.ndarray]:
    """Return trained weights and the statistics of the normalizations.

    Args:
      data: `losses.targets`, stacked.
      steps: Number of updates.
    """
    graph = network.build(WEIGHT_SEED, training=True)
    forward = _trace(graph.proto)
    fixed = {k: w for k, w in forward.weights.items() if k not in graph.trained}
    weights = {k: forward.weights[k] for k in graph.trained}
    rate = optax.warmup_cosine_decay_schedule(0.0, _LEARNING_RATE, int(_WARM_UP * steps), steps)
    optimizer = optax.flatten(  # all weights as one: a third less to compile
        optax.chain(
            optax.clip_by_global_norm(_LARGEST_GRADIENT),
            optax.adamw(rate, weight_decay=_WEIGHT_DECAY),
        )
    )

    def loss(weights: Weights, batch: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
        image = batch["image"].astype(jnp.float32) / 255
        return losses.total(forward.apply({**fixed, **weights}, {"image": image}), batch)

    @jax.jit
    def update(
        weights: Weights, state: optax.OptState, batch: Mapping[str, Array]
    ) -> tuple[Weights, optax.OptState, dict[str, Array]]:
        gradient, parts = jax.grad(loss, has_aux=True)(weights, batch)
        change, state = optimizer.update(gradient, state, weights)
        return optax.apply_updates(weights, change), state, parts

    state = optimizer.init(weights)
    log = _Log(steps)
    for batch in _batches(data, steps):
        weights, state, parts = update(weights, state, batch)
        log(parts)
    statistics = _statistics(graph, forward, {**fixed, **weights}, data)
    return {k: np.asarray(w) for k, w in {**weights, **statistics}.items()}


def _trace(proto: onnx.ModelProto) -> Forward:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "training.onnx"
        onnx.save(proto, path)
        model = ir.load(path)
    shape = (BATCH, 3, render.SIZE, render.SIZE)
    return trace(model, {"image": np.zeros(shape, np.float32)})


def _batches(data: Data, count: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield batches of every scene in a new order, again and again."""
    rng = np.random.default_rng(ORDER_SEED)
    order = np.empty(0, np.int64)
    for _ in range(count):
        if order.size < BATCH:
            order = rng.permutation(len(data["image"]))
        chosen, order = order[:BATCH], order[BATCH:]
        yield {key: values[chosen] for key, values in data.items()}


def _statistics(graph: network.Network, forward: Forward, weights: Weights, data: Data) -> Weights:
    """Return means and variances of the finished network, averaged over batches.

    Source: Wu and Johnson 2021, arXiv:2105.07576, section 3 ("precise" statistics).
    """

    @jax.jit
    def measure(image: Array) -> Weights:
        outputs = forward.apply(weights, {"image": image.astype(jnp.float32) / 255})
        return {key: outputs[name] for key, name in graph.statistics.items()}

    found = [measure(batch["image"]) for batch in _batches(data, STATISTICS_BATCHES)]
    return {key: jnp.mean(jnp.stack([f[key] for f in found]), axis=0) for key in found[0]}


class _Log:
    """Print the mean of every loss now and then."""

    _EVERY = 200

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._seen: list[dict[str, Array]] = []
        self._count = 0
        self._start = time.perf_counter()

    def __call__(self, parts: dict[str, Array]) -> None:
        self._count += 1
        self._seen.append(parts)
        if len(self._seen) == self._EVERY or self._count == self._steps:
            means = {k: float(np.mean([p[k] for p in self._seen])) for k in self._seen[0]}
            shown = "  ".join(f"{k} {v:.3f}" for k, v in means.items())
            pace = (time.perf_counter() - self._start) / self._count
            print(f"{self._count:5d}  {shown}  {1e3 * pace:.0f} ms a step", flush=True)
            self._seen.clear()


if __name__ == "__main__":
    main()
