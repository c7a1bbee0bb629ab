"""Losses of training, against sums in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jptq.errors import ShapeError
from jptq.ops import training
from tests.ops.agreement import normal

SCORES = normal(2, 5, 3)
TARGETS = np.array([[4, -1, 0], [1, 1, -1]], np.int64)
WEIGHTS = np.array([1, 0.5, 2, 3, 0.25], np.float32)


def _expected(scores: np.ndarray, weights: np.ndarray, reduction: str, ignored: int) -> np.ndarray:
    """Loop over positions in float64."""
    losses, total = np.zeros(TARGETS.shape), 0.0
    for n, p in np.ndindex(*TARGETS.shape):
        label = int(TARGETS[n, p])
        if label == ignored:
            continue
        row = scores[n, :, p].astype(np.float64)
        losses[n, p] = weights[label] * (np.log(np.exp(row).sum()) - row[label])
        total += weights[label]
    return {"none": losses, "sum": losses.sum(), "mean": losses.sum() / total}[reduction]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_both_losses_are_minus_the_weighted_logarithms(reduction: str, weighted: bool) -> None:
    weights = WEIGHTS if weighted else np.ones(5, np.float32)
    given = jnp.asarray(WEIGHTS) if weighted else None
    options = {"reduction": reduction, "ignore_index": -1}
    loss, logarithms = training.softmax_cross_entropy_loss(
        jnp.asarray(SCORES), jnp.asarray(TARGETS), given, **options
    )
    again = training.negative_log_likelihood_loss(
        logarithms, jnp.asarray(TARGETS), given, **options
    )
    expected = _expected(SCORES, weights, reduction, ignored=-1)
    np.testing.assert_allclose(np.asarray(loss), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.asarray(again), expected, rtol=1e-5, atol=1e-6)


def test_the_gradient_by_scores_is_probabilities_less_the_target() -> None:
    targets = np.array([4, 0])
    gradient = jax.grad(
        lambda x: training.softmax_cross_entropy_loss(x, jnp.asarray(targets), reduction="sum")[0]
    )(jnp.asarray(SCORES[..., 0]))
    powers = np.exp(SCORES[..., 0].astype(np.float64))
    expected = powers / powers.sum(1, keepdims=True) - np.eye(5)[targets]
    np.testing.assert_allclose(np.asarray(gradient), expected, atol=1e-6)


def test_an_impossible_class_that_is_ignored_adds_nothing() -> None:
    logarithms = jnp.asarray([[0.0, -jnp.inf], [-0.5, -1.0]])
    loss = training.negative_log_likelihood_loss(
        logarithms, jnp.asarray([1, 0]), ignore_index=1, reduction="sum"
    )
    assert float(loss) == 0.5


def test_an_unknown_reduction_is_refused() -> None:
    with pytest.raises(ShapeError, match="did you mean 'mean'"):
        training.negative_log_likelihood_loss(
            jnp.zeros((1, 2)), jnp.zeros(1, jnp.int32), reduction="means"
        )
