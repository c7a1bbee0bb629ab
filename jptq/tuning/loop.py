"""`jptq tune`: rank, propose, run, give back, and tell the story."""

from __future__ import annotations

import dataclasses
import time

from jptq import allocation
from jptq.quant.assign import true_int16
from jptq.quant.emit import quant_config
from jptq.results import Evaluation, Outcome, Report, SensitivityTable
from jptq.results.problem import Head
from jptq.tuning import blame, story
from jptq.tuning.compensating import Again, Compensated, Corners, compensated, duals, left_int8
from jptq.tuning.error_models import problems_of, rank_all
from jptq.tuning.evaluator import Evaluator
from jptq.tuning.goal import Judge
from jptq.tuning.heads import find_head
from jptq.tuning.journal import Journal
from jptq.tuning.measure import Measurer
from jptq.tuning.options import Options
from jptq.tuning.prepare import Prepared, Progress, quiet
from jptq.tuning.search import OutOfTime, Search, Step


def tune_network(
    prepared: Prepared,
    options: Options,
    again: Again | None,
    *,
    evaluator: Evaluator | None = None,
    journal: Journal | None = None,
    progress: Progress = quiet,
) -> tuple[Report, Prepared]:
    """Find the cheapest configuration that meets the goal; every claim in the report was measured.

    Where all-INT16 is not enough, second operators (ec) are added to what needs them.

    Args:
      prepared: The calibrated network.
      options: The goal and how to search.
      again: Prepares it by another configuration; None if ec is not to be tried.
      evaluator: Scores a forward; the outputs' cosine decides without one.
      journal: Keeps findings, for resuming.
      progress: Called as work goes on.

    Returns:
      The report, and the network that it speaks of: with second operators if ec was used.

    Raises:
      ConfigError: Options that contradict each other.
      EvaluatorError: The evaluator failed.
    """
    started = time.monotonic()
    options.check()
    measurer = Measurer(options.allowed(prepared), evaluator, journal or Journal(None))
    judge = Judge(options.goal(prepared, evaluator))
    progress("measure", 0, 4)
    found = None
    if again is not None:
        found = compensated(measurer, judge, options, again, progress=progress)
    if found is not None:
        measurer = found.measurer
    deadline = None if options.time_limit_s is None else started + options.time_limit_s
    report = _tuned(measurer, judge, options, found, deadline, progress)
    return report, measurer.prepared


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
    """
    prepared, journal = measurer.prepared, measurer.journal
    floating = measurer.floating()
    ranking, groups = rank_all(prepared, options, journal, progress)
    problems = problems_of(prepared, groups)
    runs = 0

    def ran(what: str) -> None:
        nonlocal runs
        runs += 1
        progress(f"run {what}", runs, 0)

    search = Search(measurer, judge, problems, mse=groups, progress=ran)
    suffix = "" if compensation is None else " with ec"
    first = search.run(f"all-INT8{suffix}", prepared.all("int8"))
    second = search.run(f"all-INT16{suffix}", prepared.all("int16"))
    if compensation is None:
        ceiling = measurer("every quantizer INT16", true_int16(prepared.plan))
        before = Corners(
            int8=first,
            int16=second,
            ceiling=ceiling,
            left=left_int8(prepared),
            evaluator_calls=0,
        )
    else:
        before = compensation.before
    # Without these there is nothing to report: the limit holds for what follows.
    search.deadline = deadline
    outcome: Outcome | None = None
    walked: Step | None = None
    head: Head | None = None
    try:
        if _too_small(judge.goal.budget_us, next(iter(problems.values()))):
            outcome = Outcome.BUDGET_TOO_SMALL
        elif options.search == "walk":
            walked = search.walk_all(ranking) if not judge.meets(first) else None
        elif options.search == "head":
            head = _head(search, judge, first, options)
        else:
            _search(search, judge, prepared, ranking, first, second, options.samples)
    except OutOfTime:
        outcome = Outcome.OUT_OF_TIME
    final = search.best()
    if outcome is None or (outcome is Outcome.OUT_OF_TIME and _done(judge, final.evaluation)):
        met = _done(judge, final.evaluation)
        outcome = Outcome.MET if met else (outcome or Outcome.NOT_MET)
    return _report(
        prepared,
        options,
        outcome,
        floating=floating,
        before=before,
        compensation=compensation,
        search=search,
        final=final,
        ranking=ranking,
        calls=measurer.evaluator_calls + before.evaluator_calls,
        walked=walked,
        head=head,
    )


def _too_small(budget_us: float | None, problem: allocation.Problem) -> bool:
    # The sum of node times is exact to a few units in the last place.
    return budget_us is not None and budget_us < allocation.least_us(problem) * (1 - 1e-9)


def _done(judge: Judge, evaluation: Evaluation) -> bool:
    return judge.meets(evaluation) and judge.affords(evaluation)


def _head(search: Search, judge: Judge, int8: Evaluation, options: Options) -> Head | None:
    """Run the subgraph in front of what fails, if anything does."""
    outputs = blame.blamed(search.measurer, judge, int8)
    head = find_head(search.measurer, judge, outputs, samples=options.samples) if outputs else None
    if head is not None:
        search.run("head", head.assignment)
    return head


def _search(
    search: Search,
    judge: Judge,
    prepared: Prepared,
    ranking: SensitivityTable,
    int8: Evaluation,
    int16: Evaluation,
    samples: int,
) -> None:
    """Run the proposals; `Search.steps` holds what came of it."""
    goal = judge.goal
    if goal.has_quality:
        if judge.meets(int8):
            return
        highest = duals(prepared)
        if not judge.meets(int16) and highest != prepared.all("int16"):
            search.run("all dual-INT16", highest)
        search.ladder()
        search.refine()
        search.walk(blame.narrowed(search.measurer, judge, ranking, int8, samples=samples))
        search.give_back()
    if goal.budget_us is not None:
        best = search.best()
        if not goal.has_quality or not _done(judge, best.evaluation):
            for share in (1.0, 0.98, 0.95, 0.9):
                search.at(goal.budget_us * share)
                for name, problem in search.problems.items():
                    proposal = allocation.SOLVERS["milp"](problem, goal.budget_us * share)
                    if proposal.assignment:
                        search.run(f"{name} {goal.budget_us * share:.1f} us", proposal.assignment)


def _report(
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
    walked: Step | None,
    head: Head | None,
) -> Report:
    judge = search.judge
    steps = tuple(step.evaluation for step in search.steps)
    if compensation is not None:
        steps = (*before.steps, *steps)
    ended = dataclasses.replace(final.evaluation, name="final")
    cheapest = search.cheapest()
    reachable = []
    if outcome is not Outcome.MET:
        if cheapest is not None:
            reachable.append(cheapest.evaluation.name)
        reachable.append(max(steps, key=judge.quality).name)
    raised = story.raised(prepared, final.assignment, ranking)
    # A subgraph stays one: the shortest configuration would name its nodes.
    config = head.quant_config if head is not None and head.assignment == final.assignment else None
    return Report(
        model=prepared.name,
        march=prepared.target.march,
        calibration=prepared.method,
        samples=len(prepared.samples),
        goal=judge.goal,
        outcome=outcome,
        headline=story.headline(judge, before.int8, ended, raised),
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
        notes=(
            *story.notes(prepared, judge, outcome, before, compensation, raised),
            *story.diagnosis(judge, search.prefixes, before, ranking),
        ),
        walk_us=None if walked is None else walked.evaluation.time_us,
    )
