"""The oracle of the exact sweep: one full forward per row, nothing shared, nothing cached."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import numpy as np

from jptq.engine import memory
from jptq.engine.runner import Runner, SampleSet
from jptq.metrics import similarity
from jptq.quant.assign import Assignment, Thresholds
from jptq.results.sensitivity import SensitivityTable
from jptq.sensitivity.exact import Progress
from jptq.sensitivity.rows import Rows, assemble, broken_notes


def rank(
    runner: Runner,
    thresholds: Thresholds,
    base: Assignment,
    rows: Rows,
    samples: SampleSet,
    *,
    metrics: Sequence[str],
    progress: Progress = lambda done, total: None,
) -> SensitivityTable:
    """Score every row and candidate; arguments and result as `exact.rank`."""
    started = time.perf_counter()
    plan = runner.program.plan
    assert plan is not None
    tables = rows.tables(plan, thresholds, base)
    indices = rows.indices(plan)
    shapes = runner.program.shapes
    means: dict[tuple[int, int], dict[str, similarity.Means]] = {}
    # The reference comes from the same program: two programs of one network differ in their last
    # bits, and that would count as the effect of a node that hardly has one.
    off = dataclasses.replace(tables[0], gate=np.zeros_like(np.asarray(tables[0].gate)))
    plain = runner.pack(off)
    kept = memory.keeps(runner.program, runner.program.outputs, len(samples))
    floats = [out for _, out in runner.outputs(plain, samples)] if kept else None
    for done, (row, q) in enumerate(rows.pairs):
        gate = np.zeros_like(np.asarray(tables[q].gate))
        gate[list(indices[row])] = np.asarray(tables[q].gate)[list(indices[row])]
        packed = runner.pack(dataclasses.replace(tables[q], gate=gate))
        sums = {n: similarity.Means(metrics, int(np.prod(shapes[n]))) for n in rows.reached[row]}
        references = floats or (out for _, out in runner.outputs(plain, samples))
        outputs = runner.outputs(packed, samples)
        for (count, out), reference in zip(outputs, references, strict=True):
            for name, into in sums.items():
                into.add(np.asarray(similarity.compare(reference[name], out[name]))[:count])
        means[row, q] = sums
        progress(done + 1, len(rows.pairs))
    return assemble(
        rows,
        {key: {n: one.values() for n, one in by.items()} for key, by in means.items()},
        metrics,
        method="metric",
        samples=len(samples),
        seconds=time.perf_counter() - started,
        cost={"runs": float(len(rows.pairs))},
        notes=broken_notes(rows, means),
    )
