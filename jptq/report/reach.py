"""Thresholds that stop early, and those far above nearly all values, for ``report.md``."""

from __future__ import annotations

from collections.abc import Sequence

from jptq.report.markup import code, plain, table
from jptq.report.table import RIGHT, Align
from jptq.results import Limit, Outlying, Report
from jptq.results.reach import listed

MOST = 20
"""Rows of a table."""


def section(report: Report) -> list[str]:
    """Return the paragraphs of ``report.md``; nothing where all thresholds are ordinary."""
    blocks = [*_limits(report.limits), *_outlying(report.outlying)]
    return ["## Which values the grids leave out", *blocks] if blocks else []


def _limits(limits: Sequence[Limit]) -> list[str]:
    if not limits:
        return []
    most = sorted(limits, key=lambda one: one.after / one.before)
    rows = [
        (
            code(one.calibration),
            f"{one.least:.4g} to {one.largest:.4g}",
            f"{max(one.least, one.low):.4g} to {min(one.largest, one.high):.4g}",
            plain(listed(one.by)),
        )
        for one in most[:MOST]
    ]
    left: Align = "left"
    blocks = [
        "What nobody behind a tensor tells apart needs no steps: these thresholds stop where every "
        "reader's output is the same beyond, within half an INT16 step. They are in "
        "`calibrated_model.onnx`, which `calibration_type: load` takes as it is; the vendor's own "
        "calibration goes on to the largest values (`--reach=false` does so here).",
        table(("quantizer", "values", "told apart", "by"), rows, (left, RIGHT, RIGHT, left)),
    ]
    return [*blocks, *_more(len(limits))]


def _outlying(outlying: Sequence[Outlying]) -> list[str]:
    if not outlying:
        return []
    rows = [
        (
            code(one.calibration),
            f"{one.threshold:.4g}",
            f"{one.usual:.2g}",
            f"{one.steps:.1f}",
            plain(listed(one.by)),
        )
        for one in outlying[:MOST]
    ]
    left: Align = "left"
    blocks = [
        "These thresholds are far above nearly all values of their tensor, which share few steps "
        "of INT8. The readers tell the large ones apart, so that nothing is cut off:",
        table(
            ("quantizer", "threshold", "99.9 % are below", "INT8 steps up to there", "read by"),
            rows,
            (left, RIGHT, RIGHT, RIGHT, left),
        ),
    ]
    return [*blocks, *_more(len(outlying))]


def _more(count: int) -> list[str]:
    return [f"And {count - MOST} more (`result.json`)."] if count > MOST else []
