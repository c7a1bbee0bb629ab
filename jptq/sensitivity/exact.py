"""Exact sensitivity: quantize only one thing, run the rest in float, compare the outputs.

Everything before the perturbation comes from a cache, everything after it runs in float programs
that several rows share. The numbers are those of `naive`, up to values on a rounding boundary.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jptq.engine.runner import Runner, SampleSet
from jptq.engine.segments import Segmented, State
from jptq.metrics import similarity
from jptq.quant.assign import Assignment, Table, Thresholds
from jptq.results.sensitivity import SensitivityTable
from jptq.sensitivity.rows import Rows, assemble

Progress = Callable[[int, int], None]
"""``progress(done, total)``."""

SEGMENTS = 16
LANES = 2


@dataclasses.dataclass
class _Lane:
    row: int
    candidate: int
    state: State


def rank(
    runner: Runner,
    thresholds: Thresholds,
    base: Assignment,
    rows: Rows,
    samples: SampleSet,
    *,
    metrics: Sequence[str],
    segments: int = SEGMENTS,
    lanes: int = LANES,
    progress: Progress = lambda done, total: None,
) -> SensitivityTable:
    """Score every row and candidate over all samples.

    Args:
      runner: Of the calibrated graph.
      thresholds: Of every calibration.
      base: What rows hold under the candidate ``current``.
      rows: What to switch on, under which candidates, compared at which outputs.
      samples: S samples; memory does not depend on S.
      metrics: M names.
      segments: Pieces that the program is cut into.
      lanes: Rows that share a float program run.
      progress: Called after every row.

    Returns:
      Scores, with standard error 0.
    """
    started = time.perf_counter()
    plan = runner.program.plan
    assert plan is not None
    pieces = runner.compilations.once(
        ("segments", segments), lambda: Segmented(runner.program, segments, runner.compilations)
    )
    sweep = _Sweep(runner, pieces, lanes)
    tables = rows.tables(plan, thresholds, base)
    packed = [runner.pack(t).weights for t in tables]
    work = sorted(
        ((pieces.span(rows.indices(plan)[row]), row, q) for row, q in rows.pairs),
        key=lambda item: (item[0][1], item[0][0], item[1], item[2]),
    )
    size = runner.batch_for(pieces.bytes_per_sample(lanes))
    total = len(work) * -(-len(samples) // size)
    done = 0
    collected = []
    for feeds, count in runner.batches(samples, size):
        found: dict[tuple[int, int], dict[str, Array]] = {}
        for finished, result in sweep.run(feeds, work, rows, tables, packed):
            found.update(result)
            # Running ahead of the device would hold the states of every lane at once.
            jax.block_until_ready(result)
            done += finished
            progress(done, total)
        collected.append(
            {k: {n: np.asarray(v)[:count] for n, v in m.items()} for k, m in found.items()}
        )
    moments = {
        key: {n: np.concatenate([c[key][n] for c in collected]) for n in collected[0][key]}
        for key in collected[0]
    }
    return assemble(
        rows,
        moments,
        runner.program.shapes,
        metrics,
        method="metric",
        samples=len(samples),
        seconds=time.perf_counter() - started,
        cost={"runs": float(len(work))},
    )


@functools.cache
def _moments() -> Callable[[Array, Array], Array]:
    """Return the comparison of ``[S, ...]`` with ``[L, S, ...]``; one for all sweeps."""
    return similarity.jitted(jax.vmap(jax.vmap(similarity.moments, (0, 0)), (None, 0)))


class _Sweep:
    """One batch of samples through all rows."""

    def __init__(self, runner: Runner, pieces: Segmented, lanes: int) -> None:
        self.runner = runner
        self.pieces = pieces
        self.lanes = lanes

    def run(
        self,
        feeds: Mapping[str, np.ndarray],
        work: Sequence[tuple[tuple[int, int], int, int]],
        rows: Rows,
        tables: Sequence[Table],
        packed: Sequence[Mapping[str, Array]],
    ) -> Iterator[tuple[int, dict[tuple[int, int], dict[str, Array]]]]:
        """Yield ``(rows finished, {(row, candidate): {output: moments [S, 7 + 2 C]}})``."""
        prefixes = self.pieces.prefixes(self.runner.float_weights, feeds, self.lanes)
        floats = prefixes[-1]
        plan = self.runner.program.plan
        assert plan is not None
        indices = rows.indices(plan)
        waiting: list[_Lane] = []
        queue = deque(work)
        for segment in range(len(self.pieces)):
            # Lanes left over from earlier segments come this far, to be joined by the new ones.
            if waiting:
                waiting = self._advance(segment, waiting)
            while queue and queue[0][0][1] == segment:
                (first, last), row, q = queue.popleft()
                waiting.append(
                    self._perturb(prefixes, first, last, row, q, indices[row], tables[q], packed[q])
                )
                if len(waiting) == self.lanes:
                    yield len(waiting), self._finish(segment + 1, waiting, floats, rows)
                    waiting = []
        if waiting:
            yield len(waiting), self._finish(len(self.pieces), waiting, floats, rows)

    def _perturb(
        self,
        prefixes: Sequence[State],
        first: int,
        last: int,
        row: int,
        candidate: int,
        calibrations: Sequence[int],
        on: Table,
        quantized: Mapping[str, Array],
    ) -> _Lane:
        """Run the segments that hold a row's quantizers, all other quantizers off."""
        gate = np.zeros_like(np.asarray(on.gate))
        gate[list(calibrations)] = np.asarray(on.gate)[list(calibrations)]
        table_on = dataclasses.replace(on, gate=gate)
        chosen = set(calibrations)
        plain = self.runner.float_weights.weights
        weights = {
            key: (quantized if slot.calibration in chosen else plain)[key]
            for key, slot in self.runner.program.slots.items()
        }
        state = prefixes[first]
        for index in range(first, last + 1):
            state = self.pieces.run_quantized(index, weights, table_on, state)
        return _Lane(row, candidate, state)

    def _join(self, lanes: Sequence[_Lane], names: Sequence[str]) -> State:
        """Lay lanes side by side along the samples; a missing one repeats the last."""
        full = [*lanes, *[lanes[-1]] * (self.lanes - len(lanes))]
        return {n: jnp.concatenate([lane.state[n] for lane in full]) for n in names}

    def _advance(self, segment: int, lanes: Sequence[_Lane]) -> list[_Lane]:
        """Run one float segment on lanes that have to wait for others behind it."""
        joined = self._join(lanes, self.pieces.segments[segment].live_in)
        out = self.pieces.run_float(segment, self.runner.float_weights, joined)
        return [
            _Lane(lane.row, lane.candidate, {n: _share(v, i, self.lanes) for n, v in out.items()})
            for i, lane in enumerate(lanes)
        ]

    def _finish(
        self, segment: int, lanes: Sequence[_Lane], floats: State, rows: Rows
    ) -> dict[tuple[int, int], dict[str, Array]]:
        """Run the remaining float segments on lanes together, and compare."""
        state: State = self._join(lanes, tuple(lanes[0].state))
        for later in range(segment, len(self.pieces)):
            state = self.pieces.run_float(later, self.runner.float_weights, state)
        out: dict[tuple[int, int], dict[str, Array]] = {(x.row, x.candidate): {} for x in lanes}
        for name in rows.outputs:
            shape = (self.lanes, *floats[name].shape)
            sums = _moments()(floats[name], state[name].reshape(shape))
            for i, lane in enumerate(lanes):
                if name in rows.reached[lane.row]:
                    out[lane.row, lane.candidate][name] = sums[i]
        return out


def _share(joined: Array, lane: int, lanes: int) -> Array:
    """Return one lane's samples."""
    size = joined.shape[0] // lanes
    return joined[lane * size : (lane + 1) * size]
