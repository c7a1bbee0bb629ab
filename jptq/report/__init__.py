"""What a person reads: the vendor's tables, a terminal summary, ``report.md`` and its pictures."""

from __future__ import annotations

from jptq.errors import printable
from jptq.report import curves, markdown
from jptq.report.table import Table
from jptq.report.terminal import agreement, tables
from jptq.report.text import (
    distance_table,
    info_table,
    output_table,
    score_table,
    sensitivity_table,
)
from jptq.results import Report

__all__ = [
    "Table",
    "agreement",
    "distance_table",
    "info_table",
    "output_table",
    "render",
    "score_table",
    "sensitivity_table",
    "tables",
]


def render(report: Report) -> dict[str, bytes]:
    """Return ``report.md`` and its pictures; equal reports give equal bytes.

    Args:
      report: What a tuning found out.

    Returns:
      ``{file name: content}``; ``report.md`` last, so that it never shows a picture that is not
      there.
    """
    # matplotlib takes a second to import: who only prints a table does not wait for it.
    from jptq.report import canvas, plots

    return {
        "pareto.png": canvas.png(plots.draw_pareto(curves.pareto(report))),
        "outputs.png": canvas.png(plots.draw_outputs(curves.outputs(report))),
        "ranking.png": canvas.png(plots.draw_ranking(curves.ranking(report))),
        "report.md": printable(markdown.render(report), lines=True).encode(),
    }
