"""What a tuning tells: the headline, the reason of every raised node, what a reader must know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jptq.numerics.qtypes import DUAL_INT16, INT8
from jptq.quant.assign import Assignment, finest, uniform
from jptq.quant.config import EC, INT16_EC
from jptq.results import Evaluation, Outcome, Raised, Report, SensitivityTable
from jptq.tuning import measure
from jptq.tuning.advice import tie_advice
from jptq.tuning.classify import of_steps
from jptq.tuning.compensating import Compensated, Corners
from jptq.tuning.goal import Judge
from jptq.tuning.prepare import Prepared


def pareto(steps: Sequence[Evaluation], judge: Judge) -> tuple[Evaluation, ...]:
    """Return the measured points that no other one beats in quality and latency, fastest first."""
    front: list[Evaluation] = []
    for step in sorted(steps, key=lambda s: (s.time_us or 0.0, -s.quality)):
        if not front or step.quality > front[-1].quality:
            front.append(step)
    return tuple(front)


def raised(
    prepared: Prepared,
    assignment: Assignment,
    ranking: SensitivityTable,
) -> tuple[Raised, ...]:
    """Return the nodes that run finer than INT8, worst first, with the reason of each."""
    base_us = prepared.latency.node_us(uniform(prepared.plan.unpinned, INT8.name))
    mixed_us = prepared.latency.node_us(assignment)
    times = {node.node: node for node in prepared.latency.nodes}
    ranks = {ranking.rows[i]: place + 1 for place, i in enumerate(ranking.order())}
    mse = dict(zip(ranking.rows, ranking.column("mse"), strict=True))
    pairs = {pair.high.name: pair for pair in prepared.pairs}
    out = []
    for node, changed in measure.raised(prepared, assignment).items():
        candidate = times[node].candidate(assignment)
        what = "features and weights raised" if candidate == DUAL_INT16 else "features raised"
        if changed and all(prepared.plan.calibration(c).pinned is not None for c in changed):
            what = "named by the quant_config"
        cost_us = mixed_us[node] - base_us[node]
        pair = pairs.get(node)
        if pair is not None:
            what = f"input{pair.index} compensated" + (", features raised" if changed else "")
            candidate = INT16_EC if changed else EC
            cost_us += mixed_us[pair.low.name] + mixed_us.get(pair.total.name, 0.0)
        elif candidate != DUAL_INT16:
            # Float16 takes the time of int16; some quantizers have no part in a node's time.
            candidate = finest(assignment[c] for c in changed)
        rank = ranks.get(node, len(ranks) + 1)
        place = f"rank {rank} of {len(ranks)} by cosine" if node in ranks else "not ranked"
        own = {node} if pair is None else {node, pair.low.name}
        shared = [n for c in changed for n in prepared.plan.owners[c] if n not in own]
        beside = f"; shares a quantizer with {shared[0]!r}" if shared else ""
        out.append(
            Raised(
                node=node,
                op=times[node].op,
                candidate=candidate,
                why=f"{place}; {what}{beside}",
                error_int8=float(mse.get(node, 0.0)),
                rank=rank,
                cost_us=cost_us,
                second="" if pair is None else pair.low.name,
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
    origin: str,
) -> str:
    """One sentence with the measured end; ``origin`` is that of the times."""
    scored = bool(final.shares)
    unit = "of the float score" if scored else "least output cosine"

    def shown(evaluation: Evaluation) -> str:
        quality = evaluation.quality
        return _percent(quality) if scored else f"{quality:.5f}"

    ratio = (final.time_us or 0.0) / max(int8.time_us or 0.0, 1e-9)
    nodes = "no node" if not raised else f"{len(raised)} node{'s' if len(raised) > 1 else ''}"
    return (
        f"{shown(final)} {unit} (measured; all-INT8 {shown(int8)}) at {ratio:.3f} times "
        f"the {origin} all-INT8 latency, {nodes} above INT8."
    )


def notes(
    prepared: Prepared,
    judge: Judge,
    outcome: Outcome,
    before: Corners,
    compensation: Compensated | None,
    raised: Sequence[Raised],
    *,
    least_us: float,
    late: bool = False,
    beyond: Evaluation | None = None,
) -> tuple[str, ...]:
    """Return what a reader has to know, most important first.

    Args:
      prepared: The network that the result is of.
      judge: Knows the goal.
      outcome: How it ended.
      before: What the network was before anything was compensated.
      compensation: What was, or None.
      raised: The nodes above INT8.
      least_us: Time of the fastest configuration there is.
      late: The time limit ended the search.
      beyond: What ec reached at more time than the budget, or None.
    """
    out = []
    goal, int8 = judge.goal, before.int8
    if outcome is Outcome.BUDGET_TOO_SMALL and goal.budget_us is not None:
        out.append(
            f"The budget of {goal.budget_us:.1f} us is below the least reachable latency, "
            f"{least_us:.1f} us ({prepared.latency.origin})."
        )
    if late and outcome is Outcome.MET:
        out.append(
            "The time limit ended the search: this meets the goal, something faster may too."
        )
    if goal.has_quality and judge.meets(int8):
        out.append("All-INT8 meets the goal: nothing has to be raised.")
    if goal.has_quality and not judge.meets(before.int16):
        out.append(_int16_fails(judge, before))
        out.append(_closing(outcome, before, judge, compensation, raised, beyond))
    pinned = sum(one.pinned is not None for one in prepared.plan.calibrations)
    if pinned:
        out.append(
            f"{pinned} of {len(prepared.plan.calibrations)} quantizers keep the types that the "
            "quant_config names for their nodes, in every row."
        )
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
    assumed = sorted({name for node in prepared.latency.nodes for name in node.assumed})
    if assumed:
        out.append(
            f"Latency is {prepared.latency.origin}; these constants of the model are assumed, "
            "because nothing is published: " + ", ".join(assumed) + "."
        )
    return tuple(out)


def diagnosis(
    judge: Judge,
    prefixes: Mapping[int, Evaluation],
    before: Corners,
    ranking: SensitivityTable,
    *,
    walked: int,
) -> tuple[str, ...]:
    """Name the problem type, as far as what was run tells it, and how blunt the ranking is.

    Args:
      judge: Knows the goal.
      prefixes: What walks measured, by how many of the worst nodes were raised.
      before: All-INT8 and all-INT16.
      ranking: Of nodes.
      walked: Number of nodes in the ranking that the walks went along.
    """
    if not judge.goal.has_quality or judge.meets(before.int8):
        return ()
    kind = of_steps(judge, before.int8, before.int16, prefixes, walked)
    ties = tie_advice(ranking)
    return (
        *([] if kind is None else [kind.verdict]),
        *([] if ties is None else [ties.text]),
    )


def _int16_fails(judge: Judge, before: Corners) -> str:
    """Say what all-INT16 leaves INT8, and what that costs."""
    weights, features = before.left
    return (
        f"All-INT16 does not meet the goal ({before.int16.quality:.4f}). What it leaves "
        f"INT8: {weights} weights and {features} features that the target keeps so. With every "
        f"quantizer INT16, a simulation, it is {before.ceiling.quality:.4f}."
    )


def _closing(
    outcome: Outcome,
    before: Corners,
    judge: Judge,
    compensation: Compensated | None,
    raised: Sequence[Raised],
    beyond: Evaluation | None,
) -> str:
    """Say what closes the gap between all-INT16 and the goal."""
    if compensation is not None:
        given = [f"{node}.input{index}" for node, index in compensation.operands.items()]
        tried = "dual-int16 does not. " if before.dual is not None else ""
        return (
            f"{tried}ec closes the gap, a second operator each, on {len(given)} "
            f"operand{'s' if len(given) > 1 else ''}: {_few(given)}."
        )
    dual = [r.node for r in raised if r.candidate == DUAL_INT16]
    if outcome is Outcome.MET and dual:
        return (
            f"dual-int16 on {len(dual)} node{'s' if len(dual) > 1 else ''} closes the gap: "
            f"{_few(dual)}."
        )
    if beyond is not None and beyond.time_us is not None:
        return f"ec would close the gap, at {beyond.time_us:.1f} us: more than the budget."
    if not judge.meets(before.ceiling):
        return (
            "No compensation can close the gap: thresholds lose it. Try another calibration "
            "method, or float32 for what the ranking names."
        )
    return "No configuration that was run closes the gap."


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def pareto_json(report: Report) -> dict[str, Any]:
    """Return the content of ``pareto.json``."""
    return {
        "schema": 1,
        "march": report.march,
        "quality": "share of float" if report.final.shares else "least output cosine",
        "quality_is": "measured",
        "time_is": report.latency.origin,
        "points": [
            {
                "name": e.name,
                "quality": e.quality,
                "time_us": e.time_us,
                "macs_int16": e.macs_int16,
                "raised": e.raised,
            }
            for e in report.pareto
        ],
    }
