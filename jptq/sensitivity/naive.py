"""The oracle of the exact sweep: one full forward per row, nothing shared, nothing cached."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import numpy as np

from jptq.engine.runner import Runner, SampleSet
from jptq.metrics import similarity
from jptq.quant.assign import Assignment, Thresholds
from jptq.results.sensitivity import SensitivityTable
from jptq.sensitivity.exact import Progress
from jptq.sensitivity.rows import Rows, assemble


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
    moments: dict[tuple[int, int], dict[str, list[np.ndarray]]] = {}
    # The reference comes from the same program: two programs of one network differ in their last
    # bits, and that would count as the effect of a node that hardly has one.
    off = dataclasses.replace(tables[0], gate=np.zeros_like(np.asarray(tables[0].gate)))
    floats = [out for _, out in runner.outputs(runner.pack(off), samples)]
    for done, (row, q) in enumerate(rows.pairs):
        gate = np.zeros_like(np.asarray(tables[q].gate))
        gate[list(indices[row])] = np.asarray(tables[q].gate)[list(indices[row])]
        packed = runner.pack(dataclasses.replace(tables[q], gate=gate))
        sums: dict[str, list[np.ndarray]] = {name: [] for name in rows.reached[row]}
        for (count, out), reference in zip(runner.outputs(packed, samples), floats, strict=True):
            for name in sums:
                sums[name].append(
                    np.asarray(similarity.compare(reference[name], out[name]))[:count]
                )
        moments[row, q] = sums
        progress(done + 1, len(rows.pairs))
    return assemble(
        rows,
        {k: {n: np.concatenate(parts) for n, parts in m.items()} for k, m in moments.items()},
        runner.program.shapes,
        metrics,
        method="metric",
        samples=len(samples),
        seconds=time.perf_counter() - started,
        cost={"runs": float(len(rows.pairs))},
    )
