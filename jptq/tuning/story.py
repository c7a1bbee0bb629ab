"""What a tuning tells: the headline, the reason of every raised node, what a reader must know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jptq.quant.assign import Assignment
from jptq.results import Evaluation, Outcome, Raised, Report, SensitivityTable
from jptq.tuning.advice import tie_advice
from jptq.tuning.classify import of_steps
from jptq.tuning.goal import Judge
from jptq.tuning.prepare import Prepared


def pareto(steps: Sequence[Evaluation], judge: Judge) -> tuple[Evaluation, ...]:
    """Return the measured points that no other one beats in quality and latency, fastest first."""
    front: list[Evaluation] = []
    for step in sorted(steps, key=lambda s: (s.time_us or 0.0, -judge.quality(s))):
        if not front or judge.quality(step) > judge.quality(front[-1]):
            front.append(step)
    return tuple(front)


def raised(
    prepared: Prepared,
    assignment: Assignment,
    ranking: SensitivityTable,
) -> tuple[Raised, ...]:
    """Return the nodes that run finer than INT8, worst first, with the reason of each."""
    int8 = prepared.all("int8")
    base_us = prepared.latency.node_us(int8)
    mixed_us = prepared.latency.node_us(assignment)
    times = {node.node: node for node in prepared.latency.nodes}
    ranks = {ranking.rows[i]: place + 1 for place, i in enumerate(ranking.order())}
    mse = dict(zip(ranking.rows, ranking.column("mse"), strict=True))
    out = []
    for slots in prepared.plan.slots:
        changed = [c for c in slots.calibrations if assignment[c] != int8[c]]
        if not changed:
            continue
        candidate = times[slots.node].candidate(assignment)
        rank = ranks.get(slots.node, len(ranks) + 1)
        what = "features and weights" if candidate == "dual-int16" else "features"
        shared = [n for c in changed for n in prepared.plan.owners[c] if n != slots.node]
        beside = f"; shares a quantizer with {shared[0]!r}" if shared else ""
        out.append(
            Raised(
                node=slots.node,
                op=slots.op,
                candidate="dual-int16" if candidate == "dual-int16" else "int16",
                why=f"rank {rank} of {len(ranks)} by cosine; {what} raised{beside}",
                error_int8=float(mse.get(slots.node, 0.0)),
                rank=rank,
                cost_us=mixed_us[slots.node] - base_us[slots.node],
            )
        )
    return tuple(sorted(out, key=lambda r: r.rank))


def _percent(value: float) -> str:
    return f"{100 * value:.2f}%"


def headline(
    judge: Judge,
    int8: Evaluation,
    final: Evaluation,
    raised: Sequence[Raised],
) -> str:
    """One sentence with the measured end."""
    scored = bool(final.shares)
    unit = "of the float score" if scored else "least output cosine"

    def shown(evaluation: Evaluation) -> str:
        quality = judge.quality(evaluation)
        return _percent(quality) if scored else f"{quality:.5f}"

    ratio = (final.time_us or 0.0) / max(int8.time_us or 0.0, 1e-9)
    nodes = "no node" if not raised else f"{len(raised)} node{'s' if len(raised) > 1 else ''}"
    return (
        f"{shown(final)} {unit} (measured; all-INT8 {shown(int8)}) at {ratio:.3f} times "
        f"the modelled all-INT8 latency, {nodes} above INT8."
    )


def notes(
    prepared: Prepared,
    judge: Judge,
    outcome: Outcome,
    *,
    int8: Evaluation,
    int16: Evaluation,
    ceiling: Evaluation,
    raised: Sequence[Raised],
) -> tuple[str, ...]:
    """Return what a reader has to know, most important first."""
    out = []
    goal = judge.goal
    if outcome is Outcome.BUDGET_TOO_SMALL and goal.budget_us is not None:
        out.append(
            f"The budget of {goal.budget_us:.1f} us is below the least reachable latency: all-INT8 "
            f"takes {int8.time_us:.1f} us (modelled)."
        )
    if goal.has_quality and judge.meets(int8):
        out.append("All-INT8 meets the goal: nothing has to be raised.")
    if goal.has_quality and not judge.meets(int16):
        out.append(_leftovers(prepared, judge, int16, ceiling, raised))
    cosine = None if int8.comparison is None else int8.comparison.min_cosine
    if (
        goal.min_score is not None
        and not judge.meets(int8)
        and cosine is not None
        and cosine > 0.99
    ):
        out.append(
            f"All-INT8 keeps a least output cosine of {cosine:.5f} and fails the score: on this "
            "network the cosine hides the error that matters."
        )
    constants = prepared.latency.constants.items()
    assumed = sorted(name for name, (_, source) in constants if source.startswith("assumed"))
    if assumed:
        out.append(
            "Latency is modelled, and these of its constants are assumed, because nothing is "
            "published: " + ", ".join(assumed) + "."
        )
    return tuple(out)


def diagnosis(
    judge: Judge,
    prefixes: Mapping[int, Evaluation],
    *,
    int8: Evaluation,
    int16: Evaluation,
    ranking: SensitivityTable,
) -> tuple[str, ...]:
    """Name the problem type, as far as what was run tells it, and how blunt the ranking is.

    Args:
      judge: Knows the goal.
      prefixes: What walks measured, by how many of the worst nodes were raised.
      int8: All-INT8.
      int16: All-INT16.
      ranking: Of nodes.
    """
    if not judge.goal.has_quality or judge.meets(int8):
        return ()
    kind = of_steps(judge, int8, int16, prefixes, len(ranking.rows))
    ties = tie_advice(ranking)
    return (
        *([] if kind is None else [kind.verdict]),
        *([] if ties is None else [ties.text]),
    )


def _leftovers(
    prepared: Prepared,
    judge: Judge,
    int16: Evaluation,
    ceiling: Evaluation,
    raised: Sequence[Raised],
) -> str:
    """Say what all-INT16 leaves INT8, and what closes the gap."""
    kept = prepared.all("int16")
    left = [c for c in prepared.plan.calibrations if kept[c.name] == "int8"]
    weights = sum(c.kind == "weight" for c in left)
    text = (
        f"All-INT16 does not meet the goal ({judge.quality(int16):.4f}). What it leaves INT8: "
        f"{weights} weights and {len(left) - weights} features that the target keeps so. With "
        f"every quantizer INT16, a simulation, it is {judge.quality(ceiling):.4f}. "
    )
    dual = [r.node for r in raised if r.candidate == "dual-int16"]
    if not dual:
        return text + "No configuration that was run closes the gap."
    named = ", ".join(dual[:6]) + (" and others" if len(dual) > 6 else "")
    return text + f"dual-int16 on {len(dual)} nodes closes the gap: {named}."


def pareto_json(report: Report, judge: Judge) -> dict[str, Any]:
    """Return the content of ``pareto.json``."""
    return {
        "schema": 1,
        "march": report.march,
        "quality": "share of float" if report.final.shares else "least output cosine",
        "points": [
            {
                "name": e.name,
                "quality": judge.quality(e),
                "time_us": e.time_us,
                "macs_int16": e.macs_int16,
                "raised": e.raised,
                "measured": True,
            }
            for e in report.pareto
        ],
    }
