from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jptq.quant.assign import Table, table
from jptq.results import SensitivityTable
from jptq.sensitivity import probe, readings
from jptq.sensitivity.gates import Gates, error_direction, quantization_errors
from tests.graphs import Graph
from tests.oracles import FAST_TO_COMPILE
from tests.quant.networks import attention, branches
from tests.sensitivity.networks import Case, in_double, shared, smooth

STEP = 1e-5


def summed(outputs: Mapping[str, jax.Array], weigh: Callable[[str, jax.Array], jax.Array]) -> Any:
    parts = [jnp.sum(weigh(name, value)) for name, value in outputs.items()]
    return sum(parts[1:], parts[0])


@pytest.mark.slow
@pytest.mark.parametrize("network", [smooth, attention, branches])
def test_derivatives_by_gates_are_finite_differences_in_float64(
    network: Callable[[], Graph],
) -> None:
    c = shared(network)
    rng = np.random.default_rng(0)
    count = len(c.plan.calibrations)
    signs = {n: rng.choice([-1.0, 1.0], c.runner.program.shapes[n]) for n in c.model.output_names}
    with jax.enable_x64(True):
        double = in_double(c)

        def loss(outputs: Mapping[str, jax.Array]) -> Any:
            return summed(outputs, lambda name, value: signs[name] * value)

        @jax.jit
        def derivatives(zero: jax.Array) -> dict[str, jax.Array]:
            return {
                "table": jax.grad(lambda u: loss(double.by_table(u)))(zero),
                "directions": jax.grad(lambda u: loss(double.by_directions(u)))(zero),
            }

        moves = np.eye(count) * STEP
        oracle = jax.jit(
            jax.vmap(lambda u: loss(double.blended(u))), compiler_options=FAST_TO_COMPILE
        )
        around = np.asarray(oracle(np.r_[moves, -moves]))
        slopes = jax.tree.map(np.asarray, derivatives(np.zeros(count)))
    differences = (around[:count] - around[count:]) / (2 * STEP)
    assert slopes["table"].dtype == np.float64
    largest = np.abs(differences).max()
    assert (differences != 0).all()
    for name, slope in slopes.items():
        np.testing.assert_allclose(slope, differences, rtol=1e-5, atol=1e-7 * largest, err_msg=name)


@pytest.mark.parametrize("network", [smooth, attention])
def test_derivatives_by_the_input_are_finite_differences_in_float64(
    network: Callable[[], Graph],
) -> None:
    c = shared(network)
    with jax.enable_x64(True):
        double = in_double(c)

        def loss(x: jax.Array) -> Any:
            plain = double.program.prepare(double.weights, None)
            outputs = double.program.run(plain, None, {"x": x})
            return summed(outputs, lambda _, value: jnp.square(value))

        x = np.asarray(double.feeds["x"])
        direction = np.random.default_rng(1).standard_normal(x.shape)
        near = np.stack([x + STEP * direction, x - STEP * direction])
        around = np.asarray(jax.jit(jax.vmap(loss), compiler_options=FAST_TO_COMPILE)(near))
        slopes = np.asarray(jax.jit(jax.grad(loss))(x))
    difference = (around[0] - around[1]) / (2 * STEP)
    assert np.vdot(slopes, direction) == pytest.approx(difference, rel=1e-5)


@functools.cache
def _with_jacobian(c: Case) -> Callable[..., Any]:
    """Return the program that gives outputs and, by forward mode, their Jacobian by gates."""

    def network(
        u: jax.Array, packed: Any, weights: Any, settings: Table, feeds: Mapping[str, jax.Array]
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        direction = error_direction(c.runner.program, [settings])
        outputs = Gates(c.runner.program, 1).outputs(u[None], packed, weights, direction, feeds)
        return outputs, outputs

    return jax.jit(jax.jacfwd(network, has_aux=True), compiler_options=FAST_TO_COMPILE)


def exact_effects(
    c: Case, types: Mapping[str, str]
) -> tuple[list[dict[str, np.ndarray]], list[dict[str, np.ndarray]]]:
    """Return outputs and effects ``[*output, K]`` of every quantizer, sample by sample."""
    settings = jax.device_put(table(c.plan, c.thresholds, types))
    weights = quantization_errors(c.runner, [settings])
    packed = c.runner.float_weights.weights
    zero = np.zeros(len(c.plan.calibrations), np.float32)
    program = _with_jacobian(c)
    found = [
        jax.tree.map(np.asarray, program(zero, packed, weights, settings, feeds))
        for feeds in c.samples
    ]
    return [outputs for _, outputs in found], [effects for effects, _ in found]


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
    c = shared(network)
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
    c = shared(attention)
    fine = dict.fromkeys(c.int8, "int16")
    found = probed(c, fine, probes=256)
    assert found.stderr.max() == 0  # read, not drawn
    for metric, exact in first_order_scores(c, fine).items():
        off = (0.0, 1.0)[metric == "cosine-similarity"]
        # Beside a step of INT16, second order and float32 are what is left.
        np.testing.assert_allclose(off - found.column(metric), off - exact, rtol=0.02)
