"""The debugger's pictures (hmct-spec 3.4): figures that a test can look into, and their files."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from jptq import files
from jptq.report import canvas
from jptq.report.canvas import BLUE, GREEN, ORANGE, SKY

if TYPE_CHECKING:
    from jptq.diagnosis import (
        Histogram,
        OutputDistribution,
        QuantizerDistribution,
        TensorStatistics,
    )

RED, BLACK, PURPLE, YELLOW = "#C00000", "#222222", "#CC79A7", "#E69F00"

CURVES = (BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY, BLACK)
DASHES = ("-", "--", ":", "-.")
"""Colours repeat with another dash: 28 curves are told apart."""

LABEL_WIDTH = 32
TITLE_WIDTH = 56

TITLE_SIZE = 10.5
"""Points; such a title fits over the axes with the legend beside them."""


def draw_acc_error(title: str, metric: str, curves: Mapping[str, np.ndarray]) -> Figure:
    """Draw a metric at every node output, a curve per partially quantized network.

    Args:
      title: Of the figure.
      metric: Name of the vertical axis.
      curves: ``{label: float64[N]}``; what is not finite is left out.
    """
    with canvas.styled():
        figure = canvas.blank(8, 6)
        axes = figure.add_subplot()
        for number, (name, values) in enumerate(curves.items()):
            shown = np.flatnonzero(np.isfinite(values))
            axes.plot(
                shown,
                values[shown],
                color=CURVES[number % len(CURVES)],
                linestyle=DASHES[number // len(CURVES) % len(DASHES)],
                linewidth=1.3,
                # One point makes no line.
                marker="o" if shown.size < 2 else None,
                label=canvas.label(name, LABEL_WIDTH),
            )
        axes.set_title(canvas.label(title, TITLE_WIDTH))
        axes.set_xlabel("node index")
        axes.set_ylabel(metric)
        axes.margins(x=0.01)
        axes.legend(
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
            fontsize=8 if len(curves) <= 24 else 5,
        )
        return figure


def draw_quantizer(
    distribution: QuantizerDistribution, statistics: TensorStatistics | None = None
) -> Figure:
    """Draw what a quantizer takes in, and its thresholds; of a weight also what it gives out.

    Args:
      distribution: Of one quantizer.
      statistics: Numbers to stand beside it; what it gives out is drawn then, too.
    """
    weight = distribution.kind == "weight"
    name = canvas.label(distribution.calibration, TITLE_WIDTH)
    with canvas.styled():
        figure = canvas.blank(8 if statistics is None else 11, 6)
        axes = figure.add_subplot()
        _fill(axes, distribution.before, "Before calibration" if weight else "Input data")
        if weight or statistics is not None:
            _points(axes, distribution.after, "After calibration")
        several = distribution.grids > 1
        name_of = f"widest of {distribution.grids} thresholds" if several else "threshold"
        _mark_limits(axes, distribution.limits, distribution.before, name_of)
        if not weight:
            _mark_largest(axes, distribution)
        axes.set_title(
            f"{name} weight distribution\ncosine-similarity:{distribution.cosine:.6f}"
            if weight
            else f"Input data distribution\n{name} ({distribution.qtype})",
            fontsize=TITLE_SIZE,
        )
        _finish(axes)
        if statistics is not None:
            axes.text(
                1.02,
                0.6,
                "\n".join(f"{key:<11}{value}" for key, value in _facts(statistics).items()),
                transform=axes.transAxes,
                family="monospace",
                fontsize=8,
                va="top",
            )
        return figure


def draw_output(distribution: OutputDistribution) -> Figure:
    """Draw a node's output with and without quantizers, and below the difference."""
    node = canvas.label(distribution.node, TITLE_WIDTH)
    with canvas.styled():
        figure = canvas.blank(8, 8)
        top, bottom = figure.subplots(2, 1)
        _fill(top, distribution.before, "Before calibration")
        top.stairs(
            _visible(distribution.after.counts),
            distribution.after.edges,
            color=ORANGE,
            linewidth=0.9,
            label="After calibration",
        )
        _mark_limits(top, distribution.limits, distribution.before, "threshold")
        top.set_title(f"Output data distribution\n{node}", fontsize=TITLE_SIZE)
        _finish(top)
        _fill(bottom, distribution.error, "after - before")
        for value, name, style in (
            (distribution.mean_error, "mean", "--"),
            (distribution.rms_error, "root mean square", ":"),
        ):
            bottom.axvline(
                value, color=RED, linestyle=style, linewidth=1.3, label=f"{name}: {value:.4g}"
            )
        bottom.set_title("Quantization error distribution", fontsize=TITLE_SIZE)
        _finish(bottom)
        return figure


