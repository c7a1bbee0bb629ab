"""Sensitivity of every quantizer and candidate from a few backward passes.

For a random sign vector v over the outputs, one backward pass gives ``a_c = v . e_c`` for every
quantizer c, where ``e_c`` is the first-order effect of c on the outputs; ``E[a_c^2] = |e_c|^2`` is
its squared error. Quantizers of one node add before squaring. Source: design 5; the estimator is
Hutchinson's (Communications in Statistics 18, 1989) applied to ``e_c e_c'``. Where a few numbers
tell what becomes of the outputs (`readings`), these are pulled back instead of signs.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jptq.engine.program import Program
from jptq.engine.runner import Runner, SampleSet
from jptq.errors import UnknownNameError
from jptq.metrics.ranks import spearman
from jptq.quant.assign import Assignment, Table, Thresholds
from jptq.results.sensitivity import SensitivityTable
from jptq.sensitivity import readings
from jptq.sensitivity.backward import ROUND, Backward, Pulled
from jptq.sensitivity.gates import error_direction
from jptq.sensitivity.readings import Effects, Readings
from jptq.sensitivity.rows import Rows

PROBES = 16

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
      probes: Largest number of vectors per sample; fewer signs are drawn once the order settles.
      seed: Of the signs.
      progress: Called after every program run.

    Returns:
      Scores with their standard errors over probes; 0 where nothing was drawn by chance.

    Raises:
      UnknownNameError: A metric that probes cannot estimate.
    """
    started = time.perf_counter()
    for name in metrics:
        if name not in METRICS:
            raise UnknownNameError("metric for --method=probe", name, METRICS)
    plan = runner.program.plan
    assert plan is not None
    tables = jax.device_put(rows.tables(plan, thresholds, base))
    outputs = [name for name in rows.outputs if name in runner.program.outputs]
    backward = Backward(runner, tables, outputs, progress)
    floats = _floats(runner, samples, outputs)
    read = readings.choose(runner.program, outputs, floats, probes, few=min(probes, PROBES))
    if read is None:
        aligned = "cosine-similarity" in metrics
        drawn, found = _draw(backward, rows, plan.index, samples, aligned, probes, seed)
        score, stderr = _scores(found, rows, plan.index, metrics)
    else:
        drawn = read.count
        pulled = backward.given(samples, read)
        powers, errors = _behind(runner, tables, outputs, samples, read)
        effects = _added(read, pulled, errors, outputs, rows, runner.program)
        score = _known(effects, powers, rows, runner.program, metrics)
        stderr = np.zeros_like(score)
    score, notes = rows.derivable(score, "probe")
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
        notes=notes,
        cost={"probes": float(drawn)},
    )


