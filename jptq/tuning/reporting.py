"""The report of a tuning, from all that was run."""

from __future__ import annotations

import dataclasses

from jptq.quant.emit import quant_config
from jptq.quant.remarks import renamed_nodes
from jptq.results import Evaluation, IntegerRanges, Outcome, Report, SensitivityTable
from jptq.results.problem import Head
from jptq.tuning import findings, story
from jptq.tuning.classify import of_steps
from jptq.tuning.compensating import Compensated
from jptq.tuning.corners import Corners
from jptq.tuning.doubts import doubts
from jptq.tuning.options import Options
from jptq.tuning.prepare import Prepared
from jptq.tuning.ranges import note_inside
from jptq.tuning.search import Search, Step


def _remarks(search: Search, before: Corners, final: Step) -> tuple[str, ...]:
    """Return what the figures of all-INT8 and of the end do not show, the same only once."""
    prepared = search.measurer.prepared
    said: list[str] = []
    started = before.int8.comparison
    assert started is not None
    assert final.evaluation.comparison is not None
    int8 = prepared.all("int8")
    if final.assignment != int8:
        said += findings.remarks(prepared, prepared.table(int8), started, what="All-INT8")
    said += findings.remarks(
        prepared,
        prepared.table(final.assignment),
        final.evaluation.comparison,
        what="The final configuration",
    )
    return tuple(dict.fromkeys(said))


def report_of(
    prepared: Prepared,
    options: Options,
    outcome: Outcome,
    *,
    floating: Evaluation,
    before: Corners,
    compensation: Compensated | None,
    search: Search,
    final: Step,
    ranking: SensitivityTable,
    calls: int,
    least_us: float,
    late: bool,
    beyond: Evaluation | None,
    head: Head | None,
    ranges: IntegerRanges,
    inside: Evaluation | None,
) -> Report:
    """Return the report of a tuning.

    Args:
      prepared: The network.
      options: What was asked for.
      outcome: How it ended.
      floating: The float model.
      before: The ends of the network without ec.
      compensation: How it came by its ec, if it has some.
      search: All that was run.
      final: What is written.
      ranking: Of the nodes.
      calls: Scores asked for.
      least_us: Least latency of any configuration.
      late: Whether time was up.
      beyond: What ec reached, at more time than the budget.
      head: The subgraph that was looked for.
      ranges: Integers that the final configuration leaves.
      inside: The final configuration kept inside them.
    """
    judge = search.judge
    meets = judge.meets(inside) if inside is not None and judge.goal.has_quality else None
    steps = tuple(step.evaluation for step in search.steps)
    if compensation is not None:
        steps = (*before.steps, *steps)
    if beyond is not None:
        beyond = dataclasses.replace(beyond, name=f"with ec: {beyond.name}")
        steps = (*steps, beyond)
    ended = dataclasses.replace(final.evaluation, name="final")
    cheapest = search.cheapest()
    reachable = []
    if outcome is not Outcome.MET:
        if cheapest is not None:
            reachable.append(cheapest.evaluation.name)
        if beyond is not None:
            reachable.append(beyond.name)
        reachable.append(max(steps, key=lambda step: step.quality).name)
    raised = story.raised(prepared, final.assignment, ranking)
    walked = search.walked or len(ranking.rows)
    kind = of_steps(judge, before.int8, before.int16, search.prefixes, walked)
    # A subgraph stays one: the shortest configuration would name its nodes.
    config = head.quant_config if head is not None and head.assignment == final.assignment else None
    return Report(
        model=prepared.name,
        march=prepared.target.march,
        calibration=prepared.method,
        samples=len(prepared.samples),
        goal=judge.goal,
        outcome=outcome,
        headline=story.headline(judge, before.int8, ended, raised, prepared.latency.origin),
        floating=floating,
        int8=dataclasses.replace(before.int8, name="int8"),
        int16=dataclasses.replace(before.int16, name="int16"),
        true_int16=before.ceiling,
        final=ended,
        steps=steps,
        pareto=story.pareto(steps, judge),
        reachable=tuple(dict.fromkeys(reachable)),
        raised=raised,
        sensitivity=ranking,
        latency=prepared.latency,
        assignment=dict(final.assignment),
        quant_config=config
        or quant_config(
            prepared.calibrated,
            prepared.plan,
            prepared.target,
            final.assignment,
            activation=prepared.activation,
            like=prepared.config,
        ),
        search=options.search,
        method=options.method,
        evaluator_calls=calls,
        ranges=ranges,
        inside=inside,
        notes=(
            *(() if inside is None else (note_inside(inside, meets=meets),)),
            *prepared.remarks,
            *prepared.notes,
            *doubts(floating, steps),
            *(ranges.notes if ranges.found else ()),
            *story.notes(
                prepared,
                judge,
                story.ending(judge, outcome, ended, before, compensation, raised, beyond, kind),
                before.int8,
                ranking,
                least_us=least_us,
                late=late,
                remarked=_remarks(search, before, final),
            ),
            *(() if ranges.found else ranges.notes),
        ),
        walk_us=search.walk_us,
        renamed=renamed_nodes(prepared.calibrated),
        limits=prepared.limits,
        outlying=prepared.outlying,
    )
