"""First-order sensitivity: the derivative of a loss along each quantization error.

``<g, d_c>`` with g the gradient of the loss and ``d_c = Q(x) - x`` predicts how much the loss rises
(``taylor``: mean of its absolute value over samples); its square is the empirical Fisher score
(``fisher``). Sources: Molchanov et al. 2019, arXiv:1906.10771 (Taylor); Kim et al. 2023,
arXiv:2306.07629 (Fisher).

With a loss of the user the derivative is taken at the float network. The default loss is the mean
squared output error, whose gradient vanishes there: it is taken at the quantized network, where it
is the share of each quantizer in the whole error, interactions included.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jptq.engine import memory
from jptq.engine.runner import Runner, SampleSet
from jptq.errors import UnknownNameError
from jptq.quant.assign import Assignment, Table, Thresholds
from jptq.results.sensitivity import SensitivityTable
from jptq.sensitivity.gates import Gates, error_direction, quantization_errors
from jptq.sensitivity.losses import Loss, output_error
from jptq.sensitivity.rows import Rows

METRICS = ("taylor", "fisher")


def rank(
    runner: Runner,
    thresholds: Thresholds,
    base: Assignment,
    rows: Rows,
    samples: SampleSet,
    *,
    metrics: Sequence[str] = METRICS,
    loss: Loss | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> SensitivityTable:
    """Score every row and candidate from one backward pass per sample.

    Args:
      runner: Of the calibrated graph.
      thresholds: Of every calibration.
      base: What rows hold under the candidate ``current``.
      rows: What to score.
      samples: S samples.
      metrics: Of `METRICS`.
      loss: ``loss(outputs, feeds) -> scalar`` of one sample, or None for the output error.
      progress: Called after every batch.

    Raises:
      UnknownNameError: A metric that this method does not give.
    """
    started = time.perf_counter()
    for name in metrics:
        if name not in METRICS:
            raise UnknownNameError("metric for --method=gradient", name, METRICS)
    plan = runner.program.plan
    assert plan is not None
    tables = jax.device_put(rows.tables(plan, thresholds, base))
    weights = quantization_errors(runner, tables)
    gates = Gates(runner.program, len(tables))
    backward = runner.compilations.once(
        ("gradient", len(tables), loss),
        lambda: runner.compilations.jit("gradient", _backward(gates, loss)),
    )
    # The default loss needs a quantized base point: the first candidate's.
    packed = (runner.float_weights if loss is not None else runner.pack(tables[0])).weights
    found = []
    done = 0
    size = runner.batch_for(memory.backward(runner.program, len(tables), 1))
    for feeds, count in runner.batches(samples, size):
        floats = runner.run(runner.float_weights, feeds)
        found.append(np.asarray(backward(packed, weights, tables, feeds, floats))[:count])
        done += count
        progress(done, len(samples))
    slopes = np.concatenate(found)
    by_row = np.stack(
        [
            slopes[..., [plan.index[m] for m in row]].sum(-1, dtype=np.float64)
            for row in rows.members
        ],
        axis=1,
    )
    values = {"taylor": np.abs(by_row), "fisher": by_row**2}
    score = np.stack([values[name].mean(0) for name in metrics], axis=-1)
    score, notes = rows.derivable(score, "gradient")
    return SensitivityTable(
        rows=rows.names,
        kind=rows.kind,
        members=rows.members,
        candidates=rows.candidates,
        metrics=tuple(metrics),
        score=score,
        stderr=np.zeros_like(score),  # nothing is drawn
        outputs=rows.outputs,
        method="gradient",
        samples=len(samples),
        seconds=time.perf_counter() - started,
        notes=notes,
        cost={"backward passes": 1.0},
    )


def _backward(gates: Gates, loss: Loss | None) -> Callable[..., Array]:
    def one(
        packed: Mapping[str, Array],
        weights: Sequence[Mapping[str, Array]],
        tables: Sequence[Table],
        feeds: Mapping[str, Array],
        floats: Mapping[str, Array],
    ) -> Array:
        plan = gates.program.plan
        assert plan is not None

        def scalar(u: Array) -> Array:
            found = gates.outputs(
                u,
                packed,
                weights,
                error_direction(gates.program, tables),
                {n: feeds[n] for n in gates.program.inputs},
                base=None if loss is not None else tables[0],
            )
            return output_error(floats)(found, feeds) if loss is None else loss(found, feeds)

        return jax.grad(scalar)(jnp.zeros((gates.candidates, len(plan.calibrations)), jnp.float32))

    return jax.vmap(one, in_axes=(None, None, None, 0, 0))
