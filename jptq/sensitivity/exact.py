"""Exact sensitivity: quantize only one thing, run the rest in float, compare the outputs.

Everything before the perturbation comes from a cache, everything after it runs in float programs
that several rows share. The float outputs to compare with run through the same programs, so that a
row without effect scores exactly none. The numbers are those of `naive`, up to values on a rounding
boundary.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from jax import Array

from jptq.engine.runner import Runner, SampleSet
from jptq.engine.segments import Segmented, State
from jptq.metrics import similarity
from jptq.quant.assign import Assignment, Table, Thresholds
from jptq.results.sensitivity import SensitivityTable
from jptq.sensitivity.rows import Rows, assemble, broken_notes

Progress = Callable[[int, int], None]
"""``progress(done, total)``."""

SEGMENTS = 16


def rank(
    runner: Runner,
    thresholds: Thresholds,
    base: Assignment,
    rows: Rows,
    samples: SampleSet,
    *,
    metrics: Sequence[str],
    segments: int = SEGMENTS,
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
    tables = rows.tables(plan, thresholds, base)
    packed = [runner.pack(t).weights for t in tables]
    work = sorted(
        ((pieces.span(rows.indices(plan)[row]), row, q) for row, q in rows.pairs),
        key=lambda item: (item[0][1], item[0][0], item[1], item[2]),
    )
    size = runner.batch_for(pieces.bytes_per_sample)
    sweep = _Sweep(runner, pieces)
    total = len(work) * -(-len(samples) // size)
    done = 0
    shapes = runner.program.shapes
    means: dict[tuple[int, int], dict[str, similarity.Means]] = {}
    for feeds, count in runner.batches(samples, size):
        for key, sums in sweep.run(feeds, work, rows, tables, packed):
            into = means.setdefault(key, {})
            for name, moments in sums.items():
                if name not in into:
                    into[name] = similarity.Means(metrics, int(np.prod(shapes[name])))
                # Running ahead of the device would hold the states of every row at once.
                into[name].add(np.asarray(moments)[:count])
            done += 1
            progress(done, total)
    return assemble(
        rows,
        {key: {n: one.values() for n, one in by.items()} for key, by in means.items()},
        metrics,
        method="metric",
        samples=len(samples),
        seconds=time.perf_counter() - started,
        cost={"runs": float(len(work))},
        notes=broken_notes(rows, means),
    )


class _Sweep:
    """One batch of samples through all rows."""

    def __init__(self, runner: Runner, pieces: Segmented) -> None:
        self.runner = runner
        self.pieces = pieces

    def run(
        self,
        feeds: Mapping[str, np.ndarray],
        work: Sequence[tuple[tuple[int, int], int, int]],
        rows: Rows,
        tables: Sequence[Table],
        packed: Sequence[Mapping[str, Array]],
    ) -> Iterator[tuple[tuple[int, int], dict[str, Array]]]:
        """Yield ``(row, candidate), {output: moments [S, 12 + 2 C]}``."""
        floats = self.runner.float_weights
        prefixes = self.pieces.prefixes(floats, feeds)
        plan = self.runner.program.plan
        assert plan is not None
        indices = rows.indices(plan)
        for stop, group in itertools.groupby(work, lambda item: self.pieces.stop(item[0][1])):
            want = self.pieces.run_rest(stop, floats, prefixes[stop])
            for (first, last), row, q in group:
                state = self._perturb(prefixes, first, last, indices[row], tables[q], packed[q])
                for index in range(last + 1, stop):
                    state = self.pieces.run_float(index, floats, state)
                outputs = self.pieces.run_rest(stop, floats, state)
                shown = [n for n in rows.outputs if n in rows.reached[row]]
                yield (row, q), {n: similarity.compare(want[n], outputs[n]) for n in shown}

    def _perturb(
        self,
        prefixes: Sequence[State],
        first: int,
        last: int,
        calibrations: Sequence[int],
        on: Table,
        quantized: Mapping[str, Array],
    ) -> State:
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
        return state
