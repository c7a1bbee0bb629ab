"""Sweep thresholds over a ranking, and diagnose: one call each, from a network to a result."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from jptq import files, ir
from jptq.api import steps
from jptq.quant.calibrated import with_assignment
from jptq.quant.originals import absent_constants
from jptq.results import Goal, SensitivityTable
from jptq.results.problem import Head, Problem, ProblemType
from jptq.results.sweep import Sweep
from jptq.tuning import advice, heads
from jptq.tuning.classify import classify
from jptq.tuning.evaluator import Evaluator
from jptq.tuning.goal import Judge
from jptq.tuning.journal import Journal
from jptq.tuning.measure import Measurer
from jptq.tuning.prepare import Prepared, Progress, quiet
from jptq.tuning.reference import FLOAT_FILE
from jptq.tuning.sweep import raised
from jptq.tuning.sweep import sweep as run_sweep

BOUND = 0.99
"""What is asked for if nothing is: a share of the float score, or the outputs' cosine."""


def sweep(
    prepared: Prepared,
    *,
    metric: str = "cosine-similarity",
    thresholds: Sequence[float] = (),
    evaluator: Evaluator | None = None,
    bound: float = BOUND,
    output_nodes: Sequence[str] = (),
    samples: int = 8,
    every_row: bool = False,
    journal: Journal | None = None,
    progress: Progress = quiet,
) -> Sweep:
    """Rank nodes once, then raise all at or beyond each threshold to INT16 and really run them.

    A model that is mixed already is ranked with the types that it holds, and only what can still
    be raised is looked at.

    Args:
      prepared: A calibrated network.
      metric: What the thresholds are of: a node is raised if its score, as tables print it
        (`results.sensitivity.shown`), is at or below one for ``cosine-similarity`` and ``sqnr``,
        at or above one for the others.
      thresholds: In the order in which they are tried; taken from the ranking if there are none.
      evaluator: Scores a forward; the outputs' cosine decides without one.
      bound: Share of float that every score keeps, or the mean cosine that every output keeps.
      output_nodes: Rank by what acts on these nodes' outputs.
      samples: For the ranking, evenly taken from the set.
      every_row: Go on behind the first row that meets the goal.
      journal: Keeps findings, for resuming.
      progress: ``progress(step, done, total)``.

    Raises:
      UnknownNameError: A metric or node that does not exist.
    """
    journal = journal or Journal(None)
    table = ranking(prepared, (metric,), output_nodes, samples, journal, progress)
    return run_sweep(
        Measurer(prepared, evaluator, journal),
        judge(evaluator, bound),
        table,
        thresholds=thresholds,
        every_row=every_row,
        progress=progress,
    )


def diagnose(
    prepared: Prepared,
    *,
    metrics: Sequence[str] = ("cosine-similarity", "mse"),
    evaluator: Evaluator | None = None,
    bound: float = BOUND,
    output_nodes: Sequence[str] = (),
    reference: Prepared | None = None,
    subgraph: bool = False,
    samples: int = 8,
    journal: Journal | None = None,
    progress: Progress = quiet,
) -> tuple[Problem, Head | None]:
    """Tell which of the vendor's three problems a network has, and what to try.

    Args:
      prepared: A calibrated network; its thresholds serve all-INT8 and all-INT16, and the types
        that it holds do not matter.
      metrics: Of the ranking; the first one is judged, the others may be advised.
      evaluator: Scores a forward; the outputs' cosine decides without one.
      bound: Share of float that every score keeps, or the mean cosine that every output keeps.
      output_nodes: Rank by what acts on these nodes' outputs.
      reference: The network as its all-INT16 model was calibrated, if that was done apart.
      subgraph: Also look for the subgraph to raise if the ranking fails.
      samples: For the ranking, evenly taken from the set.
      journal: Keeps findings, for resuming.
      progress: ``progress(step, done, total)``.

    Returns:
      The diagnosis, and the subgraph if it was asked for and there is one.

    Raises:
      UnknownNameError: A metric or node that does not exist.
    """
    journal = journal or Journal(None)
    prepared = _as_int8(prepared)
    measurer, judged = Measurer(prepared, evaluator, journal), judge(evaluator, bound)
    table = ranking(prepared, metrics, output_nodes, samples, journal, progress)
    mixed = None
    if reference is not None:
        mixed = advice.mix_advice(
            prepared.thresholds, reference.thresholds, (prepared.method, reference.method)
        )
    found = classify(measurer, judged, table, mixed=mixed, samples=samples, progress=progress)
    if not subgraph or found.type is not ProblemType.RANKING_FAILS:
        return found, None
    return found, heads.find_head(
        measurer, judged, found.culprits, samples=samples, progress=progress
    )


def _as_int8(prepared: Prepared) -> Prepared:
    """Return the network with all its thresholds, ranked as INT8 whatever types it holds."""
    int8 = prepared.all("int8")
    if dict(prepared.configured) == int8:
        return prepared
    return dataclasses.replace(
        prepared,
        calibrated=with_assignment(prepared.calibrated, int8),
        digest=files.digest(prepared.digest, "as int8"),
    )


def judge(evaluator: Evaluator | None, bound: float) -> Judge:
    """Return what decides: the user's scores, or the outputs' cosine without any."""
    return Judge(Goal(min_cosine=bound) if evaluator is None else Goal(min_score=bound))


def ranking(
    prepared: Prepared,
    metrics: Sequence[str],
    output_nodes: Sequence[str],
    samples: int,
    journal: Journal,
    progress: Progress,
) -> SensitivityTable:
    """Return the ranking of nodes with the types they hold, from the journal if it is there."""
    key = (prepared.digest, *metrics, "at", *output_nodes, str(samples))
    stored = journal.load("sweep-ranking", *key)
    if stored is not None:
        return SensitivityTable.from_json(stored)
    table = steps.rank_nodes(
        prepared, metrics=metrics, samples=samples, output_nodes=output_nodes, progress=progress
    )
    journal.save("sweep-ranking", *key, content=table.to_json())
    return table


def write(found: Sweep, prepared: Prepared, folder: Path) -> None:
    """Write ``sweep.json``, ``quant_config.json`` and the taken row's ``calibrated_model.onnx``.

    And the float network, if that model is nothing without it.
    """
    assignment = raised(prepared.plan, prepared.configured, found.taken.nodes)
    files.write_json(folder / "sweep.json", found.to_json())
    files.write_json(folder / "quant_config.json", found.quant_config)
    ir.save(prepared.mixed(assignment), folder / "calibrated_model.onnx")
    if absent_constants(prepared.calibrated):
        ir.save(ir.for_vendor(prepared.floating), folder / FLOAT_FILE)
