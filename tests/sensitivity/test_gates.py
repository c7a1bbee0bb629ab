from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jptq.quant.assign import table
from jptq.results import SensitivityTable
from jptq.sensitivity import probe, readings
from jptq.sensitivity.gates import Gates, error_direction, quantization_errors
from tests.graphs import Graph
from tests.quant.networks import attention, branches
from tests.sensitivity.networks import Case, case, in_double, smooth

STEP = 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("network", [smooth, attention, branches])
def test_derivatives_by_gates_are_finite_differences_in_float64(
    network: Callable[[], Graph],
) -> None:
    c = case(network(), samples=1)
    with jax.enable_x64(True):
        double = in_double(c)
        rng = np.random.default_rng(0)
        count = len(c.plan.calibrations)
        shapes = jax.eval_shape(double.blended, jnp.zeros(count))
        signs = {n: jnp.asarray(rng.choice([-1.0, 1.0], s.shape)) for n, s in shapes.items()}

        def loss(outputs: Mapping[str, jax.Array]) -> Any:
            parts = [jnp.sum(signs[name] * value) for name, value in outputs.items()]
            return sum(parts[1:], parts[0])

        zero = jnp.zeros(count)
        moves = jnp.eye(count) * STEP
        around = jax.jit(jax.vmap(lambda u: loss(double.blended(u))))
        found = around(jnp.concatenate([moves, -moves]))
        differences = np.asarray(found[:count] - found[count:]) / (2 * STEP)
        slopes = {
            "table": jax.jit(jax.grad(lambda u: loss(double.by_table(u))))(zero),
            "directions": jax.jit(jax.grad(lambda u: loss(double.by_directions(u))))(zero),
        }
    assert np.asarray(slopes["table"]).dtype == np.float64
    largest = np.abs(differences).max()
    assert (differences != 0).all()
    for name, slope in slopes.items():
        np.testing.assert_allclose(
            np.asarray(slope), differences, rtol=1e-5, atol=1e-7 * largest, err_msg=name
        )


@pytest.mark.parametrize("network", [smooth, attention])
def test_derivatives_by_the_input_are_finite_differences_in_float64(
    network: Callable[[], Graph],
) -> None:
    c = case(network(), samples=1)
    with jax.enable_x64(True):
        double = in_double(c)
        plain = double.program.prepare(double.weights, None)

        def loss(x: jax.Array) -> Any:
            outputs = double.program.run(plain, None, {"x": x})
            parts = [jnp.sum(jnp.square(value)) for value in outputs.values()]
            return sum(parts[1:], parts[0])

        x = double.feeds["x"]
        direction = jnp.asarray(np.random.default_rng(1).standard_normal(x.shape))
        run = jax.jit(loss)
        difference = float(run(x + STEP * direction) - run(x - STEP * direction)) / (2 * STEP)
        slope = float(jnp.vdot(jax.jit(jax.grad(loss))(x), direction))
    assert slope == pytest.approx(difference, rel=1e-5)


def exact_effects(
    c: Case, types: Mapping[str, str]
) -> tuple[list[dict[str, np.ndarray]], list[dict[str, np.ndarray]]]:
    """Return outputs and, by forward mode, effects ``[*output, K]`` of every quantizer."""
    plan = c.plan
    settings = jax.tree.map(jnp.asarray, table(plan, c.thresholds, types))
    weights = quantization_errors(c.runner, [settings])
    gates = Gates(c.runner.program, 1)
    direction = error_direction(c.runner.program, [settings])

    def network(u: jax.Array, feeds: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        packed = c.runner.float_weights.weights
        return gates.outputs(u[None], packed, weights, direction, feeds)

    zero = jnp.zeros(len(plan.calibrations), jnp.float32)
    forward, jacobian = jax.jit(network), jax.jit(jax.jacfwd(network))
    outputs = [jax.tree.map(np.asarray, forward(zero, feeds)) for feeds in c.samples]
    return outputs, [jax.tree.map(np.asarray, jacobian(zero, feeds)) for feeds in c.samples]


def first_order_scores(c: Case, types: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Return the score of every row, by metric, from the diagonal of the exact Gram matrix."""
    rows = c.rows()
    outputs, effects = exact_effects(c, types)
    want = {"mse": np.zeros(len(rows.names)), "cosine-similarity": np.zeros(len(rows.names))}
    for i, members in enumerate(rows.members):
        index = [c.plan.index[name] for name in members]
        found: dict[str, list[float]] = {"mse": [], "cosine-similarity": []}
        for y, e in zip(outputs, effects, strict=True):
            for name in rows.reached[i]:
                value = y[name].astype(np.float64).ravel()
                effect = e[name][..., index].astype(np.float64).sum(-1).ravel()
                power = value @ value
                found["mse"].append(effect @ effect / effect.size)
                across = effect @ effect / power - (value @ effect / power) ** 2
                found["cosine-similarity"].append(1 - across / 2)
        for metric, values in found.items():
            want[metric][i] = np.mean(values)
    return want


def probed(c: Case, types: Mapping[str, str], **options: Any) -> SensitivityTable:
    metrics = ("mse", "cosine-similarity")
    return probe.rank(
        c.runner, c.thresholds, types, c.rows(), c.samples, metrics=metrics, **options
    )


@pytest.mark.slow
@pytest.mark.parametrize("network", [smooth, attention])
def test_many_probes_find_the_diagonal_of_the_exact_gram_matrix(
    network: Callable[[], Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "SETTLED", 2.0)  # draw all of them
    monkeypatch.setattr(readings, "choose", lambda *args, **options: None)  # signs, not log-odds
    c = case(network(), samples=2)
    scores = [probed(c, c.int8, probes=256, seed=seed) for seed in range(2)]
    for metric, exact in first_order_scores(c, c.int8).items():
        errors = np.stack([s.column(metric) - exact for s in scores])
        spread = np.stack([s.stderr[:, 0, s.metrics.index(metric)] for s in scores])
        assert (spread > 0).all()
        # An effect on a single element has no spread but rounding.
        assert (np.abs(errors) <= 4 * spread + 1e-6 * np.abs(exact)).all(), metric
        pooled = np.sqrt((spread**2).mean(0) / len(scores))
        assert (np.abs(errors.mean(0)) <= 4 * pooled + 1e-6 * np.abs(exact)).all(), metric


@pytest.mark.slow
def test_log_odds_find_the_same_diagonal_where_errors_are_small() -> None:
    c = case(attention(), samples=2)
    fine = dict.fromkeys(c.int8, "int16")
    found = probed(c, fine, probes=256)
    assert found.stderr.max() == 0  # read, not drawn
    for metric, exact in first_order_scores(c, fine).items():
        off = (0.0, 1.0)[metric == "cosine-similarity"]
        # Beside a step of INT16, second order and float32 are what is left.
        np.testing.assert_allclose(off - found.column(metric), off - exact, rtol=0.02)
