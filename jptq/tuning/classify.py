"""Which of the vendor's three problems is it? Answered by running, never by guessing.

Source: the vendor's tuning chapter, hmct-spec 4.5.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping

from jptq.quant.assign import true_int16
from jptq.quant.leftovers import leftovers
from jptq.results import Evaluation, SensitivityTable
from jptq.results.problem import Advice, Leftover, Problem, ProblemType
from jptq.results.sweep import SweepRow
from jptq.tuning import advice, findings
from jptq.tuning.blame import culprits
from jptq.tuning.goal import Judge, told
from jptq.tuning.measure import Measurer
from jptq.tuning.prepare import Prepared, Progress, quiet
from jptq.tuning.ranking import rank_quantizers
from jptq.tuning.sweep import left, printed, raised, selected

STEPS = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Shares of the ranked nodes that are raised to see whether the ranking works: a ranking that
needs more than half of them says nothing."""


def classify(
    measurer: Measurer,
    judge: Judge,
    ranking: SensitivityTable,
    *,
    mixed: Advice | None = None,
    samples: int = 8,
    progress: Progress = quiet,
) -> Problem:
    """Run float, INT8, all-INT16 and the first steps along a ranking, and tell what they mean.

    Args:
      measurer: Runs the calibrated network; all runs have its thresholds.
      judge: Knows the goal, which bounds a quality.
      ranking: Of nodes as INT8; its first metric is judged.
      mixed: What is to be said of thresholds that are not the all-INT16 reference's.
      samples: For ranking what all-INT16 leaves INT8.
      progress: Called before every run.
    """
    found = _classified(measurer, judge, ranking, samples, progress)
    first = [] if mixed is None else [mixed]
    return dataclasses.replace(found, advice=(*first, *_seen(found, measurer), *found.advice))


def _seen(problem: Problem, measurer: Measurer) -> list[Advice]:
    """Return what the figures of all-INT8, and of all-INT16 where it fails, do not show."""
    prepared = measurer.prepared
    rows = [("All-INT8", "int8", problem.int8)]
    if problem.int16 is not None and problem.type is ProblemType.INT16_FAILS:
        rows.append(("All-INT16", "int16", problem.int16))
    said: dict[str, None] = dict.fromkeys(prepared.notes)
    for what, name, evaluation in rows:
        assert evaluation.comparison is not None
        table = prepared.table(prepared.all(name))
        said |= dict.fromkeys(findings.remarks(prepared, table, evaluation.comparison, what=what))
    return [Advice(kind="remark", text=text) for text in said]


def _classified(
    measurer: Measurer,
    judge: Judge,
    ranking: SensitivityTable,
    samples: int,
    progress: Progress,
) -> Problem:
    prepared, plan = measurer.prepared, measurer.prepared.plan
    int8, int16 = prepared.all("int8"), prepared.all("int16")
    ranking = left(plan, int8, ranking)
    progress("diagnose", 0, len(STEPS) + 2)
    first = measurer("all-INT8", int8)
    found = Problem(
        type=ProblemType.NONE,
        model=prepared.name,
        march=prepared.target.march,
        calibration=prepared.method,
        goal=judge.goal,
        floating=measurer.floating(),
        int8=first,
        ranked=len(ranking.rows),
    )
    if judge.meets(first):
        return found
    progress("diagnose", 1, len(STEPS) + 2)
    second = measurer("all-INT16", int16)
    found = dataclasses.replace(found, int16=second)
    if not judge.meets(second):
        return _int16_fails(found, measurer, judge, samples)
    failed = advice.failing(judge.goal, first)
    blamed = culprits(measurer, judge, int8, failed)
    steps = tuple(_first_steps(measurer, judge, ranking, progress))
    works = any(judge.meets(step.evaluation) for step in steps)
    found = dataclasses.replace(
        found,
        type=ProblemType.RANKING_WORKS if works else ProblemType.RANKING_FAILS,
        steps=steps,
        failing=failed,
        culprits=blamed,
    )
    return dataclasses.replace(found, advice=_ranked_advice(found, judge, prepared, ranking))


def ranked_leftovers(
    prepared: Prepared, *, samples: int = 8, progress: Progress = quiet
) -> tuple[Leftover, ...]:
    """Return what all-INT16 leaves INT8, the worst first, ranked on the all-INT16 model."""
    plan, target = prepared.plan, prepared.target
    kept = leftovers(plan, target)
    if not kept:
        return ()
    table = rank_quantizers(
        prepared,
        prepared.all("int16"),
        [one.calibration for one in kept],
        samples=samples,
        progress=progress,
    )
    scores = dict(zip(table.rows, table.column("cosine-similarity").tolist(), strict=True))
    found = [
        Leftover(
            calibration=one.calibration,
            slots=tuple(f"{node}.input{index}" for node, index in one.repairs)
            or plan.owners[one.calibration],
            repairs=tuple(dict.fromkeys(way for ways in one.repairs.values() for way in ways)),
            cosine=scores.get(one.calibration, 1.0),
        )
        for one in kept
    ]
    return tuple(sorted(found, key=lambda one: one.cosine))


