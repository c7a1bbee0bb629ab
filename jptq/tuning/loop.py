"""`jptq tune`: rank, propose, run, give back, and tell the story."""

from __future__ import annotations

import dataclasses
import time

from jptq import allocation, sensitivity
from jptq.results import Evaluation, Outcome, Report, SensitivityTable
from jptq.results.problem import Head
from jptq.tuning import blame
from jptq.tuning.beginning import begin
from jptq.tuning.compensating import Again, Compensated, compensated
from jptq.tuning.corners import Corners, corners, duals
from jptq.tuning.deadline import OutOfTime, bounded
from jptq.tuning.error_models import problems_of, rank_all, unranked
from jptq.tuning.evaluator import Evaluator
from jptq.tuning.exemptions import exempted
from jptq.tuning.goal import ROUNDING, Judge
from jptq.tuning.heads import find_head
from jptq.tuning.journal import Journal
from jptq.tuning.measure import Measurer
from jptq.tuning.options import Options
from jptq.tuning.outlook import Later, most_runs, silent
from jptq.tuning.prepare import Prepared, Progress, quiet
from jptq.tuning.ranges import integer_ranges, kept_inside
from jptq.tuning.reporting import report_of
from jptq.tuning.search import Search


def tune_network(
    prepared: Prepared,
    options: Options,
    again: Again | None,
    *,
    evaluator: Evaluator | None = None,
    journal: Journal | None = None,
    started: float | None = None,
    progress: Progress = quiet,
    later: Later = silent,
) -> tuple[Report, Prepared]:
    """Find the cheapest configuration that meets the goal; every claim in the report was measured.

    Where all-INT16 is not enough, second operators (ec) are added to what needs them.

    Args:
      prepared: The calibrated network.
      options: The goal and how to search.
      again: Prepares it by another configuration; None if ec is not to be tried.
      evaluator: Scores a forward; the outputs' cosine decides without one.
      journal: Keeps findings, for resuming.
      started: `time.monotonic` value that the time limit counts from; now if None.
      progress: Called as work goes on.
      later: Called with the seconds that what follows the present step takes at most, None if
        that is not known.

    Returns:
      The report, and the network that it speaks of: with second operators if ec was used.

    Raises:
      ConfigError: Options that contradict each other.
      EvaluatorError: The evaluator failed.
    """
    if options.time_limit_s is None:
        deadline = None
    else:
        deadline = (time.monotonic() if started is None else started) + options.time_limit_s
    options.check()
    plain = Measurer(options.allowed(prepared), evaluator, journal or Journal(None))
    judge = Judge(options.goal(prepared, evaluator))
    found, methods = None, plain.prepared.methods
    if again is not None:
        first = begin(plain, judge, options, again, deadline=deadline, progress=progress)
        plain, again, methods = first.measurer, first.again, first.methods
        prepared = plain.prepared
    corners(plain, progress=progress)
    if again is not None:
        kept = exempted(plain, judge, again, progress=progress)
        if kept is not None:
            remarks = (*prepared.remarks, kept.note)
            prepared = dataclasses.replace(kept.measurer.prepared, remarks=remarks)
            plain = plain.on(options.allowed(prepared))
        found = compensated(plain, judge, options, again, deadline=deadline, progress=progress)
    report, of = _ended(plain, judge, options, found, deadline, progress, later)
    return dataclasses.replace(report, methods=methods), of


def _ended(
    plain: Measurer,
    judge: Judge,
    options: Options,
    found: Compensated | None,
    deadline: float | None,
    progress: Progress,
    later: Later,
) -> tuple[Report, Prepared]:
    """Return the report of a network with ec, or without where that is better or all there is."""
    if found is None:
        return _tuned(plain, judge, options, None, deadline, progress, later), plain.prepared
    # With a budget the search may begin once more, without ec: how long that takes is not known.
    first = later if judge.goal.budget_us is None else silent
    report = _tuned(found.measurer, judge, options, found, deadline, progress, first)
    if judge.goal.budget_us is None or report.outcome is Outcome.MET:
        return report, found.measurer.prepared
    # Second operators take time of their own: within the budget the network may do better without.
    beyond = _beyond(judge, report, found.before)
    without = _tuned(plain, judge, options, None, deadline, progress, later, beyond=beyond)
    best, of = without, plain.prepared
    if judge.better(report.final, without.final):
        best, of = report, found.measurer.prepared
    return dataclasses.replace(best, evaluator_calls=plain.evaluator_calls), of


def tune_prepared(
    prepared: Prepared,
    options: Options,
    *,
    evaluator: Evaluator | None = None,
    journal: Journal | None = None,
    progress: Progress = quiet,
) -> Report:
    """Tune a network as it is: without ec, unless its configuration has some.

    Arguments and errors as `tune_network`.
    """
    report, _ = tune_network(
        prepared, options, None, evaluator=evaluator, journal=journal, progress=progress
    )
    return report


