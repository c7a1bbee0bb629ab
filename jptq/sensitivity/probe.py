"""Sensitivity of every quantizer and candidate from a few backward passes.

For a random sign vector v over the outputs, one backward pass gives ``a_c = v . e_c`` for every
quantizer c, where ``e_c`` is the first-order effect of c on the outputs; ``E[a_c^2] = |e_c|^2`` is
its squared error. Quantizers of one node add before squaring. Source: design 5; the estimator is
Hutchinson's (Communications in Statistics 18, 1989) applied to ``e_c e_c'``.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy import stats

from jptq import prng
from jptq.engine import memory
from jptq.engine.runner import Runner, SampleSet
from jptq.errors import UnknownNameError
from jptq.quant.assign import Assignment, Table, Thresholds
from jptq.results.sensitivity import SensitivityTable
from jptq.sensitivity.gates import Gates, error_direction, quantization_errors
from jptq.sensitivity.rows import Rows

PROBES = 16
ROUND = 4
"""Probes per program run: they share one forward pass."""

SETTLED = 0.998
"""Rank correlation of two halves of the probes at which no more are drawn."""

METRICS = ("mse", "cosine-similarity")


def rank(
    runner: Runner,
    thresholds: Thresholds,
    base: Assignment,
    rows: Rows,
    samples: SampleSet,
    *,
    metrics: Sequence[str] = ("mse",),
    probes: int = PROBES,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> SensitivityTable:
    """Estimate the scores of every row and candidate.

    Args:
      runner: Of the calibrated graph.
      thresholds: Of every calibration.
      base: What rows hold under the candidate ``current``.
      rows: What to score.
      samples: S samples.
      metrics: Of `METRICS`.
      probes: Largest number of sign vectors per sample; fewer are drawn once the order settles.
      seed: Of the signs.
      progress: Called after every program run.

    Returns:
      Scores with their standard errors over probes.

    Raises:
      UnknownNameError: A metric that probes cannot estimate.
    """
    started = time.perf_counter()
    for name in metrics:
        if name not in METRICS:
            raise UnknownNameError("metric for --method=probe", name, METRICS)
    plan = runner.program.plan
    assert plan is not None
    tables = [jax.tree.map(jnp.asarray, t) for t in rows.tables(plan, thresholds, base)]
    weights = quantization_errors(runner, tables)
    gates = Gates(runner.program, len(tables))
    outputs = [name for name in rows.outputs if name in runner.program.outputs]
    aligned = "cosine-similarity" in metrics
    # As many unit vectors as there are output elements give the squares without any chance.
    elements = sum(int(np.prod(runner.program.shapes[name])) for name in outputs)
    basis = elements if elements <= min(probes, PROBES) else 0
    # Vectors that are pulled back together share one pass; each of them takes its own room.
    vectors = max(ROUND, len(outputs)) if aligned else ROUND
    at_once = memory.backward(runner.program, len(tables), vectors)
    together = runner.fits(at_once)
    backward = runner.compilations.once(
        ("probe", len(tables), tuple(outputs), aligned, probes, together),
        lambda: runner.compilations.jit(
            "probe", _backward(gates, outputs, aligned=aligned, basis=basis, together=together)
        ),
    )
    packed = runner.float_weights.weights
    rounds = -(-basis // ROUND) if basis else max(1, probes // ROUND)
    size = runner.batch_for(at_once)
    batches = -(-len(samples) // size)
    found: list[_Probed] = []
    drawn = 0
    for number in range(rounds):
        parts: list[_Probed] = []
        seen = 0
        for feeds, count in runner.batches(samples, size):
            full = next(iter(feeds.values())).shape[0]
            keys = jnp.stack([prng.key(seed, "probe", number, seen + i) for i in range(full)])
            seen += count
            pulled = backward(packed, weights, tables, feeds, keys, np.int32(drawn))
            parts.append({name: np.asarray(value)[:count] for name, value in pulled.items()})
            progress(len(parts) + number * batches, rounds * batches)
        found.append({k: np.concatenate([p[k] for p in parts]) for k in parts[0]})
        drawn += ROUND
        if not basis and number % 2 and _settled(found, rows, plan.index):
            break
    score, stderr = _scores(found, rows, plan.index, metrics)
    if basis:
        stderr = np.zeros_like(stderr)
    return SensitivityTable(
        rows=rows.names,
        kind=rows.kind,
        members=rows.members,
        candidates=rows.candidates,
        metrics=tuple(metrics),
        score=score,
        stderr=stderr,
        outputs=rows.outputs,
        method="probe",
        samples=len(samples),
        seconds=time.perf_counter() - started,
        cost={"probes": float(drawn)},
    )


_Probed = dict[str, np.ndarray]
"""``mse``: float[S, P, Q, K]; for the cosine also ``cosine-similarity``, of the same shape, and
``aligned``: float[S, O, Q, K]."""


def _backward(
    gates: Gates, outputs: Sequence[str], *, aligned: bool, basis: int, together: bool
) -> Callable[..., dict[str, Array]]:
    """Return the program that pulls sign vectors back to the gates, over a batch of samples.

    Args:
      gates: The network.
      outputs: What is compared.
      aligned: Pull back what the cosine needs too: its signs, and ``y/|y|`` of each output.
      basis: Number of output elements if unit vectors take the place of random signs, else 0.
      together: Pull the vectors of a round back in one pass; else one after the other.
    """
    spread = jax.vmap if together else lambda pulled: functools.partial(jax.lax.map, pulled)

    def one(
        packed: Mapping[str, Array],
        weights: Sequence[Mapping[str, Array]],
        tables: Sequence[Table],
        feeds: Mapping[str, Array],
        key: Array,
        first: Array,
    ) -> dict[str, Array]:
        plan = gates.program.plan
        assert plan is not None

        def network(u: Array) -> dict[str, Array]:
            found = gates.outputs(u, packed, weights, error_direction(gates.program, tables), feeds)
            return {name: found[name] for name in outputs}

        u = jnp.zeros((gates.candidates, len(plan.calibrations)), jnp.float32)
        y, pull = jax.vjp(network, u)
        norms = {n: jnp.sqrt(jnp.sum(v * v)) for n, v in y.items()}
        safe = {n: jnp.where(norm > 0, norm, 1.0) for n, norm in norms.items()}
        one_output = len(outputs) == 1

        def signs(k: Array, scales: Mapping[str, Array]) -> dict[str, Array]:
            if basis:
                return units(k, scales)
            split = jax.random.split(k, len(outputs))
            return {
                n: jax.random.rademacher(split[i], y[n].shape, y[n].dtype) * scales[n]
                for i, n in enumerate(outputs)
            }

        def units(number: Array, scales: Mapping[str, Array]) -> dict[str, Array]:
            # Scaled so that the mean over all vectors drawn is the sum over the elements.
            scale = np.sqrt(-(-basis // ROUND) * ROUND)
            out, start = {}, 0
            for n in outputs:
                hot = jax.nn.one_hot(number - start, y[n].size, dtype=y[n].dtype)
                out[n] = hot.reshape(y[n].shape) * scales[n] * jnp.asarray(scale, y[n].dtype)
                start += y[n].size
            return out

        keys = first + jnp.arange(ROUND, dtype=jnp.int32) if basis else jax.random.split(key, ROUND)
        sizes = {n: jnp.asarray(1.0 / np.sqrt(max(v.size, 1)), v.dtype) for n, v in y.items()}
        mse = spread(lambda k: pull(signs(k, sizes))[0])(keys)
        out = {"mse": mse}
        if not aligned:
            return out
        name = outputs[0]
        if one_output:
            # With one output the two scalings differ by a factor.
            out["cosine-similarity"] = mse * (1.0 / safe[name] / sizes[name])
        else:
            inverse = {n: 1.0 / s for n, s in safe.items()}
            out["cosine-similarity"] = spread(lambda k: pull(signs(k, inverse))[0])(keys)
        directions = {n: v / safe[n] ** 2 for n, v in y.items()}
        # One pull in a map: written out per output, a network of many would compile for minutes.
        out["aligned"] = spread(
            lambda hot: pull(
                {n: d * hot[i].astype(d.dtype) for i, (n, d) in enumerate(directions.items())}
            )[0]
        )(jnp.eye(len(outputs), dtype=jnp.float32))
        return out

    def batch(
        packed: Mapping[str, Array],
        weights: Sequence[Mapping[str, Array]],
        tables: Sequence[Table],
        feeds: Mapping[str, Array],
        keys: Array,
        first: Array,
    ) -> dict[str, Array]:
        return jax.vmap(lambda f, k: one(packed, weights, tables, f, k, first))(feeds, keys)

    return batch


def _rows(values: np.ndarray, rows: Rows, index: Mapping[str, int]) -> np.ndarray:
    """Add the quantizers of each row: ``[..., Q, K] -> [..., N, Q]``."""
    out = np.stack(
        [
            values[..., [index[m] for m in members]].sum(-1, dtype=np.float64)
            for members in rows.members
        ],
        axis=-2,
    )
    return np.asarray(out)


def _scores(
    found: Sequence[_Probed], rows: Rows, index: Mapping[str, int], metrics: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    shape = (len(rows.names), len(rows.candidates), len(metrics))
    score, stderr = np.full(shape, np.nan), np.zeros(shape)
    reached = np.asarray([len(r) for r in rows.reached], np.float64)[:, None]
    for m, name in enumerate(metrics):
        squares = np.concatenate([_rows(f[name], rows, index) ** 2 for f in found], axis=1)
        samples, probes = squares.shape[:2]
        mean = squares.mean((0, 1)) / reached
        spread = np.sqrt(squares.var(1, ddof=1).sum(0) / probes) / samples / reached
        if name == "cosine-similarity":
            aligned = (_rows(found[0]["aligned"], rows, index) ** 2).sum(1).mean(0) / reached
            score[..., m], stderr[..., m] = 1.0 - np.maximum(mean - aligned, 0.0) / 2, spread / 2
        else:
            score[..., m], stderr[..., m] = mean, spread
    score[~rows.accepted] = np.nan
    return score, stderr


def _settled(found: Sequence[_Probed], rows: Rows, index: Mapping[str, int]) -> bool:
    """Tell whether two halves of the probes order the rows alike, under the first candidate."""
    squares = np.concatenate([_rows(f["mse"], rows, index)[..., 0] ** 2 for f in found], axis=1)
    first, second = (squares[:, half::2].mean((0, 1)) for half in (0, 1))
    # Each half has half of the probes: its own error is larger than that of the whole.
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return False  # no order to compare
    return float(stats.spearmanr(first, second).statistic) >= SETTLED
