"""What a person reads: the vendor's tables, a terminal summary, ``report.md`` and its pictures."""

from __future__ import annotations

from pathlib import Path

from jptq import files
from jptq.report import curves, markdown
from jptq.report.terminal import Table, tables
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
    "distance_table",
    "info_table",
    "output_table",
    "score_table",
    "sensitivity_table",
    "tables",
    "write",
]


def write(report: Report, folder: Path) -> list[Path]:
    """Write ``report.md`` and its pictures; equal reports give equal bytes.

    Args:
      report: What a tuning found out.
      folder: Made if it is absent.

    Returns:
      The files, ``report.md`` first.

    Raises:
      StorageError: A file cannot be written.
    """
    # matplotlib takes a second to import: who only prints a table does not wait for it.
    from jptq.report import plots

    pictures = {
        "pareto": plots.draw_pareto(curves.pareto(report)),
        "outputs": plots.draw_outputs(curves.outputs(report)),
        "ranking": plots.draw_ranking(curves.ranking(report)),
    }
    written = []
    for name, png in pictures.items():
        path = folder / f"{name}.png"
        files.write_bytes(path, png)
        written.append(path)
    text = folder / "report.md"
    # Last, so that a report never shows a picture that is not there.
    files.write_text(text, markdown.render(report))
    return [text, *written]
