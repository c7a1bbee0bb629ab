"""Three pictures. Equal reports give equal bytes: no window system, no user settings, no dates."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullFormatter

from jptq.report import canvas, wording
from jptq.report.canvas import BLUE, GREEN, GREY, ORANGE, SKY
from jptq.report.curves import COSINE_FLOOR, Outputs, Pareto, Point, Ranking

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


def draw_ranking(ranking: Ranking) -> bytes:
    """Draw the worst nodes as horizontal bars on a logarithmic axis.

    Returns:
      A PNG file.
    """
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
            loc="outside upper right",
            ncols=len(PRECISIONS),
        )
        return canvas.png(figure)


def draw_pareto(pareto: Pareto) -> bytes:
    """Draw measured quality against modelled latency.

    Returns:
      A PNG file.
    """
    with _figure(9.5, 5.0) as (figure, axes):
        height = _share_height if pareto.is_share else _cosine_height
        floor = pareto.floor if pareto.is_share else -math.inf
        _draw_points(axes, pareto, floor)
        if pareto.is_share:
            axes.axhline(100.0, color="#333333", linewidth=1.0, label="float: 100 %")
            axes.set_ylabel("worst score, % of float (measured)")
            _stretch_shares(axes, pareto, floor)
        else:
            axes.set_yscale("log")
            # Whole decades: there is a labelled tick at both ends, however close the points are.
            shown = [height(point.quality) for point in (*pareto.steps, *pareto.marked)]
            shown += [] if pareto.goal is None else [height(pareto.goal)]
            axes.set_ylim(
                10.0 ** math.ceil(math.log10(1.05 * max(shown))),
                10.0 ** math.floor(math.log10(min(shown) / 1.05)),
            )
            axes.yaxis.set_major_formatter(FuncFormatter(_cosine_tick))
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.set_ylabel("least mean cosine of any output (measured); float is 1")
        if pareto.goal is not None:
            text = f"{100 * pareto.goal:g} %" if pareto.is_share else f"{pareto.goal:g}"
            axes.axhline(
                height(pareto.goal),
                color=GREEN,
                linewidth=1.6,
                dashes=(5, 2),
                label=f"goal: {text}",
            )
        if pareto.budget_us is not None:
            _draw_budget(axes, pareto.budget_us)
        axes.set_xlabel(f"latency of one inference, µs ({pareto.time_is})")
        axes.set_title("Quality against latency")
        figure.legend(loc="outside right upper", labelspacing=0.9)
        return canvas.png(figure)


def draw_outputs(outputs: Outputs) -> bytes:
    """Draw ``1 - cosine`` of every output as grouped bars with whiskers from best to worst.

    Returns:
      A PNG file.
    """
    count, groups = len(outputs.series), len(outputs.outputs)
    with _figure(8.5, 1.5 + max(0.62 * groups, 1.0)) as (figure, axes):
        thickness = 0.78 / max(count, 1)
        best = [w.best for whiskers in outputs.series.values() for w in whiskers]
        left = _decade_below(min(best, default=COSINE_FLOOR))
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
        axes.set_xscale("log")
        axes.set_xlim(left=left)
        axes.set_yticks(range(groups), [canvas.label(name) for name in outputs.outputs])
        axes.set_ylim(groups - 0.45, -0.55)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("1 - cosine to float: mean over samples, whiskers best to worst (measured)")
        rest = f" (the {groups} worst, {outputs.left_out} left out)" if outputs.left_out else ""
        figure.suptitle(
            f"Error of the outputs{rest}", x=0.01, ha="left", fontsize=12, fontweight="bold"
        )
        figure.legend(loc="outside upper right", ncols=max(count, 1))
        return canvas.png(figure)


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
        text = wording.percent(point.quality) if pareto.is_share else wording.cosine(point.quality)
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
    """A budget far to the right would press the points together: it is only named then."""
    low, high = axes.get_xlim()
    far = budget_us > high + 0.5 * (high - low)
    label = f"budget: {wording.micros(budget_us)} µs{' (far right)' if far else ''}"
    axes.axvline(
        high if far else budget_us,
        color="#000000",
        linewidth=1.4,
        linestyle="None" if far else (0, (1, 1.5)),
        label=label,
    )


def _stretch_shares(axes: Axes, pareto: Pareto, floor: float) -> None:
    top = max(1.0, *(point.quality for point in (*pareto.steps, *pareto.marked)))
    margin = 0.06 * max(top - floor, 0.002)
    axes.set_ylim(100 * (floor - margin), 100 * (top + margin))


def _share_height(quality: float) -> float:
    return 100.0 * quality


def _cosine_height(quality: float) -> float:
    return max(1.0 - quality, COSINE_FLOOR)


def _cosine_tick(error: float, _: int | None = None) -> str:
    """Write a decade of ``1 - cosine`` as the cosine itself: 0.9, 0.99, 0.999."""
    digits = max(0, round(-math.log10(error)))
    return f"{1.0 - error:.{digits}f}"


def _decade_below(value: float) -> float:
    return float(10.0 ** (math.floor(math.log10(value)) - (math.log10(value) % 1 < 0.15)))


@contextlib.contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """Yield a figure in inches; the user's own matplotlib settings do not reach it."""
    with canvas.styled():
        figure = canvas.blank(width, height)
        yield figure, figure.add_subplot()
