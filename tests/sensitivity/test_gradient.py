from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jptq.errors import UnknownNameError
from jptq.quant.assign import table
from jptq.sensitivity import gradient, rows_of
from tests.sensitivity.networks import Case, case, smooth

STEP = 1e-2


@pytest.fixture(scope="module")
def net() -> Case:
    return case(smooth(), samples=3)


def loss(outputs: Mapping[str, jax.Array], feeds: Mapping[str, jax.Array]) -> jax.Array:
    """Steep, so that a finite difference in float32 has digits; it reads the feeds."""
    total = sum(jnp.sum(jnp.sin(3 * value)) for value in outputs.values())
    return 100 * (total + jnp.sum(feeds["x"][0, 0, 0, 0] * next(iter(outputs.values()))))


def shifted(net: Case, members: tuple[str, ...], share: float) -> np.ndarray:
    """Loss of every sample with a share of the members' quantization errors added: the oracle."""
    plan, program = net.plan, net.runner.program
    settings = table(plan, net.thresholds, net.int8)
    index = [plan.index[m] for m in members]

    def quantizer(k: int, x: jax.Array, axis: int | None) -> jax.Array:
        if k not in index:
            return x
        start, stop = plan.offsets[k], plan.offsets[k + 1]
        shape = [1] * x.ndim
        if axis is not None and stop - start > 1:
            shape[axis] = stop - start
        scale = jnp.reshape(jnp.asarray(settings.scale[start:stop]), shape)
        steps = jnp.clip(jnp.round(x / scale), settings.lower[k], settings.upper[k])
        return x + share * (steps * scale - x)

    packed = program.prepare(net.runner.weights, quantizer)
    run = jax.jit(lambda feeds: loss(program.run(packed, quantizer, feeds), feeds))
    return np.array([float(run(feeds)) for feeds in net.samples])


@pytest.mark.slow
def test_slopes_are_finite_differences_of_a_users_loss(net: Case) -> None:
    rows = rows_of(net.model, net.plan, only=[["stem"], ["joined"], ["classes"], ["depthwise"]])
    found = gradient.rank(net.runner, net.thresholds, net.int8, rows, net.samples, loss=loss)
    for i, members in enumerate(rows.members):
        slopes = (shifted(net, members, STEP) - shifted(net, members, -STEP)) / (2 * STEP)
        assert found.column("taylor")[i] == pytest.approx(np.abs(slopes).mean(), rel=0.05)
        assert found.column("fisher")[i] == pytest.approx((slopes**2).mean(), rel=0.1)


@pytest.mark.slow
def test_without_a_loss_the_output_error_is_taken_at_the_quantized_network(net: Case) -> None:
    rows = net.rows("group")
    found = gradient.rank(net.runner, net.thresholds, net.int8, rows, net.samples)
    assert (found.column("taylor") > 0).any()
    assert np.isfinite(found.score).all()
    assert (found.stderr == 0).all()  # nothing is drawn


@pytest.mark.slow
def test_one_pass_serves_several_candidates(net: Case) -> None:
    rows = rows_of(net.model, net.plan, "group", candidates=("int8", "int16"))
    found = gradient.rank(net.runner, net.thresholds, net.int8, rows, net.samples, loss=loss)
    assert np.isnan(found.score[~rows.accepted]).all()
    fine = rows.accepted[:, 1] & (found.column("taylor", "int8") > 1e-3)
    both = [found.column("taylor", c)[fine] for c in ("int8", "int16")]
    assert np.median(both[1] / both[0]) < 0.05  # 256 times finer


@pytest.mark.slow
def test_a_batch_that_is_not_full_counts_each_sample_once(net: Case) -> None:
    rows = net.rows("group")
    whole = gradient.rank(net.runner, net.thresholds, net.int8, rows, net.samples, loss=loss)
    apart = [
        gradient.rank(net.runner, net.thresholds, net.int8, rows, [one], loss=loss)
        for one in net.samples
    ]
    np.testing.assert_allclose(
        whole.score, np.mean([one.score for one in apart], axis=0), rtol=1e-3, atol=1e-5
    )


def test_an_unknown_metric_is_refused(net: Case) -> None:
    with pytest.raises(UnknownNameError, match="--method=gradient"):
        gradient.rank(
            net.runner, net.thresholds, net.int8, net.rows(), net.samples, metrics=("mse",)
        )
