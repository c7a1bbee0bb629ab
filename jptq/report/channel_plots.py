"""The range of every channel of a tensor, as boxes or as bands (hmct-spec 3.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jptq.report import canvas
from jptq.report.canvas import GREY
from jptq.report.diagnosis_plots import TITLE_WIDTH

if TYPE_CHECKING:
    from jptq.diagnosis import Channels

MOST_BOXES = 64
"""Channels with a box each; more would be narrower than their lines."""


def draw_channels(channels: Channels) -> Figure:
    """Draw the range of every channel: quartiles, median, mean, least and largest value.

    A box per channel, or bands over all of them where boxes would need a wider picture.
    """
    count = len(channels.mean)
    boxes = count <= MOST_BOXES
    with canvas.styled():
        figure = canvas.blank(min(max(count / 2, 8.0), canvas.MOST_WIDTH), 6)
        axes = figure.add_subplot()
        if boxes:
            _boxes(axes, channels)
        else:
            _bands(axes, channels)
        step = canvas.step_of_names(count, 1.4 * figure.get_figwidth())
        axes.set_xticks(range(0, count, step), [str(c) for c in range(0, count, step)], fontsize=8)
        axes.set_xlim(-0.6, count - 0.4)
        title = canvas.label(channels.name, TITLE_WIDTH)
        axes.set_title(title if boxes else f"{title}\n{count} channels: bands instead of boxes")
        axes.set_xlabel("channel")
        axes.set_ylabel("Range of data in channel")
        handles = [
            axes.plot([], [], color=colour, linestyle=style, label=text)[0]
            for colour, style, text in (("red", "-", "median"), ("blue", "--", "mean"))
        ]
        axes.legend(
            handles=[*handles, *axes.collections],
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
        )
        return figure


def _boxes(axes: Axes, channels: Channels) -> None:
    boxes = [
        {
            "whislo": least,
            "q1": lower,
            "med": median,
            "q3": upper,
            "whishi": largest,
            "mean": mean,
            "fliers": [],
            "label": str(channel),
        }
        for channel, ((least, lower, median, upper, largest), mean) in enumerate(
            zip(channels.quartiles.tolist(), channels.mean.tolist(), strict=True)
        )
    ]
    if not boxes:
        axes.text(0.5, 0.5, "no channels", transform=axes.transAxes, ha="center")
        return
    axes.bxp(
        boxes,
        positions=range(len(boxes)),
        widths=0.6,
        showfliers=False,
        showmeans=True,
        meanline=True,
        patch_artist=True,
        boxprops={"facecolor": "#DCE9F5", "edgecolor": "#666666", "linewidth": 0.8},
        whiskerprops={"color": GREY, "linewidth": 0.8},
        capprops={"color": GREY, "linewidth": 0.8},
        medianprops={"color": "red", "linewidth": 1.3},
        meanprops={"color": "blue", "linestyle": "--", "linewidth": 1.1},
    )


def _bands(axes: Axes, channels: Channels) -> None:
    places = np.arange(len(channels.mean))
    least, lower, median, upper, largest = channels.quartiles.T
    for low, high, colour, text in (
        (least, largest, "#DDDDDD", "least to largest"),
        (lower, upper, "#A9CBE8", "quartiles"),
    ):
        axes.fill_between(
            places, low, high, step="mid", color=colour, edgecolor=colour, linewidth=0.6, label=text
        )
    axes.step(places, median, where="mid", color="red", linewidth=0.9)
    axes.step(places, channels.mean, where="mid", color="blue", linestyle="--", linewidth=0.7)
