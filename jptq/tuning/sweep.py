"""The documented sweep: raise every node at or beyond a threshold, run it, take the next one.

Source: hmct-spec 4.5 and 7.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jptq.numerics.qtypes import INT16
from jptq.quant.assign import Assignment, promote
from jptq.quant.config import load_config
from jptq.quant.emit import quant_config
from jptq.quant.plan import Plan
from jptq.quant.resolve import resolve
from jptq.results import SensitivityTable
from jptq.results.sensitivity import BETTER, shown
from jptq.results.sweep import Sweep, SweepRow
from jptq.tuning.goal import Judge
from jptq.tuning.measure import Measurer
from jptq.tuning.prepare import Prepared, Progress, quiet


def sweep(
    measurer: Measurer,
    judge: Judge,
    ranking: SensitivityTable,
    *,
    thresholds: Sequence[float] = (),
    every_row: bool = False,
    progress: Progress = quiet,
) -> Sweep:
    """Run the model once per threshold, on top of the types that it holds.

    Quality need not grow with the number of raised nodes: every row is measured, none inferred.

    Args:
      measurer: Runs the calibrated network.
      judge: Knows the goal.
      ranking: Of nodes; its first metric is what the thresholds cut.
      thresholds: In the order in which they are tried; `ladder` if there are none.
      every_row: Go on behind the first row that meets the goal.
      progress: Called before every row.
    """
    prepared = measurer.prepared
    base = prepared.configured
    ranking = left(prepared.plan, base, ranking)
    steps: list[float | None] = [None, *(thresholds or ladder(ranking))]
    rows: list[SweepRow] = []
    chosen = None
    for number, threshold in enumerate(steps):
        progress("sweep", number, len(steps))
        nodes = () if threshold is None else selected(ranking, threshold)
        found = measurer(f"threshold {threshold}", raised(prepared.plan, base, nodes))
        rows.append(SweepRow(threshold=threshold, nodes=nodes, evaluation=found))
        if chosen is None and judge.meets(found):
            chosen = number
            if not every_row:
                break
    progress("sweep", len(steps), len(steps))
    best = max(range(len(rows)), key=lambda i: (rows[i].evaluation.quality, -i))
    return Sweep(
        model=prepared.name,
        march=prepared.target.march,
        calibration=prepared.method,
        goal=judge.goal,
        ranking=ranking,
        floating=measurer.floating(),
        rows=tuple(rows),
        chosen=chosen,
        best=best,
        quant_config=documented(prepared, base, rows[best if chosen is None else chosen].nodes),
    )


def printed(ranking: SensitivityTable) -> list[float]:
    """Return the scores of the first metric as the ranking's table shows them."""
    metric = ranking.metrics[0]
    return [shown(metric, value) for value in ranking.column(metric)]


def selected(ranking: SensitivityTable, threshold: float) -> tuple[str, ...]:
    """Return the nodes whose printed score is at the threshold or worse, worst first.

    Worse is below for a metric that is better when higher, above for the others.
    """
    higher = BETTER[ranking.metrics[0]] == "higher"
    scores = printed(ranking)
    return tuple(
        ranking.rows[i]
        for i in ranking.order()
        if (scores[i] <= threshold if higher else scores[i] >= threshold)
    )


def ladder(ranking: SensitivityTable) -> tuple[float, ...]:
    """Return thresholds that raise the worst node, the worst two, four, eight, up to all.

    Ties are never parted, and equal thresholds are given once: at most ``log2(N) + 2`` of them.
    """
    order = [i for i in ranking.order() if not np.isnan(ranking.column(ranking.metrics[0])[i])]
    scores = printed(ranking)
    counts = [2**k for k in range(len(order).bit_length()) if 2**k < len(order)] + [len(order)]
    return tuple(dict.fromkeys(scores[order[count - 1]] for count in counts if order))


def left(plan: Plan, base: Assignment, ranking: SensitivityTable) -> SensitivityTable:
    """Return the rows of a ranking that raising still changes, in their order."""
    return ranking.take(
        [i for i, node in enumerate(ranking.rows) if raised(plan, base, (node,)) != dict(base)]
    )


def raised(plan: Plan, base: Assignment, nodes: Sequence[str]) -> dict[str, str]:
    """Return an assignment with some nodes as INT16, as far as the target allows."""
    return promote(base, plan, dict.fromkeys(nodes, INT16.name))


def documented(prepared: Prepared, base: Assignment, nodes: Sequence[str]) -> dict[str, Any]:
    """Return the configuration that raises nodes, in the form of the vendor's chapter.

    That is the base's configuration and a line per node, worst first. Where another node's own
    line holds back a shared quantizer, every line is written anew.
    """
    config = quant_config(
        prepared.calibrated,
        prepared.plan,
        prepared.target,
        base,
        activation=prepared.activation,
        like=prepared.config,
    )
    entries: dict[str, Any] = dict(config.get("node_config", {}))
    for node in nodes:
        kept = {k: v for k, v in entries.pop(node, {}).items() if v not in ("int8", INT16.name)}
        entries[node] = {"qtype": INT16.name, **kept}
    if entries:
        config["node_config"] = entries
    wanted = raised(prepared.plan, base, nodes)
    found = resolve(
        load_config(config), prepared.calibrated, prepared.plan, prepared.target, report=False
    )
    if dict(found) == wanted:
        return config
    return quant_config(
        prepared.calibrated,
        prepared.plan,
        prepared.target,
        wanted,
        activation=prepared.activation,
        like=prepared.config,
    )