def draw_partial(
    metric: str,
    labels: Sequence[str],
    cumulative: Sequence[float],
    sensitivities: Mapping[str, float],
    *,
    output: str = "",
) -> Figure:
    """Draw what taking one node's quantizers after the other's away gains.

    Args:
      metric: What is drawn.
      labels: ``none``, then the nodes in the order of their turn.
      cumulative: The metric behind each step.
      sensitivities: The metric with only this node quantized.
      output: The one graph output that is compared, or "" for all.
    """
    ylabel = "Cosine Similarity" if metric == "cosine-similarity" else metric
    with canvas.styled():
        width = min(max(8.0, 2.5 + 0.3 * len(labels)), canvas.MOST_WIDTH)
        named = canvas.step_of_names(0.22 * len(labels), width - 2.5)
        figure = canvas.blank(width, 6.5)
        axes = figure.add_subplot()
        if metric == "cosine-similarity":
            axes.axhline(1.0, color=BLACK, linestyle="--", linewidth=1.0, label="baseline")
        places = range(len(labels))
        axes.plot(
            places,
            cumulative,
            color="red",
            marker="o",
            markersize=3.5,
            linewidth=1.3,
            label="partial quantization cumulative error",
        )
        known = [(i, sensitivities[name]) for i, name in enumerate(labels) if name in sensitivities]
        axes.plot(
            [i for i, _ in known],
            [value for _, value in known],
            color="green",
            linestyle="none",
            marker="x",
            label="per-node quantization sensitivity",
        )
        axes.set_xticks(
            places[::named],
            [canvas.label(name, LABEL_WIDTH) for name in labels[::named]],
            rotation=60,
            ha="right",
            rotation_mode="anchor",
            fontsize=8,
        )
        shown = f"\noutput {canvas.label(output, TITLE_WIDTH)}" if output else ""
        axes.margins(x=0.02)
        axes.set_title(f"Partial Quantization Analysis{shown}")
        axes.set_xlabel("node" if named == 1 else f"node, one in {named} is named")
        axes.set_ylabel(ylabel)
        figure.legend(loc="outside lower center", ncols=3)
        return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG file and return its path.

    Raises:
      StorageError: It cannot be written.
    """
    files.write_bytes(path, canvas.png(figure))
    return path


def file_name(name: str) -> str:
    """Return a name as a part of a file name: the vendor's ``/`` -> ``_``, and no surprises.

    Characters that some file system forbids become ``_`` too; a name too long for one keeps its
    end, which tells nodes apart.
    """
    return re.sub(r'[\\/*?"<>|\x00-\x1f]', "_", name)[-180:]


def _fill(axes: Axes, histogram: Histogram, label: str) -> None:
    axes.stairs(
        _visible(histogram.counts),
        histogram.edges,
        fill=True,
        baseline=0.5,
        color=SKY,
        # Bins are narrower than a pixel: a few values would not be seen.
        edgecolor=SKY,
        linewidth=0.7,
        alpha=0.75,
        label=label,
    )


def _points(axes: Axes, histogram: Histogram, label: str) -> None:
    """A grid is hit at single points: a line through them would be a solid block."""
    hit = histogram.counts > 0
    axes.plot(
        histogram.centres[hit],
        histogram.counts[hit],
        color=ORANGE,
        linestyle="none",
        marker=".",
        markersize=3.5,
        label=label,
    )


def _visible(counts: np.ndarray) -> np.ndarray:
    """Counts on a logarithmic axis: none is half of one."""
    return np.asarray(np.maximum(counts, 0.5))


def _mark_limits(axes: Axes, limits: tuple[float, float], values: Histogram, name: str) -> None:
    """Draw thresholds; that below 0 only where there are values below 0, or it is no mirror."""
    low, high = limits
    if not math.isfinite(high):
        return
    one_sided = low == -high and values.edges[0] >= 0
    for limit in (high,) if one_sided else (low, high):
        axes.axvline(
            limit,
            color=RED,
            linestyle="--",
            linewidth=1.3,
            label=f"{name}: {_range(low, high)}" if limit == high else None,
        )


def _mark_largest(axes: Axes, distribution: QuantizerDistribution) -> None:
    edges = distribution.before.edges
    side = 1 if edges[-1] >= -edges[0] else -1
    axes.plot(
        [side * distribution.largest],
        [0.5],
        color=BLACK,
        linestyle="none",
        marker="v",
        markersize=8,
        clip_on=False,
        label=f"max |x|: {distribution.largest:.6g}",
    )


def _finish(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.set_ylim(0.5, max(20.0, axes.get_ylim()[1]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("data range")
    axes.set_ylabel("Total number of data")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8)


def _range(low: float, high: float) -> str:
    return f"±{high:.6g}" if low == -high else f"{low:.6g} to {high:.6g}"


def _facts(statistics: TensorStatistics) -> dict[str, str]:
    """Return what a person wants to know about a tensor."""
    s = statistics
    facts = {
        "min": f"{s.minimum:.6g}",
        "max": f"{s.maximum:.6g}",
        "mean": f"{s.mean:.6g}",
        "std": f"{s.std:.6g}",
        "zeros": f"{100 * s.zeros:.4g} %",
        **{f"{p:g} %": f"{value:.6g}" for p, value in s.percentiles.items()},
        "clipped": f"{100 * s.clipped:.4g} %",
    }
    if s.used_bits is not None:
        facts["used bits"] = f"{s.used_bits:.2f}"
    if s.sqnr_db is not None:
        facts["sqnr"] = f"{s.sqnr_db:.1f} dB"
    facts["samples"] = str(s.samples) if s.samples else "constant"
    return facts
