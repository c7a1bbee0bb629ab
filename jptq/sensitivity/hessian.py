"""Second-order sensitivity: the Hessian's trace per quantizer times its mean squared error.

``score_c = tr(H_cc) * mean(d_c^2)``, with H the Hessian of the loss with respect to the tensor of
quantizer c at the float network. Hutchinson's estimator over random signs; one product with the
Hessian by forward-over-reverse differentiation gives a sample of every block's trace at once.
Source: Dong et al. 2020 (HAWQ-V2), arXiv:1911.03852.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jptq import prng
from jptq.engine import memory
from jptq.engine.program import Program
from jptq.engine.runner import Runner, SampleSet
from jptq.errors import UnknownNameError
from jptq.quant.assign import Assignment, Table, Thresholds
from jptq.results.sensitivity import SensitivityTable
from jptq.sensitivity.gates import Gates, error_direction
from jptq.sensitivity.losses import Loss, output_error
from jptq.sensitivity.rows import Rows

METRICS = ("hessian",)
PROBES = 8


def rank(
    runner: Runner,
    thresholds: Thresholds,
    base: Assignment,
    rows: Rows,
    samples: SampleSet,
    *,
    metrics: Sequence[str] = METRICS,
    loss: Loss | None = None,
    probes: int = PROBES,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> SensitivityTable:
    """Score every row and candidate; a row's score is the sum over its quantizers.

    Args:
      runner: Of the calibrated graph.
      thresholds: Of every calibration.
      base: What rows hold under the candidate ``current``.
      rows: What to score.
      samples: S samples.
      metrics: Of `METRICS`.
      loss: ``loss(outputs, feeds) -> scalar`` of one sample, or None for the output error.
      probes: Products with the Hessian per sample.
      seed: Of the signs.
      progress: Called after every program run.

    Raises:
      UnknownNameError: A metric that this method does not give.
    """
    started = time.perf_counter()
    for name in metrics:
        if name not in METRICS:
            raise UnknownNameError("metric for --method=hessian", name, METRICS)
    plan = runner.program.plan
    assert plan is not None
    tables = jax.device_put(rows.tables(plan, thresholds, base))
    gates = Gates(runner.program, 1)
    product = runner.compilations.once(
        ("hessian product", loss),
        lambda: runner.compilations.jit("hessian product", _product(gates, loss)),
    )
    squared = runner.compilations.once(
        "squared errors",
        lambda: runner.compilations.jit("squared errors", _squared_errors(gates)),
    )
    packed = runner.float_weights.weights
    keys = [key for key, slot in runner.program.slots.items() if slot.calibration is not None]
    traces, errors = [], []
    done = 0
    # Forward over reverse keeps every tensor and its tangent.
    size = runner.batch_for(2 * memory.backward(runner.program, 1, 1))
    for feeds, count in runner.batches(samples, size):
        floats = runner.run(runner.float_weights, feeds)
        full = next(iter(feeds.values())).shape[0]
        per_probe = []
        for number in range(probes):
            signs = {
                k: prng.signs(prng.generator(seed, "weight", number, k), packed[k].shape)
                for k in keys
            }
            own = [prng.generator(seed, "hessian", number, done + i) for i in range(full)]
            drawn = np.stack([prng.signs(g, _drawn(runner.program)) for g in own])
            found = product(packed, signs, feeds, floats, drawn)
            per_probe.append(np.asarray(found)[:count])
        traces.append(np.stack(per_probe, axis=1))
        squares = [np.asarray(squared(packed, t, feeds))[:count] for t in tables]
        errors.append(np.stack(squares, axis=1))
        done += count
        progress(done, len(samples))
    trace = np.concatenate(traces).astype(np.float64)  # [S, P, K]
    features = np.concatenate(errors).astype(np.float64).mean(0)  # [Q, K]
    mean_error = features + _weight_errors(runner, tables)
    score = np.zeros((len(rows.names), len(tables), 1))
    stderr = np.zeros_like(score)
    for i, row in enumerate(rows.members):
        members = [plan.index[m] for m in row]
        values = trace[..., members] @ mean_error[:, members].T  # [S, P, Q]
        score[i, :, 0] = np.maximum(values.mean((0, 1)), 0.0)
        # Samples share the signs of weights: only products are independent.
        stderr[i, :, 0] = values.mean(0).std(0, ddof=1) / np.sqrt(probes)
    score, notes = rows.derivable(score, "hessian")
    return SensitivityTable(
        rows=rows.names,
        kind=rows.kind,
        members=rows.members,
        candidates=rows.candidates,
        metrics=tuple(metrics),
        score=score,
        stderr=stderr,
        outputs=rows.outputs,
        method="hessian",
        samples=len(samples),
        seconds=time.perf_counter() - started,
        notes=notes,
        cost={"hessian products": float(probes)},
    )


def _drawn(program: Program) -> int:
    """Return the signs of a sample: one for each quantizer, and those that all features share."""
    assert program.plan is not None
    features = [c.tensor for c in program.plan.calibrations if not c.constant]
    largest = max((math.prod(program.shapes[name]) for name in features), default=1)
    return len(program.plan.calibrations) + largest


def _product(gates: Gates, loss: Loss | None) -> Callable[..., Array]:
    """Return samples of every block's trace, ``[S, K]``."""

    def one(
        packed: Mapping[str, Array],
        weights: Mapping[str, Array],
        feeds: Mapping[str, Array],
        floats: Mapping[str, Array],
        drawn: Array,
    ) -> Array:
        plan = gates.program.plan
        assert plan is not None

        # One drawing serves all features, each with a sign of its own in front: products of two
        # features have mean zero all the same. It is drawn on the host: a generator would be most
        # of what there is to compile.
        fronts, shared = jnp.split(drawn, [len(plan.calibrations)])
        along = {k: v.astype(packed[k].dtype) for k, v in weights.items()}

        def signs(q: int, index: int, x: Array, axis: int | None) -> Array:
            del q, axis
            taken = shared[: x.size].reshape(x.shape) * fronts[index]
            return taken.astype(x.dtype)

        def scalar(u: Array) -> Array:
            fed = {n: feeds[n] for n in gates.program.inputs}
            found = gates.outputs(u, packed, [along], signs, fed)
            if loss is not None:
                return loss(found, feeds)
            return output_error(floats)(found, feeds) / 2

        zero = jnp.zeros((1, len(plan.calibrations)), jnp.float32)
        # With signs r inside the directions, (H 1)_c = r_c' H (sum of all r): the other blocks
        # have mean zero.
        _, out = jax.jvp(jax.grad(scalar), (zero,), (jnp.ones_like(zero),))
        return out[0]

    return jax.vmap(one, in_axes=(None, None, 0, 0, 0))