def _first_steps(
    measurer: Measurer, judge: Judge, ranking: SensitivityTable, progress: Progress
) -> Iterator[SweepRow]:
    """Yield measured prefixes of a ranking up to half of it, until one meets the goal.

    Each is the largest that fits into a share of `STEPS`; ties are never parted, and where they
    carry even the first threshold beyond half of the nodes there is none.
    """
    prepared, order, scores = measurer.prepared, ranking.order(), printed(ranking)
    thresholds = dict.fromkeys(scores[i] for i in order if not math.isnan(scores[i]))
    prefixes = [(t, selected(ranking, t)) for t in thresholds]
    seen = 0
    for number, share in enumerate(STEPS):
        progress("diagnose", number + 2, len(STEPS) + 2)
        most = max(1, math.floor(share * len(order)))
        fitting = [one for one in prefixes if seen < len(one[1]) <= most]
        if not fitting:
            continue
        threshold, nodes = fitting[-1]
        seen = len(nodes)
        assignment = raised(prepared.plan, prepared.all("int8"), nodes)
        found = measurer(f"worst {len(nodes)}", assignment)
        yield SweepRow(threshold=threshold, nodes=nodes, evaluation=found)
        if judge.meets(found):
            return


def _ranked_advice(
    problem: Problem, judge: Judge, prepared: Prepared, ranking: SensitivityTable
) -> tuple[Advice, ...]:
    """Return what to try where all-INT16 is enough."""
    assert problem.int8.comparison is not None
    restricted = advice.output_advice(prepared.calibrated, problem.culprits, problem.failing)
    if problem.type is ProblemType.RANKING_WORKS:
        step = problem.steps[-1]
        enough = Advice(
            kind="raise",
            text=f"The worst {len(step.nodes)} of {problem.ranked} nodes by "
            f"{ranking.metrics[0]} are enough: jptq sweep finds the threshold.",
            flags=(f"--thresholds={step.threshold}",),
        )
        return (enough, *([restricted] if restricted is not None else []))
    candidates = [
        restricted,
        advice.metric_advice(
            problem.int8.comparison, () if judge.goal.min_score is None else problem.culprits
        ),
        advice.tie_advice(ranking),
        advice.subgraph_advice(prepared.calibrated, problem.culprits),
    ]
    return tuple(one for one in candidates if one is not None)


def _int16_fails(problem: Problem, measurer: Measurer, judge: Judge, samples: int) -> Problem:
    """Add the ceiling, what is left INT8, and what to try."""
    prepared = measurer.prepared
    assert problem.int16 is not None
    ceiling = measurer("true INT16", true_int16(prepared.plan))
    kept = ranked_leftovers(prepared, samples=samples)
    failed = advice.failing(judge.goal, problem.int16)
    met = judge.meets(ceiling)
    assert ceiling.comparison is not None
    lacking = [one.output for one in ceiling.comparison.outputs if one.broken]
    worst = {} if met or lacking else _worst_thresholds(prepared, samples)
    return dataclasses.replace(
        problem,
        type=ProblemType.INT16_FAILS,
        true_int16=ceiling,
        failing=failed,
        culprits=culprits(measurer, judge, prepared.all("int16"), failed),
        leftovers=kept,
        advice=(
            findings.float_advice(prepared, prepared.table(true_int16(prepared.plan)))
            if lacking
            else advice.compensation_advice(met, kept, told(ceiling), worst),
        ),
    )


def _worst_thresholds(prepared: Prepared, samples: int) -> dict[str, float]:
    """Return the operands that lose the outputs alone, as INT16: their thresholds do that."""
    plan = prepared.plan
    names = [one.name for one in plan.calibrations]
    table = rank_quantizers(prepared, true_int16(plan), names, samples=samples)
    scores = table.column(table.metrics[0])
    slots = {
        name: f"{slots.node}.input{index}"
        for slots in reversed(plan.slots)
        for index, name in slots.inputs.items()
    }
    return {
        slots.get(table.rows[i], table.rows[i]): float(scores[i])
        for i in table.order()
        if scores[i] < advice.HIGH_COSINE
    }


def of_steps(
    judge: Judge, int8: Evaluation, int16: Evaluation, prefixes: Mapping[int, Evaluation], of: int
) -> ProblemType | None:
    """Tell the problem type from what a search has run anyway; None if that does not decide.

    Args:
      judge: Knows the goal.
      int8: All-INT8.
      int16: All-INT16.
      prefixes: Evaluations by how many of the worst nodes were raised.
      of: Number of nodes in the ranking.
    """
    if judge.meets(int8):
        return ProblemType.NONE
    if not judge.meets(int16):
        return ProblemType.INT16_FAILS
    few = {count: e for count, e in prefixes.items() if count <= of * STEPS[-1]}
    if any(judge.meets(e) for e in few.values()):
        return ProblemType.RANKING_WORKS
    # The search takes its steps by bisection: the one at half of the ranking may be missing.
    if any(count >= of * STEPS[-2] for count in few):
        return ProblemType.RANKING_FAILS
    return None
