"""What the pictures show, as data: `plots` only draws it."""

from __future__ import annotations

import dataclasses

import numpy as np

from jptq.report import wording
from jptq.report.scales import Span, reaching
from jptq.results import Evaluation, OutputError, Report

WORST_NODES = 30
WORST_OUTPUTS = 20

COSINE_FLOOR = 1e-8
"""Least ``1 - cosine`` that is drawn: below it float32 outputs are equal but for rounding."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bar:
    """One node of the ranking.

    Attributes:
      node: Its full name.
      error: Its own error as INT8, larger is worse.
      stderr: Standard error of `error`; 0 if exact.
      candidate: What the final configuration runs it as.
    """

    node: str
    error: float
    stderr: float
    candidate: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranking:
    """The head of the ranking, worst first.

    Attributes:
      quantity: What the bars measure.
      origin: Whether it was measured or predicted.
      bars: At most `WORST_NODES`, those without a finite score left out.
      nodes: Number of nodes that were ranked.
    """

    quantity: str
    origin: str
    bars: tuple[Bar, ...]
    nodes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """One measured configuration.

    Attributes:
      name: Of the configuration.
      time_us: Latency.
      quality: Worst share of float, or that of the outputs (`Comparison.quality`).
      text: How it is written.
    """

    name: str
    time_us: float
    quality: float
    text: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pareto:
    """Measured quality against latency.

    Attributes:
      is_share: The quality is a share of float, not a cosine.
      steps: Everything that was run.
      front: Points that no other one beats, fastest first.
      marked: ``all-INT8``, ``all-INT16``, ``final``.
      goal: Least quality that was asked for, or None.
      budget_us: Largest latency that was asked for, or None.
      time_is: Where the latencies are from.
    """

    is_share: bool
    steps: tuple[Point, ...]
    front: tuple[Point, ...]
    marked: tuple[Point, ...]
    goal: float | None
    budget_us: float | None
    time_is: str

    @property
    def span(self) -> Span:
        """The qualities that the picture shows.

        One configuration far below all others (an all-INT8 that detects nothing) would press the
        rest into a line: what is below is drawn at the edge, its value is in the legend. So would
        a goal that nothing comes near: it is only named then.
        """
        near = [point.quality for point in self.marked if point.name != "all-INT8"]
        every = [point.quality for point in (*self.steps, *self.marked)]
        best = max(every, default=1.0)
        lines = [1.0] if self.goal is None else [1.0, self.goal]
        room = max(best - min(every, default=best), 0.02)
        shown = reaching([*near, best], lines, room=room)
        edge = shown.low - 2.5 * max(shown.high - shown.low, 0.01)
        return Span(low=max(edge, min([*every, shown.low])), high=shown.high)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whisker:
    """``1 - cosine`` of an output over the samples, at least `COSINE_FLOOR`.

    All are NaN for an output whose elements are not finite.

    Attributes:
      mean: Mean over samples.
      best: Of the best sample.
      worst: Of the worst sample.
    """

    mean: float
    best: float
    worst: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    """Errors of the outputs under several configurations.

    Attributes:
      outputs: Names; the worst under the last configuration if there are many.
      series: ``{configuration: a whisker per output}``.
      left_out: Number of outputs that are not shown.
    """

    outputs: tuple[str, ...]
    series: dict[str, tuple[Whisker, ...]]
    left_out: int


def ranking(report: Report) -> Ranking:
    """Return the worst nodes by the ranking's first metric."""
    table = report.sensitivity
    metric = table.metrics[0]
    scores = table.column(metric)
    stderr = table.stderr[:, 0, 0]
    if metric == "cosine-similarity":
        errors, quantity = 1.0 - scores, "1 - cosine similarity"
    elif metric == "sqnr":
        # The vendor's sqnr is ten times the logarithm of a ratio of norms (hmct-spec 2.5).
        errors, quantity = 10.0 ** (-scores / 10.0), "|error| / |float|, from sqnr"
        stderr = errors * np.log(10.0) / 10.0 * stderr
    else:
        errors, quantity = scores, metric
    runs_as = {node.node: node.candidate for node in report.raised}
    runs_as |= {node.second: node.candidate for node in report.raised if node.second}
    bars = [
        Bar(
            node=table.rows[i],
            error=float(errors[i]),
            stderr=float(stderr[i]),
            candidate=runs_as.get(table.rows[i], "int8"),
        )
        for i in table.order()
        if np.isfinite(errors[i])
    ]
    return Ranking(
        quantity=quantity,
        origin=wording.origin(report),
        bars=tuple(bars[:WORST_NODES]),
        nodes=len(table.rows),
    )


def pareto(report: Report) -> Pareto:
    """Return the configurations that were run, as points."""

    def point(name: str, evaluation: Evaluation) -> tuple[Point, ...]:
        if evaluation.time_us is None:
            return ()
        text, quality = wording.quality(evaluation), evaluation.quality
        return (Point(name=name, time_us=evaluation.time_us, quality=quality, text=text),)

    is_share = bool(report.final.shares)
    front = [p for step in report.pareto for p in point(step.name, step)]
    return Pareto(
        is_share=is_share,
        steps=tuple(p for step in report.steps for p in point(step.name, step)),
        front=tuple(sorted(front, key=lambda p: (p.time_us, p.quality))),
        marked=tuple(
            p for name, evaluation in wording.buildable(report) for p in point(name, evaluation)
        ),
        goal=report.goal.min_score if is_share else report.goal.min_cosine,
        budget_us=report.goal.budget_us,
        time_is=report.final.time_is,
    )


def outputs(report: Report) -> Outputs:
    """Return ``1 - cosine`` of every output under all-INT8, all-INT16 and the final choice."""
    compared = {
        name: evaluation.comparison.outputs
        for name, evaluation in wording.buildable(report)
        if evaluation.comparison is not None
    }
    if not compared:
        return Outputs(outputs=(), series={}, left_out=0)
    last = list(compared.values())[-1]
    worst = sorted(range(len(last)), key=lambda i: last[i].cosine.mean)[:WORST_OUTPUTS]
    shown = sorted(worst)
    return Outputs(
        outputs=tuple(last[i].output for i in shown),
        series={
            name: tuple(_whisker(errors[i]) for i in shown) for name, errors in compared.items()
        },
        left_out=len(last) - len(shown),
    )


def _whisker(output: OutputError) -> Whisker:
    cosine = output.cosine
    values = np.asarray([cosine.mean, cosine.max, cosine.min])
    mean, best, worst = np.maximum(1.0 - values, COSINE_FLOOR).tolist()
    return Whisker(mean=mean, best=best, worst=worst)