def _squared_errors(gates: Gates) -> Callable[..., Array]:
    """Return the mean squared quantization error of every feature, ``[S, K]``; 0 for weights."""

    def one(packed: Mapping[str, Array], table: Table, feeds: Mapping[str, Array]) -> Array:
        plan = gates.program.plan
        assert plan is not None
        direction = error_direction(gates.program, [table])
        found = jnp.zeros(len(plan.calibrations), jnp.float32)

        def quantizer(index: int, x: Array, axis: int | None) -> Array:
            nonlocal found
            error = jnp.square(direction(0, index, x, axis))
            found = found.at[index].set(jnp.sum(error) / max(error.size, 1))
            return x

        gates.program.run(packed, quantizer, {n: feeds[n] for n in gates.program.inputs})
        return found

    return jax.vmap(one, in_axes=(None, None, 0))


def _weight_errors(runner: Runner, tables: Sequence[Table]) -> np.ndarray:
    """Return the mean squared quantization error of every weight, ``[Q, K]``; 0 for features."""
    plan = runner.program.plan
    assert plan is not None
    out = np.zeros((len(tables), len(plan.calibrations)))
    plain = runner.float_weights.weights
    for q, t in enumerate(tables):
        packed = runner.pack(t).weights
        for key, slot in runner.program.slots.items():
            if slot.calibration is not None:
                difference = np.asarray(packed[key], np.float64) - np.asarray(
                    plain[key], np.float64
                )
                out[q, slot.calibration] = np.sum(difference**2) / max(difference.size, 1)
    return out