def _draw(
    backward: Backward,
    rows: Rows,
    index: Mapping[str, int],
    samples: SampleSet,
    aligned: bool,
    probes: int,
    seed: int,
) -> tuple[int, list[Pulled]]:
    """Draw signs until the order settles; return how many, and what they gave."""
    rounds = max(1, probes // ROUND)
    found: list[Pulled] = []
    for number in range(rounds):
        found.append(backward.signs(samples, number, rounds, seed, aligned=aligned))
        if number % 2 and _settled(found, rows, index):
            break
    return len(found) * ROUND, found


def _floats(
    runner: Runner, samples: SampleSet, outputs: Sequence[str]
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the float outputs of each sample."""
    for count, found in runner.outputs(runner.float_weights, samples):
        host = {name: np.asarray(found[name]) for name in outputs}
        for s in range(count):
            yield {name: y[s] for name, y in host.items()}


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
    found: Sequence[Pulled], rows: Rows, index: Mapping[str, int], metrics: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    shape = (len(rows.names), len(rows.candidates), len(metrics))
    score, stderr = np.full(shape, np.nan), np.zeros(shape)
    averaged = rows.averaged[:, None]
    for m, name in enumerate(metrics):
        squares = np.concatenate([_rows(f[name], rows, index) ** 2 for f in found], axis=1)
        samples, probes = squares.shape[:2]
        mean = squares.mean((0, 1)) / averaged
        spread = np.sqrt(squares.var(1, ddof=1).sum(0) / probes) / samples / averaged
        if name == "cosine-similarity":
            aligned = (_rows(found[0]["aligned"], rows, index) ** 2).sum(1).mean(0) / averaged
            score[..., m], stderr[..., m] = 1.0 - np.maximum(mean - aligned, 0.0) / 2, spread / 2
        else:
            score[..., m], stderr[..., m] = mean, spread
    return score, stderr


def _behind(
    runner: Runner,
    tables: Sequence[Table],
    outputs: Sequence[str],
    samples: SampleSet,
    read: Readings,
) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Return ``|y|^2 [S, O]``, and what each quantizer behind the readings does to its output.

    That is ``float64[S, Q, 2]``: squared error, and its product with the output.
    """
    plan = runner.program.plan
    assert plan is not None
    powers: list[list[float]] = []
    errors: dict[int, list[list[tuple[float, float]]]] = {index: [] for index in read.behind}
    for found in _floats(runner, samples, outputs):
        exact = {name: y.astype(np.float64) for name, y in found.items()}
        powers.append([float((y * y).sum()) for y in exact.values()])
        for index, name in read.behind.items():
            program = runner.compilations.once(
                ("behind", len(tables), index), functools.partial(_rounding, runner, index)
            )
            off = np.asarray(program(tables, found[name]))
            errors[index].append(
                [(float((e * e).sum()), float((e * exact[name]).sum())) for e in off]
            )
    return np.asarray(powers), {index: np.asarray(e) for index, e in errors.items()}


def _rounding(runner: Runner, index: int) -> Callable[[Sequence[Table], np.ndarray], Array]:
    """Return the program that gives what a quantizer does to a tensor, ``[Q, *shape]``."""
    plan = runner.program.plan
    assert plan is not None
    axis = plan.calibrations[index].axis

    def errors(tables: Sequence[Table], y: Array) -> Array:
        direction = error_direction(runner.program, tables)
        return jnp.stack([direction(q, index, y, axis) for q in range(len(tables))])

    return runner.compilations.jit("rounding", errors)


def _added(
    read: Readings,
    pulled: np.ndarray,
    errors: Mapping[int, np.ndarray],
    outputs: Sequence[str],
    rows: Rows,
    program: Program,
) -> Effects:
    """Return the effects of changes ``[S, R, Q, K]`` and of the quantizers behind the readings.

    Rounding an output adds to what comes from before it: neither knows the other.
    """
    plan = program.plan
    assert plan is not None
    before = pulled.copy()
    before[..., list(errors)] = 0.0
    effects = read.effects(_rows(before, rows, plan.index))
    squares, along = effects.squares.copy(), effects.along.copy()
    for index, error in errors.items():
        name, o = plan.calibrations[index].name, outputs.index(read.behind[index])
        for n, members in enumerate(rows.members):
            if name in members:
                squares[:, o, n] += error[..., 0]
                along[:, o, n] += error[..., 1]
    return Effects(squares, along)


def _known(
    effects: Effects, powers: np.ndarray, rows: Rows, program: Program, metrics: Sequence[str]
) -> np.ndarray:
    """Return the scores ``[N, Q, M]`` of effects that are known, not sampled."""
    averaged = rows.averaged[:, None]
    shown = [name for name in rows.outputs if name in program.outputs]
    sizes = np.asarray([max(math.prod(program.shapes[n]), 1) for n in shown])
    sizes = sizes[None, :, None, None]
    power = np.where(powers > 0, powers, 1.0)[..., None, None]
    score = np.full((len(rows.names), len(rows.candidates), len(metrics)), np.nan)
    for m, name in enumerate(metrics):
        if name == "cosine-similarity":
            across = effects.squares / power - (effects.along / power) ** 2
            lost = np.maximum(across, 0.0).sum(1).mean(0) / averaged / 2
            score[..., m] = 1.0 - lost
        else:
            score[..., m] = (effects.squares / sizes).sum(1).mean(0) / averaged
    return score


def _settled(found: Sequence[Pulled], rows: Rows, index: Mapping[str, int]) -> bool:
    """Tell whether two halves of the probes order the rows alike, under the first candidate."""
    squares = np.concatenate([_rows(f["mse"], rows, index)[..., 0] ** 2 for f in found], axis=1)
    first, second = (squares[:, half::2].mean((0, 1)) for half in (0, 1))
    # Each half has half of the probes: its own error is larger than that of the whole.
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return False  # no order to compare
    return spearman(first, second) >= SETTLED
