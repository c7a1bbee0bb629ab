"""Losses of training, so that a network that ends in one can be read and run.

Source of every function here: ONNX operator specification, the version last in ``since``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax import Array

from jptq.ops.precision import widened
from jptq.ops.registry import op
from jptq.ops.traits import Traits
from jptq.ops.words import choose

_REDUCTIONS: Mapping[str, Callable[[Array, Array], Array]] = {
    "none": lambda losses, weights: losses,
    "sum": lambda losses, weights: losses.sum(),
    "mean": lambda losses, weights: losses.sum() / weights.sum(),
}
"""From weighted losses and their weights to the result."""


def _loss(
    log_probabilities: Array,
    target: Array,
    weight: Array | None,
    *,
    ignore_index: int | None,
    reduction: str,
) -> Array:
    """Return minus the weighted logarithms at the targets, reduced.

    Args:
      log_probabilities: ``[N, C, *positions]``.
      target: ``int[N, *positions]`` in ``[0, C)``, or ``ignore_index``.
      weight: ``[C]``, ones if absent.
      ignore_index: Of targets that neither the sum nor the mean counts.
      reduction: ``none``, ``sum``, or ``mean``: the sum divided by that of the weights.
    """
    reduce = choose(_REDUCTIONS, reduction, "reduction")
    wide = widened(log_probabilities)
    index = jnp.clip(target, 0, wide.shape[1] - 1)  # what is ignored may be any number
    picked = jnp.take_along_axis(wide, jnp.expand_dims(index, 1), axis=1).squeeze(1)
    weights = jnp.ones_like(picked)
    if weight is not None:
        weights = jnp.take(weight.astype(wide.dtype), index, axis=0)
    if ignore_index is not None:
        counts = target != ignore_index
        weights = jnp.where(counts, weights, 0)
        picked = jnp.where(counts, picked, 0)
    return reduce(-picked * weights, weights).astype(log_probabilities.dtype)


@op("NegativeLogLikelihoodLoss", since=(12, 13, 22), traits=Traits.float_only())
def negative_log_likelihood_loss(
    input: Array,
    target: Array,
    weight: Array | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Array:
    """Return the loss of log-probabilities.

    Args:
      input: Log-probabilities, ``[N, C, *positions]``.
      target: Classes, ``int[N, *positions]``.
      weight: Of each class, ``[C]``.

    Returns:
      A scalar, or ``[N, *positions]`` for ``reduction="none"``.

    Source: ONNX operator specification, NegativeLogLikelihoodLoss-22.
    """
    return _loss(input, target, weight, ignore_index=ignore_index, reduction=reduction)


@op("SoftmaxCrossEntropyLoss", since=(12, 13), traits=Traits.float_only())
def softmax_cross_entropy_loss(
    scores: Array,
    labels: Array,
    weights: Array | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> tuple[Array, Array]:
    """Return the loss of scores whose softmax over axis 1 gives probabilities.

    Args:
      scores: ``[N, C, *positions]``.
      labels: Classes, ``int[N, *positions]``.
      weights: Of each class, ``[C]``.

    Returns:
      The loss, a scalar or ``[N, *positions]`` for ``reduction="none"``; the log-probabilities in
      the shape of ``scores``.

    Source: ONNX operator specification, SoftmaxCrossEntropyLoss-13.
    """
    wide = jax.nn.log_softmax(widened(scores), axis=1)
    loss = _loss(wide, labels, weights, ignore_index=ignore_index, reduction=reduction)
    return loss.astype(scores.dtype), wide.astype(scores.dtype)
