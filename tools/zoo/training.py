"""Training of an ONNX graph: `jptq.engine.trace` differentiates it, optax changes its weights."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import jax
import numpy as np
import onnx
import optax
from jax import Array

from jptq import ir
from jptq.engine import Forward, trace
from tools.zoo.graph import Network

Weights = dict[str, Array]
Batch = Mapping[str, np.ndarray]
Loss = Callable[[Weights, Mapping[str, Array]], tuple[Array, dict[str, Array]]]
"""Of all weights and a batch: the loss and what to print of it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """How AdamW changes the weights: the rate rises linearly, then falls as a cosine.

    Attributes:
      steps: Number of updates.
      learning_rate: The highest.
      weight_decay: Per update, times the rate.
      warm_up: Share of the steps in which the rate rises.
      largest_gradient: Norm to which longer gradients are cut.
    """

    steps: int
    learning_rate: float
    weight_decay: float
    warm_up: float = 0.05
    largest_gradient: float = 5.0

    def optimizer(self) -> optax.GradientTransformation:
        """Return the optimizer; all weights are one vector, a third less to compile."""
        rate = optax.warmup_cosine_decay_schedule(
            0.0, self.learning_rate, int(self.warm_up * self.steps), self.steps
        )
        return optax.flatten(
            optax.chain(
                optax.clip_by_global_norm(self.largest_gradient),
                optax.adamw(rate, weight_decay=self.weight_decay),
            )
        )


def traced(proto: onnx.ModelProto, example: Batch) -> Forward:
    """Return a model as a function of its weights, for the shapes of the example."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "training.onnx"
        onnx.save(proto, path)
        return trace(ir.load(path), example)


def fit(
    network: Network, forward: Forward, loss: Loss, batches: Iterable[Batch], schedule: Schedule
) -> Weights:
    """Return all weights of a network after training.

    Args:
      network: Says which weights are trained.
      forward: Of it; holds the weights to start with.
      loss: What to lower.
      batches: One per step.
      schedule: How the weights change.
    """
    fixed = {k: w for k, w in forward.weights.items() if k not in network.trained}
    weights = {k: forward.weights[k] for k in network.trained}
    optimizer = schedule.optimizer()

    def of_trained(weights: Weights, batch: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
        return loss({**fixed, **weights}, batch)

    @jax.jit
    def update(
        weights: Weights, state: optax.OptState, batch: Mapping[str, Array]
    ) -> tuple[Weights, optax.OptState, dict[str, Array]]:
        gradient, parts = jax.grad(of_trained, has_aux=True)(weights, batch)
        change, state = optimizer.update(gradient, state, weights)
        return optax.apply_updates(weights, change), state, parts

    state = optimizer.init(weights)
    log = _Log(schedule.steps)
    for batch in batches:
        weights, state, parts = update(weights, state, batch)
        log(parts)
    return {**fixed, **weights}


def shuffled(data: Batch, batch: int, count: int, *, seed: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield batches of all samples in a new order, again and again.

    Args:
      data: Arrays of equal length.
      batch: Samples per batch.
      count: Number of batches.
      seed: Of the orders.
    """
    rng = np.random.default_rng(seed)
    order = np.empty(0, np.int64)
    samples = len(next(iter(data.values())))
    for _ in range(count):
        if order.size < batch:
            order = rng.permutation(samples)
        chosen, order = order[:batch], order[batch:]
        yield {key: values[chosen] for key, values in data.items()}


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
