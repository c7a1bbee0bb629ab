"""The calibration methods that were compared, for the terminal and for ``report.md``."""

from __future__ import annotations

import math

from jptq.report import wording
from jptq.report.markup import code, plain, table
from jptq.report.table import RIGHT, Table
from jptq.results import MethodTrial, Report

MOST = 6
"""Methods that the terminal shows."""

_HEADER = (
    "method",
    "lost at INT8",
    "at INT16",
    "all-INT8 reaches",
    "all-INT16",
    "clips, at most",
)
"""Headings of `_row`."""


def tables(report: Report) -> tuple[Table, ...]:
    """Return what the terminal shows: the methods in front, nothing where there was no choice."""
    if len(report.methods) < 2:
        return ()
    shown = _ordered(report)[:MOST]
    rows = [(*_row(one), "taken" if one.chosen else "") for one in shown]
    if rest := len(report.methods) - len(shown):
        rows.append((f"and {rest} more in report.md", *("" for _ in rows[0][1:])))
    found = Table(
        title="Calibration methods: what the outputs lose, on some samples (measured)",
        header=(*_HEADER, ""),
        rows=tuple(rows),
        align=("left", *(RIGHT,) * 5, "left"),
    )
    return (found,)


def section(report: Report) -> list[str]:
    """Return the paragraphs of ``report.md``: all methods, what they clip, why each was left."""
    if len(report.methods) < 2:
        return []
    rows = [
        (
            *map(plain, _row(one)),
            code(one.clips) if one.clips_much else wording.NONE,
            f"**taken**: {plain(one.why)}" if one.chosen else plain(one.why),
        )
        for one in _ordered(report)
    ]
    return [
        "## How it is calibrated",
        "What the outputs lose is measured on some samples: 0 % is float, 100 % is noise, the mean "
        "over channels, outputs and samples. What is lost at INT16 no raised node gives back. What "
        "a method reaches is what the goal bounds; only methods in front are run for it.",
        table((*_HEADER, "clips most", ""), rows, ("left", *(RIGHT,) * 5, "left", "left")),
    ]


def _row(one: MethodTrial) -> tuple[str, ...]:
    return (
        method(one.method),
        wording.percent(one.int8),
        wording.percent(one.int16),
        _reached(one.int8_quality),
        _reached(one.int16_quality),
        f"{one.clipped:.3g}-fold" if one.clips_much else wording.NONE,
    )


def _reached(quality: float | None) -> str:
    if quality is None:
        return wording.NONE
    return wording.percent(quality) if math.isfinite(quality) else "no number"


def _ordered(report: Report) -> list[MethodTrial]:
    """Return the method that was taken, those that were scored, the others."""
    return sorted(
        report.methods,
        key=lambda one: (
            not one.chosen,
            one.int8_quality is None and one.int16_quality is None,
            one.int8,
        ),
    )


def method(tag: str) -> str:
    """Write the tag of a calibration method in words.

    Example:
      >>> method("max-percentile:percentile=0.99995,per_channel")
      'max 99.995 %, per channel'
    """
    name, _, rest = tag.partition(":")
    settings = dict(part.partition("=")[::2] for part in rest.split(",") if part)
    share = settings.get("percentile")
    words = [name if share is None else f"max {100 * float(share):.6g} %"]
    words += [
        text
        for key, text in (("per_channel", "per channel"), ("asymmetric", "asymmetric"))
        if key in settings
    ]
    return ", ".join(words)
