"""What a tuning tells: the headline, the reason of every raised node, what a reader must know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jptq.ir import float32
from jptq.numerics.qtypes import DUAL_INT16, INT8
from jptq.quant.assign import Assignment, finest, uniform
from jptq.quant.config import EC, INT16_EC
from jptq.results import Evaluation, Outcome, Raised, Report, SensitivityTable
from jptq.results.problem import ProblemType
from jptq.tuning import measure
from jptq.tuning.advice import tie_advice
from jptq.tuning.compensating import Compensated
from jptq.tuning.corners import Corners
from jptq.tuning.goal import Judge, told
from jptq.tuning.prepare import Prepared
from jptq.tuning.verdict import Ending, verdict


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
            what = "kept float, or named by the quant_config" if prepared.remarks else _NAMED_TYPE
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


_NAMED_TYPE = "named by the quant_config"


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
    if scored:
        unit = " of the float score"
        reached, started = _percent(final.quality), _percent(int8.quality)
    else:
        reached, started = told(final), told(int8)
        unit = " least output cosine" if reached[-1].isdigit() else ""
    ratio = (final.time_us or 0.0) / max(int8.time_us or 0.0, 1e-9)
    nodes = "no node" if not raised else f"{len(raised)} node{'s' if len(raised) > 1 else ''}"
    return (
        f"{reached}{unit} (measured; all-INT8 {started}) at {ratio:.3f} times "
        f"the {origin} all-INT8 latency, {nodes} above INT8."
    )


def notes(
    prepared: Prepared,
    judge: Judge,
    ending: Ending,
    int8: Evaluation,
    ranking: SensitivityTable,
    *,
    least_us: float,
    late: bool = False,
    remarked: Sequence[str] = (),
) -> tuple[str, ...]:
    """Return what a reader has to know, most important first.

    Args:
      prepared: The network that the result is of.
      judge: Knows the goal.
      ending: How it ended.
      int8: All-INT8, before anything was compensated.
      ranking: Of nodes.
      least_us: Time of the fastest configuration there is.
      late: The time limit ended the search.
      remarked: What figures do not show (`findings.remarks`).
    """
    out = list(remarked)
    goal = judge.goal
    if ending.outcome is Outcome.BUDGET_TOO_SMALL and goal.budget_us is not None:
        out.append(
            f"The budget of {goal.budget_us:.1f} us is below the least reachable latency, "
            f"{least_us:.1f} us ({prepared.latency.origin})."
        )
    if late and ending.met:
        out.append(
            "The time limit ended the search: this meets the goal, something faster may too."
        )
    if late and not ranking.rows:
        out.append(
            "The time limit was over before nodes were ranked: only all-INT8 and all-INT16 were "
            "run, the least that a result needs."
        )
    out.extend(verdict(ending))
    pinned = sum(one.pinned is not None for one in prepared.plan.calibrations)
    if pinned:
        out.append(
            f"{pinned} of {len(prepared.plan.calibrations)} quantizers keep the types that the "
            "quant_config names for their nodes, in every row."
            if not prepared.remarks
            else f"{pinned} of {len(prepared.plan.calibrations)} quantizers keep their types in "
            "every row."
        )
    cosine = None if int8.comparison is None else int8.comparison.min_cosine
    if goal.min_score is not None and not ending.int8 and cosine is not None and cosine > 0.99:
        out.append(
            f"All-INT8 keeps a least output cosine of {cosine:.5f} and fails the score: on this "
            "network the cosine hides the error that matters."
        )
    converted = float32.note(prepared.floating)
    if converted:
        out.append(converted)
    assumed = sorted({name for node in prepared.latency.nodes for name in node.assumed})
    if assumed:
        out.append(
            f"Latency is {prepared.latency.origin}; these constants of the model are assumed, "
            "because nothing is published: " + ", ".join(assumed) + "."
        )
    ties = None if ending.int8 or not ending.quality else tie_advice(ranking)
    return (*out, *([] if ties is None else [ties.text]))


def ending(
    judge: Judge,
    outcome: Outcome,
    final: Evaluation,
    before: Corners,
    compensation: Compensated | None,
    raised: Sequence[Raised],
    beyond: Evaluation | None,
    kind: ProblemType | None,
) -> Ending:
    """Return what the verdict depends on.

    Args:
      judge: Knows the goal.
      outcome: How it ended.
      final: The chosen configuration.
      before: What the network was before anything was compensated.
      compensation: What was, or None.
      raised: The nodes above INT8.
      beyond: What ec reached at more time than the budget, or None.
      kind: Problem type, as far as the search tells it.
    """
    operands = {} if compensation is None else compensation.operands
    return Ending(
        outcome=outcome,
        quality=judge.goal.has_quality,
        budget=judge.goal.budget_us is not None,
        int8=judge.meets(before.int8),
        int16=judge.meets(before.int16),
        ceiling=judge.meets(before.ceiling),
        final=judge.meets(final),
        raised=len(raised),
        duals=[r.node for r in raised if r.candidate == DUAL_INT16],
        dual_fails=before.dual is not None,
        ec=[f"{node}.input{index}" for node, index in operands.items()],
        beyond_us=None if beyond is None else beyond.time_us,
        kind=kind,
        int16_reached=told(before.int16),
        ceiling_reached=told(before.ceiling),
        left=before.left,
    )


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
