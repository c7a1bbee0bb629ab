"""Rank nodes exactly, by what they do to some of the outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from jptq.errors import UnknownNameError
from jptq.ir.paths import ancestors
from jptq.quant.assign import Assignment
from jptq.results import SensitivityTable
from jptq.sensitivity import METRICS_OF, Rows, exact, quantizer_rows, rows_of
from jptq.tuning.prepare import Prepared, Progress, quiet
from jptq.tuning.source import spread


def rank(
    prepared: Prepared,
    base: Assignment,
    *,
    metrics: Sequence[str] = METRICS_OF["metric"],
    outputs: Sequence[str] = (),
    nodes: Sequence[str] = (),
    samples: int = 8,
    progress: Progress = quiet,
) -> SensitivityTable:
    """Return the scores of nodes, each quantized alone with the types of ``base``.

    Args:
      prepared: A calibrated network.
      base: Types of all quantizers.
      metrics: The first one decides the order.
      outputs: Compare only at these graph outputs, nodes that do not lead there left out; at all
        of them if none are given.
      nodes: Rank only these; all of them if none are given.
      samples: Evenly taken from the set.
      progress: ``progress(step, done, total)``.
    """
    leading = ancestors(prepared.calibrated, outputs or prepared.calibrated.output_names)
    ranked = nodes or [slots.node for slots in prepared.plan.slots if slots.calibrations]
    rows = rows_of(
        prepared.calibrated,
        prepared.plan,
        "node",
        only=[(node,) for node in ranked if node in leading],
    )
    return exact.rank(
        prepared.runner,
        prepared.thresholds,
        base,
        at(rows, outputs) if outputs else rows,
        spread(prepared.samples, samples),
        metrics=metrics,
        progress=lambda done, total: progress("rank nodes", done, total),
    )


def rank_quantizers(
    prepared: Prepared,
    base: Assignment,
    quantizers: Sequence[str],
    *,
    metrics: Sequence[str] = ("cosine-similarity",),
    samples: int = 8,
    progress: Progress = quiet,
) -> SensitivityTable:
    """Return the scores of quantizers, each alone at work with its type of ``base``.

    A node's own score is that of all its operands together: it does not tell which is to blame.

    Args:
      prepared: A calibrated network.
      base: Types of all quantizers.
      quantizers: To rank; those that reach no output are left out.
      metrics: The first one decides the order.
      samples: Evenly taken from the set.
      progress: ``progress(step, done, total)``.
    """
    rows = quantizer_rows(prepared.calibrated, prepared.plan, quantizers)
    return exact.rank(
        prepared.runner,
        prepared.thresholds,
        base,
        rows,
        spread(prepared.samples, samples),
        metrics=metrics,
        progress=lambda done, total: progress("rank operands", done, total),
    )


def at(rows: Rows, outputs: Sequence[str]) -> Rows:
    """Return the rows that reach some of the outputs, compared only there.

    Raises:
      UnknownNameError: The rows reach no output of such a name.
    """
    for name in outputs:
        if name not in rows.outputs:
            raise UnknownNameError("output", name, rows.outputs)
    wanted = frozenset(outputs)
    kept = rows.take([i for i, reached in enumerate(rows.reached) if reached & wanted])
    return dataclasses.replace(
        kept,
        reached=tuple(reached & wanted for reached in kept.reached),
        outputs=tuple(name for name in kept.outputs if name in wanted),
    )
