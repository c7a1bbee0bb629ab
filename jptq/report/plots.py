"""Three pictures. Equal reports give equal bytes: no window system, no user settings, no dates."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from jptq.report import canvas, scales, wording
from jptq.report.canvas import BLUE, GREEN, GREY, ORANGE, SKY
from jptq.report.curves import COSINE_FLOOR, Outputs, Pareto, Point, Ranking
from jptq.report.scales import Span

PRECISIONS = {
    "int8": ("stays INT8", SKY),
    "int16": ("raised to INT16", ORANGE),
    "dual-int16": ("raised to dual INT16", "#882255"),
    "float16": ("float16", "#CC79A7"),
    "float32": ("float32", "#000000"),
    "ec": ("compensated", GREEN),
    "int16-ec": ("INT16 and compensated", "#117733"),
}
"""``{candidate: (legend, colour)}``."""

CONFIGURATIONS = {
    "all-INT8": (SKY, "s"),
    "all-INT16": (BLUE, "D"),
    "final": (ORANGE, "*"),
}
"""``{configuration: (colour, marker)}``."""

_MOST_ERROR = 2.2
"""End of an axis of ``1 - cosine``, which is at most 2."""

_LEGEND_COLUMNS = 4

_DOTTED = (0, (1, 1.5))


def draw_ranking(ranking: Ranking) -> Figure:
    """Draw the worst nodes as horizontal bars on a logarithmic axis."""
    bars = ranking.bars
    with _figure(8.5, 1.3 + 0.215 * max(len(bars), 4)) as (figure, axes):
        positive = [bar.error for bar in bars if bar.error > 0] or [1.0]
        left = _decade_below(min(positive))
        widths = [max(bar.error, left) for bar in bars]
        places = list(range(len(bars)))
        axes.barh(
            places,
            widths,
            xerr=[
                [min(bar.stderr, 0.999 * width) for bar, width in zip(bars, widths, strict=True)],
                [bar.stderr for bar in bars],
            ]
            if any(bar.stderr for bar in bars)
            else None,
            color=[PRECISIONS[bar.candidate][1] for bar in bars],
            error_kw={"elinewidth": 0.9, "ecolor": "#333333"},
            height=0.74,
        )
        for place, bar, width in zip(places, bars, widths, strict=True):
            axes.annotate(
                wording.error(bar.error),
                (width + bar.stderr, place),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=7.5,
                color="#333333",
            )
        axes.set_xscale("log")
        # The longest bar keeps room for its value.
        right = max((bar.error + bar.stderr for bar in bars), default=0.0) or max(positive)
        axes.set_xlim(left, right * (right / left) ** 0.12)
        # Bars carry their values; labels between the decades run into each other.
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_yticks(places, [canvas.label(bar.node) for bar in bars], fontsize=8)
        axes.set_ylim(len(bars) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"{ranking.quantity}, only this node quantized as INT8 ({ranking.origin})")
        figure.suptitle(
            f"The {len(bars)} worst of {ranking.nodes} nodes"
            if len(bars) < ranking.nodes
            else f"All {len(bars)} nodes, worst first",
            x=0.01,
            ha="left",
            fontsize=12,
            fontweight="bold",
        )
        shown = {bar.candidate for bar in bars}
        figure.legend(
            handles=[
                Patch(color=colour, label=text)
                for name, (text, colour) in PRECISIONS.items()
                if name in shown
            ],
            loc="outside lower right",
            ncols=_LEGEND_COLUMNS,
        )
        return figure


def draw_pareto(pareto: Pareto) -> Figure:
    """Draw measured quality against modelled latency."""
    with _figure(9.5, 5.0) as (figure, axes):
        span = pareto.span if pareto.is_share else _cosine_span(pareto)
        _draw_points(axes, pareto, span.low if pareto.is_share else -math.inf)
        if pareto.is_share:
            _scale_shares(axes, pareto, span)
        else:
            _scale_cosines(axes, pareto, span)
        if pareto.budget_us is not None:
            _draw_budget(axes, pareto.budget_us)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10)))
        axes.xaxis.set_major_formatter(canvas.Plain())
        axes.set_xlabel(f"latency of one inference, µs ({pareto.time_is})")
        axes.set_title("Quality against latency")
        figure.legend(loc="outside right upper", labelspacing=0.9)
        return figure


def draw_outputs(outputs: Outputs) -> Figure:
    """Draw ``1 - cosine`` of every output as grouped bars with whiskers from best to worst."""
    count, groups = len(outputs.series), len(outputs.outputs)
    with _figure(8.5, 1.5 + max(0.62 * groups, 1.0)) as (figure, axes):
        thickness = 0.78 / max(count, 1)
        every = [whisker for whiskers in outputs.series.values() for whisker in whiskers]
        every = [whisker for whisker in every if math.isfinite(whisker.mean)]
        left = _decade_below(min((w.best for w in every), default=COSINE_FLOOR))
        for row, (name, whiskers) in enumerate(outputs.series.items()):
            means = [whisker.mean for whisker in whiskers]
            axes.barh(
                [group + (row - (count - 1) / 2) * thickness for group in range(groups)],
                means,
                xerr=[
                    [w.mean - w.best for w in whiskers],
                    [w.worst - w.mean for w in whiskers],
                ],
                color=CONFIGURATIONS[name][0],
                height=0.9 * thickness,
                label=name,
                error_kw={"elinewidth": 1.0, "ecolor": "#333333", "capsize": 2},
            )
            for group, whisker in enumerate(whiskers):
                if math.isnan(whisker.mean):
                    place = (left, group + (row - (count - 1) / 2) * thickness)
                    axes.annotate(f" {name}: not finite", place, va="center", fontsize=8)
        axes.set_xscale("log")
        # Whole decades: labels between them run into each other. No cosine is below -1.
        worst = max((w.worst for w in every), default=1.0)
        axes.set_xlim(left, min(10.0 ** math.ceil(math.log10(1.05 * worst)), _MOST_ERROR))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_yticks(range(groups), [canvas.label(name) for name in outputs.outputs])
        axes.set_ylim(groups - 0.45, -0.55)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("1 - cosine to float: mean over samples, whiskers best to worst (measured)")
        rest = f" (the {groups} worst, {outputs.left_out} left out)" if outputs.left_out else ""
        figure.suptitle(
            f"Error of the outputs{rest}", x=0.01, ha="left", fontsize=12, fontweight="bold"
        )
        figure.legend(loc="outside lower right", ncols=max(count, 1))
        return figure


def _draw_points(axes: Axes, pareto: Pareto, floor: float) -> None:
    height = _share_height if pareto.is_share else _cosine_height

    def heights(points: tuple[Point, ...]) -> list[float]:
        return [height(max(point.quality, floor)) for point in points]

    for marker, label, points in (
        ("o", "tried", tuple(point for point in pareto.steps if point.quality >= floor)),
        ("v", "tried, below the edge", tuple(p for p in pareto.steps if p.quality < floor)),
    ):
        if points:
            axes.scatter(
                [point.time_us for point in points],
                heights(points),
                s=18,
                marker=marker,
                color=GREY,
                linewidths=0,
                label=f"{label} ({len(points)})",
                zorder=2,
            )
    front = tuple(point for point in pareto.front if point.quality >= floor)
    axes.step(
        [point.time_us for point in front],
        heights(front),
        where="post",
        color=GREY,
        linewidth=1.2,
        label="best for its latency",
        zorder=1.5,
    )
    for point in pareto.marked:
        colour, marker = CONFIGURATIONS[point.name]
        below = point.quality < floor
        text = point.text
        axes.scatter(
            [point.time_us],
            heights((point,)),
            s=190 if marker == "*" else 60,
            marker="v" if below else marker,
            color=colour,
            edgecolors="white",
            linewidths=0.8,
            label=f"{point.name}{', below the edge' if below else ''}\n"
            f"{text}, {wording.micros(point.time_us)} µs",
            zorder=3,
            clip_on=False,
        )


def _draw_budget(axes: Axes, budget_us: float) -> None:
    """A budget far from the points would press them together: it is only named then."""
    low, high = axes.get_xlim()
    room = 0.5 * (high - low)
    far = "left" if budget_us < low - room else "right" if budget_us > high + room else ""
    label = f"budget: {wording.micros(budget_us)} µs{f' (far {far})' if far else ''}"
    if far:
        axes.plot([], [], color="#000000", linewidth=1.4, linestyle=_DOTTED, label=label)
    else:
        axes.axvline(budget_us, color="#000000", linewidth=1.4, linestyle=_DOTTED, label=label)


def _scale_shares(axes: Axes, pareto: Pareto, span: Span) -> None:
    axis = scales.widened(span, least=scales.SMALLEST_SHARES, margin=0.06)
    if span.low >= 0:  # the margin is no share
        axis = dataclasses.replace(axis, low=max(axis.low, 0.0))
    axes.set_ylim(100 * axis.low, 100 * axis.high)
    axes.yaxis.set_major_locator(MaxNLocator(7, steps=(1, 2, 5, 10)))
    axes.yaxis.set_major_formatter(canvas.Plain())
    axes.set_ylabel("worst score, % of float (measured)")
    _draw_line(axes, 100.0, axis.place(1.0), "float: 100 %", color="#333333", linewidth=1.0)
    if pareto.goal is not None:
        text = f"goal: {100 * pareto.goal:g} %"
        _draw_goal(axes, 100 * pareto.goal, axis.place(pareto.goal), text)


def _scale_cosines(axes: Axes, pareto: Pareto, span: Span) -> None:
    """Scale by ``1 - cosine``, the best cosine on top, and label by the cosine."""
    axes.set_yscale("log")
    axes.set_ylim(span.high, span.low)
    axes.yaxis.set_major_locator(FixedLocator(scales.error_ticks(span)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(scales.as_cosine))
    axes.set_ylabel("least mean cosine of any output (measured); float is 1")
    if pareto.goal is not None:
        error = _cosine_height(pareto.goal)
        where = {"below": "above", "above": "below"}.get(span.place(error), "")
        _draw_goal(axes, error, where, f"goal: {pareto.goal:g}")


def _cosine_span(pareto: Pareto) -> Span:
    """Return the errors that the picture shows."""
    points = [
        math.log10(_cosine_height(point.quality)) for point in (*pareto.steps, *pareto.marked)
    ]
    goal = [] if pareto.goal is None else [math.log10(_cosine_height(pareto.goal))]
    points = points or goal or [0.0]
    shown = scales.reaching(points, goal, room=max(max(points) - min(points), 1.0))
    axis = scales.widened(shown, least=scales.SMALLEST_DECADES, margin=0.06)
    return Span(low=10.0**axis.low, high=min(10.0**axis.high, _MOST_ERROR))


def _draw_goal(axes: Axes, height: float, where: str, text: str) -> None:
    _draw_line(axes, height, where, text, color=GREEN, linewidth=1.6, dashes=(5, 2))


def _draw_line(axes: Axes, height: float, where: str, text: str, **style: Any) -> None:
    """Draw a horizontal line; one outside the picture is only named, with where it is."""
    if where:
        axes.plot([], [], label=f"{text} (far {where})", **style)
    else:
        axes.axhline(height, label=text, **style)


def _share_height(quality: float) -> float:
    return 100.0 * quality


def _cosine_height(quality: float) -> float:
    return max(1.0 - quality, COSINE_FLOOR)


def _decade_below(value: float) -> float:
    return float(10.0 ** (math.floor(math.log10(value)) - (math.log10(value) % 1 < 0.15)))


@contextlib.contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """Yield a figure in inches; the user's own matplotlib settings do not reach it."""
    with canvas.styled():
        figure = canvas.blank(width, height)
        yield figure, figure.add_subplot()
