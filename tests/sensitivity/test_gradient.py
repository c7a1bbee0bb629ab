from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jptq.errors import UnknownNameError
from jptq.results import SensitivityTable
from jptq.sensitivity import Rows, gradient, rows_of
from tests.oracles import FAST_TO_COMPILE
from tests.sensitivity.networks import Case, in_double, shared, smooth, tiny

STEP = 1e-5


@pytest.fixture(scope="module")
def net() -> Case:
    return shared(smooth)


@pytest.fixture(scope="module")
def small() -> Case:
    return shared(tiny)


def loss(outputs: Mapping[str, jax.Array], feeds: Mapping[str, jax.Array]) -> jax.Array:
    """A loss of the user's: not of the output error, and it reads the feeds."""
    total = sum(jnp.sum(jnp.sin(3 * value)) for value in outputs.values())
    return total + jnp.sum(feeds["x"].ravel()[0] * next(iter(outputs.values())))


def by_loss(net: Case, rows: Rows, samples: Sequence[dict[str, np.ndarray]]) -> SensitivityTable:
    return gradient.rank(net.runner, net.thresholds, net.int8, rows, samples, loss=loss)


def slopes(net: Case, members: list[tuple[str, ...]]) -> np.ndarray:
    """Slope of the loss by the share of each row's quantization errors: ``[rows, samples]``.

    The oracle: float64 throughout, because a last bit of a float32 loss is 8 % of the smallest.
    """
    gates = np.zeros((len(members), len(net.plan.calibrations)))
    for row, names in zip(gates, members, strict=True):
        row[[net.plan.index[name] for name in names]] = 1
    moves = STEP * np.stack([gates, -gates])
    with jax.enable_x64(True):
        double = in_double(net)

        def moved(gate: jax.Array, feeds: Mapping[str, jax.Array]) -> jax.Array:
            return loss(dataclasses.replace(double, feeds=feeds).blended(gate), feeds)

        over = jax.vmap(jax.vmap(jax.vmap(moved, (None, 0)), (0, None)), (0, None))
        feeds = [in_double(net, sample).feeds for sample in range(len(net.samples))]
        stacked = {name: np.stack([one[name] for one in feeds]) for name in feeds[0]}
        up, down = np.asarray(jax.jit(over, compiler_options=FAST_TO_COMPILE)(moves, stacked))
    return (up - down) / (2 * STEP)


@pytest.mark.slow
def test_slopes_are_finite_differences_of_a_users_loss(net: Case) -> None:
    rows = rows_of(net.model, net.plan, only=[["stem"], ["joined"], ["classes"], ["depthwise"]])
    found = by_loss(net, rows, net.samples)
    expected = slopes(net, list(rows.members))
    # Float32 against float64 over instruction sets: at most 5e-6, squared 2e-5.
    np.testing.assert_allclose(found.column("taylor"), np.abs(expected).mean(axis=1), rtol=5e-5)
    np.testing.assert_allclose(found.column("fisher"), (expected**2).mean(axis=1), rtol=1e-4)


@pytest.mark.slow
def test_without_a_loss_the_output_error_is_taken_at_the_quantized_network(small: Case) -> None:
    rows = small.rows("group")
    found = gradient.rank(small.runner, small.thresholds, small.int8, rows, small.samples)
    assert (found.column("taylor") > 0).any()
    assert np.isfinite(found.score).all()
    assert (found.stderr == 0).all()  # nothing is drawn


@pytest.mark.slow
def test_one_pass_serves_several_candidates(small: Case) -> None:
    rows = rows_of(small.model, small.plan, "group", candidates=("int8", "int16"))
    found = gradient.rank(
        small.runner, small.thresholds, small.int8, rows, small.samples, loss=loss
    )
    assert np.isnan(found.score[~rows.accepted]).all()
    fine = rows.accepted[:, 1] & (found.column("taylor", "int8") > 1e-3)
    both = [found.column("taylor", c)[fine] for c in ("int8", "int16")]
    assert np.median(both[1] / both[0]) < 0.05  # 256 times finer


@pytest.mark.slow
def test_a_batch_that_is_not_full_counts_each_sample_once(small: Case) -> None:
    rows = small.rows("group")
    whole = gradient.rank(
        small.runner, small.thresholds, small.int8, rows, small.samples, loss=loss
    )
    apart = [
        gradient.rank(small.runner, small.thresholds, small.int8, rows, [one], loss=loss)
        for one in small.samples
    ]
    np.testing.assert_allclose(
        whole.score, np.mean([one.score for one in apart], axis=0), rtol=1e-3, atol=1e-5
    )


def test_an_unknown_metric_is_refused(net: Case) -> None:
    with pytest.raises(UnknownNameError, match="--method=gradient"):
        gradient.rank(
            net.runner, net.thresholds, net.int8, net.rows(), net.samples, metrics=("mse",)
        )
