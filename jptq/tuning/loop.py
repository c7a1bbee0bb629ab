"""`jptq tune`: rank, propose, run, give back, and tell the story."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from jptq import allocation, files, sensitivity
from jptq.errors import ConfigError
from jptq.quant.assign import true_int16
from jptq.quant.emit import quant_config
from jptq.registry import lookup
from jptq.results import (
    Evaluation,
    Goal,
    Outcome,
    Report,
    SensitivityTable,
)
from jptq.results.problem import Head
from jptq.sensitivity import exact
from jptq.tuning import blame, story
from jptq.tuning.evaluator import Evaluator
from jptq.tuning.goal import Judge
from jptq.tuning.heads import find_head
from jptq.tuning.journal import Journal
from jptq.tuning.measure import Measurer
from jptq.tuning.prepare import Prepared, Progress, quiet, spread
from jptq.tuning.search import OutOfTime, Search, Step

_log = logging.getLogger(__name__)

SEARCHES = ("milp", "walk", "head")

VIEWS = ("channel-nsr", "nsr", "mse")
"""How the exact sweep's errors are looked at; none of them orders every network well."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How to tune.

    Attributes:
      min_score: Share of float that every score must keep.
      min_cosine: Mean cosine that every output must keep; used without an evaluator.
      latency_budget_us: Largest modelled latency.
      latency_budget_ratio: The same, relative to modelled all-INT8.
      quality: Whether a quality is asked for at all; False with only a budget.
      method: How the search ranks: a key of `sensitivity.METHODS`.
      search: ``milp``, ``walk`` (the documented node-by-node walk), or ``head`` (the subgraph in
        front of the failing output).
      samples: Samples for sensitivity, taken evenly from the set.
      seed: Of everything random.
      loss: ``loss(outputs, feeds)`` for methods with a gradient.
      time_limit_s: No new run starts after this.
    """

    min_score: float | None = 0.99
    min_cosine: float | None = 0.99
    latency_budget_us: float | None = None
    latency_budget_ratio: float | None = None
    quality: bool = True
    method: str = "metric"
    search: str = "milp"
    samples: int = 8
    seed: int = 0
    loss: sensitivity.Loss | None = None
    time_limit_s: float | None = None


def tune_prepared(
    prepared: Prepared,
    options: Options,
    *,
    evaluator: Evaluator | None = None,
    journal: Journal | None = None,
    progress: Progress = quiet,
) -> Report:
    """Find the cheapest configuration that meets the goal; every claim in the report was measured.

    Args:
      prepared: The calibrated network.
      options: The goal and how to search.
      evaluator: Scores a forward; the outputs' cosine decides without one.
      journal: Keeps findings, for resuming.
      progress: Called as work goes on.

    Raises:
      ConfigError: Options that contradict each other.
      EvaluatorError: The evaluator failed.
    """
    started = time.monotonic()
    lookup(dict.fromkeys(SEARCHES), options.search, "search", where="--search")
    lookup(sensitivity.METHODS, options.method, "method", where="--method")
    journal = journal or Journal(None)
    goal = _goal(prepared, options, evaluator)
    judge = Judge(goal)
    measurer = Measurer(prepared, evaluator, journal)
    progress("measure", 0, 4)
    floating = measurer.floating()
    int8, int16 = prepared.all("int8"), prepared.all("int16")
    ranking, groups = _rank(prepared, options, journal, progress)
    problems = _problems(prepared, groups)
    runs = 0

    def ran(what: str) -> None:
        nonlocal runs
        runs += 1
        progress(f"run {what}", runs, 0)

    search = Search(measurer, judge, problems, mse=groups, progress=ran)
    first = search.run("all-INT8", int8)
    second = search.run("all-INT16", int16)
    ceiling = measurer("every quantizer INT16", true_int16(prepared.plan))
    # Without these three there is nothing to report: the limit holds for what follows.
    if options.time_limit_s is not None:
        search.deadline = started + options.time_limit_s
    outcome: Outcome | None = None
    walked: Step | None = None
    head: Head | None = None
    try:
        if goal.budget_us is not None and goal.budget_us < allocation.least_us(
            next(iter(problems.values()))
        ) * (1 - 1e-9):
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
        goal,
        outcome,
        floating=floating,
        int8=first,
        int16=second,
        ceiling=ceiling,
        search=search,
        final=final,
        ranking=ranking,
        groups=groups,
        calls=measurer.evaluator_calls,
        walked=walked,
        head=head,
    )


def _done(judge: Judge, evaluation: Evaluation) -> bool:
    return judge.meets(evaluation) and judge.affords(evaluation)


def _goal(prepared: Prepared, options: Options, evaluator: Evaluator | None) -> Goal:
    budget = options.latency_budget_us
    if options.latency_budget_ratio is not None:
        if budget is not None:
            raise ConfigError(
                "both --latency_budget_us and --latency_budget_ratio are given", hint="give one"
            )
        budget = options.latency_budget_ratio * prepared.latency.total_us(prepared.all("int8"))
    if not options.quality:
        return Goal(budget_us=budget)
    if evaluator is not None:
        return Goal(min_score=options.min_score, budget_us=budget)
    return Goal(min_cosine=options.min_cosine, budget_us=budget)


def duals(prepared: Prepared) -> dict[str, str]:
    """Return all-INT16 with every second operand INT16 that the target allows as dual-int16."""
    out = prepared.all("int16")
    for calibration in prepared.plan.calibrations:
        if calibration.dual:
            out[calibration.name] = "int16"
    return out


def _rank(
    prepared: Prepared, options: Options, journal: Journal, progress: Progress
) -> tuple[SensitivityTable, SensitivityTable]:
    """Return the ranking of nodes (the vendor's) and the errors of groups for the search."""
    samples = spread(prepared.samples, options.samples)
    base = prepared.all("int8")
    nodes = sensitivity.rows_of(prepared.calibrated, prepared.plan, "node")
    groups = sensitivity.rows_of(
        prepared.calibrated, prepared.plan, "group", candidates=("int8", "int16")
    )
    # A loss is code of the user: its errors are not kept between runs.
    kept_errors = Journal(None) if options.loss is not None else journal
    identity = files.digest(prepared.digest, str(options.samples), str(options.seed))

    def kept(
        kind: str, journal: Journal, compute: Callable[[], SensitivityTable]
    ) -> SensitivityTable:
        stored = journal.load(kind, identity)
        if stored is not None:
            return SensitivityTable.from_json(stored)
        table = compute()
        journal.save(kind, identity, content=table.to_json())
        return table

    ranking = kept(
        "ranking",
        journal,
        lambda: exact.rank(
            prepared.runner,
            prepared.thresholds,
            base,
            nodes,
            samples,
            metrics=sensitivity.METRICS_OF["metric"],
            progress=lambda done, total: progress("rank nodes", done, total),
        ),
    )

    def errors() -> SensitivityTable:
        if options.method == "metric":
            return exact.rank(
                prepared.runner,
                prepared.thresholds,
                base,
                groups,
                samples,
                metrics=("mse", "nsr", "channel-nsr"),
                progress=lambda done, total: progress("rank quantizers", done, total),
            )
        extra: dict[str, Any] = {}
        if options.method in ("probe", "hessian"):
            extra["seed"] = options.seed
        if options.method in ("gradient", "hessian") and options.loss is not None:
            extra["loss"] = options.loss
        metric = "mse" if options.method == "probe" else sensitivity.METRICS_OF[options.method][-1]
        found = sensitivity.METHODS[options.method](
            prepared.runner,
            prepared.thresholds,
            base,
            groups,
            samples,
            metrics=(metric,),
            progress=lambda done, total: progress("rank quantizers", done, total),
            **extra,
        )
        if options.method == "probe":
            found = sensitivity.rescore(
                found, prepared.runner, prepared.thresholds, base, groups, samples
            )
        return dataclasses.replace(found, metrics=("mse",))

    return ranking, kept(f"errors-{options.method}", kept_errors, errors)


def _problems(prepared: Prepared, groups: SensitivityTable) -> dict[str, allocation.Problem]:
    """Return the error models: all views together first, then each alone.

    Each view is turned into shares of its own all-INT8 total, so that outputs and units mix.
    """
    views = [name for name in VIEWS if name in groups.metrics]
    tables = []
    for name in views:
        column = groups.metrics.index(name)
        values = groups.score[:, :, column : column + 1]
        total = float(np.nansum(values[:, 0]))
        tables.append(
            dataclasses.replace(
                groups, metrics=("share",), score=values / (total or 1.0), stderr=values * 0.0
            )
        )
    together = allocation.build(
        prepared.plan,
        prepared.latency,
        *tables,
        metric="share",
        weights=[1.0 / len(tables)] * len(tables),
    )
    out = {"all views": together} if len(tables) > 1 else {}
    for name, one in zip(views, tables, strict=True):
        out[name] = allocation.build(prepared.plan, prepared.latency, one, metric="share")
    return out


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
        if not judge.meets(int16):
            search.run("all dual-INT16", duals(prepared))
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
    goal: Goal,
    outcome: Outcome,
    *,
    floating: Evaluation,
    int8: Evaluation,
    int16: Evaluation,
    ceiling: Evaluation,
    search: Search,
    final: Step,
    ranking: SensitivityTable,
    groups: SensitivityTable,
    calls: int,
    walked: Step | None,
    head: Head | None,
) -> Report:
    judge = search.judge
    steps = tuple(step.evaluation for step in search.steps)
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
        goal=goal,
        outcome=outcome,
        headline=story.headline(judge, int8, ended, raised),
        floating=floating,
        int8=dataclasses.replace(int8, name="int8"),
        int16=dataclasses.replace(int16, name="int16"),
        true_int16=ceiling,
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
        notes=story.notes(
            prepared, judge, outcome, int8=int8, int16=int16, ceiling=ceiling, raised=raised
        )
        + story.diagnosis(judge, search.prefixes, int8=int8, int16=int16, ranking=ranking),
        walk_us=None if walked is None else walked.evaluation.time_us,
    )
