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

from jptq.engine.runner import Packed, Runner, SampleSet
from jptq.engine.segments import Segmented, State
from jptq.metrics import similarity
from jptq.quant.assign import Assignment, Table, Thresholds
from jptq.results.sensitivity import SensitivityTable
from jptq.sensitivity.rows import Rows, assemble, broken_notes

Progress = Callable[[int, int], None]
"""``progress(done, total)``."""

SEGMENTS = 16
"""Pieces that a network is cut into; a small one is not: whole forwards take less time than the
compilation of its pieces."""


def rank(
    runner: Runner,
    thresholds: Thresholds,
    base: Assignment,
    rows: Rows,
    samples: SampleSet,
    *,
    metrics: Sequence[str],
    segments: int | None = None,
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
      segments: Pieces that the program is cut into; `SEGMENTS`, or 1 if it is small, for None.
      progress: Called after every row.

    Returns:
      Scores, with standard error 0.
    """
    started = time.perf_counter()
    plan = runner.program.plan
    assert plan is not None
    whole = runner.program.small and not plan.strict and bool(runner.program.inputs)
    if segments is None:
        segments = 1 if whole else SEGMENTS
    sweep: _Sweep | _Whole = _Whole(runner) if segments == 1 and whole else _Sweep(runner, segments)
    tables = rows.tables(plan, thresholds, base)
    packed = [runner.pack(t).weights for t in tables]
    pairs = [(row, q) for row, q in rows.pairs]
    size = sweep.batch
    total = len(pairs) * -(-len(samples) // size)
    done = 0
    shapes = runner.program.shapes
    means: dict[tuple[int, int], dict[str, similarity.Means]] = {}
    for feeds, count in runner.batches(samples, size):
        for key, sums in sweep.run(feeds, pairs, rows, tables, packed):
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
        cost={"runs": float(len(pairs))},
        notes=broken_notes(rows, means),
    )


def _only(
    runner: Runner, calibrations: Sequence[int], on: Table, quantized: Mapping[str, Array]
) -> tuple[dict[str, Array], Table]:
    """Return the weights and the table that have some quantizers on and all others off."""
    gate = np.zeros_like(np.asarray(on.gate))
    gate[list(calibrations)] = np.asarray(on.gate)[list(calibrations)]
    chosen = set(calibrations)
    plain = runner.float_weights.weights
    weights = {
        key: (quantized if slot.owner in chosen else plain)[key]
        for key, slot in runner.program.slots.items()
    }
    return weights, dataclasses.replace(on, gate=gate)


Sums = Iterator[tuple[tuple[int, int], dict[str, Array]]]
"""``(row, candidate), {output: moments [S, 12 + 2 C]}`` of a batch."""


class _Whole:
    """One batch of samples through all rows, a forward of the whole network each.

    The float outputs run through the same program with every quantizer off.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.batch = runner.batch

    def run(
        self,
        feeds: Mapping[str, np.ndarray],
        pairs: Sequence[tuple[int, int]],
        rows: Rows,
        tables: Sequence[Table],
        packed: Sequence[Mapping[str, Array]],
    ) -> Sums:
        """Yield what every row and candidate gives."""
        runner, plan = self.runner, self.runner.program.plan
        assert plan is not None
        indices = rows.indices(plan)
        want = runner.run(Packed(*_only(runner, (), tables[0], packed[0])), feeds)
        for row, q in pairs:
            only = _only(runner, indices[row], tables[q], packed[q])
            outputs = runner.run(Packed(*only), feeds)
            shown = [n for n in rows.outputs if n in rows.reached[row]]
            yield (row, q), {n: similarity.compare(want[n], outputs[n]) for n in shown}


class _Sweep:
    """One batch of samples through all rows."""

    def __init__(self, runner: Runner, segments: int) -> None:
        self.runner = runner
        self.pieces = runner.compilations.once(
            ("segments", segments), lambda: Segmented(runner.program, segments, runner.compilations)
        )
        self.batch = runner.batch_for(self.pieces.bytes_per_sample)

    def run(
        self,
        feeds: Mapping[str, np.ndarray],
        pairs: Sequence[tuple[int, int]],
        rows: Rows,
        tables: Sequence[Table],
        packed: Sequence[Mapping[str, Array]],
    ) -> Sums:
        """Yield what every row and candidate gives."""
        floats = self.runner.float_weights
        prefixes = self.pieces.prefixes(floats, feeds)
        plan = self.runner.program.plan
        assert plan is not None
        indices = rows.indices(plan)
        work = sorted(
            ((self.pieces.span(indices[row]), row, q) for row, q in pairs),
            key=lambda item: (item[0][1], item[0][0], item[1], item[2]),
        )
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
        weights, table_on = _only(self.runner, calibrations, on, quantized)
        state = prefixes[first]
        for index in range(first, last + 1):
            state = self.pieces.run_quantized(index, weights, table_on, state)
        return state