def _tuned(
    measurer: Measurer,
    judge: Judge,
    options: Options,
    compensation: Compensated | None,
    deadline: float | None,
    progress: Progress,
    later: Later,
    *,
    beyond: Evaluation | None = None,
) -> Report:
    """Find the cheapest configuration that meets the goal; every claim in the report is measured.

    Args:
      measurer: Runs the network.
      judge: Knows the goal.
      options: How to search.
      compensation: How the network came by its ec, and what it was without: the report compares
        with that.
      deadline: `time.monotonic` value after which no new run starts.
      progress: Called as work goes on.
      later: Called with the seconds that what follows the present step takes at most.
      beyond: What ec reached, at more time than the budget.
    """
    prepared, journal = measurer.prepared, measurer.journal
    # Without the corners there is nothing to report: the limit holds for what follows.
    measurer.deadline = None
    floating = measurer.floating()
    suffix = "" if compensation is None else " with ec"
    names = f"all-INT8{suffix}", f"all-INT16{suffix}"
    ends = prepared.all("int8"), prepared.all("int16")
    first, second = (measurer(*end) for end in zip(names, ends, strict=True))
    before = corners(measurer) if compensation is None else compensation.before
    measurer.deadline = deadline
    expected = most_runs(options, judge, prepared, first)
    runs_s = sum(expected.values()) * measurer.run_s
    late = False
    try:
        ranking, groups = rank_all(
            prepared,
            options,
            journal,
            bounded(progress, deadline),
            last=lambda: later(runs_s),
        )
    except OutOfTime:
        late = True
        ranking = unranked(prepared, sensitivity.METRICS_OF["metric"])
        groups = unranked(prepared, ranking.metrics[:1])
    problems = {} if late else problems_of(prepared, groups)
    least_us = first.time_us or 0.0
    if problems:
        least_us = allocation.least_us(next(iter(problems.values())))
    runs = 0

    def ran(what: str, left: int) -> None:
        nonlocal runs
        runs += 1
        later(0.0)
        progress(f"run {what}", runs, runs + left if left else 0)

    search = Search(measurer, judge, problems, mse=groups)
    for end in zip(names, ends, strict=True):
        search.run(*end)
    # The corners were measured before: counted, they would make a run look shorter than it is.
    search.progress = ran
    search.expect(**expected)
    head: Head | None = None
    too_small = not judge.affords_us(least_us)
    try:
        if too_small or late:
            pass
        elif options.search == "walk":
            if not judge.meets(first):
                search.begin("walk")
                search.walk_all(ranking)
        elif options.search == "head":
            search.begin("head")
            head = _head(search, judge, first, options)
        else:
            _search(search, judge, prepared, ranking, first, second, least_us, options.samples)
    except OutOfTime:
        late = True
    final = search.best()
    if judge.meets(final.evaluation) and judge.affords(final.evaluation):
        outcome = Outcome.MET
    elif too_small and compensation is None:
        outcome = Outcome.BUDGET_TOO_SMALL
    else:
        outcome = Outcome.OUT_OF_TIME if late else Outcome.NOT_MET
    ranges = integer_ranges(prepared, final.assignment, progress=progress)
    inside = None
    if ranges.changes and not late:
        inside = measurer.on(kept_inside(prepared))("within integers", final.assignment)
    return report_of(
        prepared,
        options,
        outcome,
        floating=floating,
        before=before,
        compensation=compensation,
        search=search,
        final=final,
        ranking=ranking,
        calls=measurer.evaluator_calls,
        least_us=least_us,
        late=late,
        beyond=beyond,
        head=head,
        ranges=ranges,
        inside=inside,
    )


def _beyond(judge: Judge, report: Report, before: Corners) -> Evaluation | None:
    """Return the fastest configuration with ec that keeps the quality, if there is one."""
    keeping = [step for step in report.steps[len(before.steps) :] if judge.meets(step)]
    return min(keeping, key=judge.expense, default=None)


def _head(search: Search, judge: Judge, int8: Evaluation, options: Options) -> Head | None:
    """Run the subgraph in front of what fails, if anything does."""
    outputs = blame.blamed(search.measurer, judge, int8)
    if not outputs:
        return None
    return find_head(search.measurer, judge, outputs, samples=options.samples, run=search.run)


def _search(
    search: Search,
    judge: Judge,
    prepared: Prepared,
    ranking: SensitivityTable,
    int8: Evaluation,
    int16: Evaluation,
    least_us: float,
    samples: int,
) -> None:
    """Run the proposals; `Search.steps` holds what came of it."""
    goal = judge.goal
    if goal.has_quality:
        # Measured times may know something faster than all-INT8.
        if judge.meets(int8) and (int8.time_us or 0.0) <= least_us * (1 + ROUNDING):
            return
        highest = duals(prepared)
        if not judge.meets(int16) and highest != prepared.all("int16"):
            search.run("all dual-INT16", highest)
        search.begin("ladder")
        search.ladder()
        search.begin("refine")
        search.refine()
        search.begin("walk")
        search.walk(blame.narrowed(search.measurer, judge, ranking, int8, samples=samples))
        search.begin("give_back")
        search.give_back()
        search.begin("undercut")
        undercut = search.undercut(ranking)
        search.begin("again")
        if undercut:
            search.give_back()
    if goal.budget_us is not None:
        best = search.best().evaluation
        if not (goal.has_quality and judge.meets(best) and judge.affords(best)):
            search.begin("propose")
            for share in (1.0, 0.98, 0.95, 0.9):
                search.propose(goal.budget_us * share)
