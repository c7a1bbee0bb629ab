"""The short summary as plain data: whoever prints it decides how it looks."""

from __future__ import annotations

from collections.abc import Sequence

from jptq.report import methods, wording
from jptq.report.table import RIGHT, Table
from jptq.report.text import shorten
from jptq.results import Agreement, Evaluation, Report

MOST_RAISED = 12
"""Raised nodes that the terminal shows; the others are in ``report.md``."""

NAME_WIDTH = 48
"""Characters of a node's or output's name on the terminal."""


def tables(report: Report) -> tuple[Table, ...]:
    """Return what the terminal shows after a tuning, in order."""
    return (*methods.tables(report), compared(report), outputs(report), raised(report))


def compared(report: Report) -> Table:
    """Return the configurations side by side: scores, cosine, latency, share of INT16."""
    columns = wording.configurations(report)
    quantized = [evaluation for _, evaluation in columns[1:]]
    rows: list[tuple[str, ...]] = []
    for task in report.floating.scores:
        rows.append((f"{task} (measured)", *(wording.score(e.scores[task]) for _, e in columns)))
        rows.append(("  share of float", *(_share(e, task) for _, e in columns)))
    rows += [
        ("least mean cosine (measured)", *(wording.min_cosine(e) for _, e in columns)),
        *_hidden(columns),
        (
            f"latency, {wording.times(report.final)}",
            *(wording.micros(e.time_us) for _, e in columns),
        ),
        (
            "MACs in INT16 (counted)",
            wording.NONE,
            *(f"{100 * e.macs_int16:.1f} %" for e in quantized),
        ),
        ("nodes raised", wording.NONE, *(str(e.raised) for e in quantized)),
    ]
    return Table(
        title=f"{report.model} on {report.march}",
        header=("", *(name for name, _ in columns)),
        rows=tuple(rows),
        align=("left", *(RIGHT,) * len(columns)),
    )


def _hidden(columns: Sequence[tuple[str, Evaluation]]) -> list[tuple[str, ...]]:
    """Return rows for what the cosine does not show, where there is any."""
    found = [e.comparison.outputs if e.comparison is not None else () for _, e in columns]
    counted = {
        "channels lost (measured)": [sum(map(wording.lost, outputs)) for outputs in found],
        "elements not finite (measured)": [sum(o.broken for o in outputs) for outputs in found],
    }
    rows = [
        (title, wording.NONE, *map(str, counts[1:]))
        for title, counts in counted.items()
        if any(counts)
    ]
    equal = [[o.equal for o in outputs if o.equal is not None] for outputs in found[1:]]
    if all(equal):
        shares = (wording.percent(min(of)) for of in equal)
        rows.append(("least share of equal elements (measured)", wording.NONE, *shares))
    return rows


def _share(evaluation: Evaluation, task: str) -> str:
    share = evaluation.shares.get(task)
    return wording.NONE if share is None else wording.percent(share)


def outputs(report: Report) -> Table:
    """Return the errors of the final configuration at every output."""
    comparison = report.final.comparison
    errors = () if comparison is None else comparison.outputs
    return Table(
        title=f"Outputs of the final configuration against float ({report.samples} samples, "
        "measured)",
        header=(
            "output",
            "cosine mean",
            "cosine min",
            "L1 mean",
            "L2 mean",
            "Chebyshev max",
        ),
        rows=tuple(
            (
                shorten(output.output, NAME_WIDTH),
                wording.cosine(output.cosine.mean),
                wording.cosine(output.cosine.min),
                wording.error(output.l1.mean),
                wording.error(output.l2.mean),
                wording.error(output.chebyshev.max),
            )
            for output in errors
        ),
        align=("left", *(RIGHT,) * 5),
    )


def raised(report: Report) -> Table:
    """Return the nodes that do not run as INT8; the reason for each is in ``report.md``."""
    rows = [
        (
            shorten(node.node, NAME_WIDTH),
            node.candidate,
            f"{wording.rank(report, node)} of {len(report.sensitivity.rows)}",
            wording.cost(node.cost_us),
        )
        for node in report.raised[:MOST_RAISED]
    ]
    rest = len(report.raised) - MOST_RAISED
    if rest > 0:
        rows.append((f"and {rest} more in report.md", "", "", ""))
    return Table(
        title="Nodes that run finer than INT8" if rows else "Every node runs as INT8",
        header=("node", "runs as", "rank by its own error", wording.times(report.final)),
        rows=tuple(rows),
        align=("left", "left", "right", "right"),
    )


def agreement(found: Agreement) -> Table:
    """Return how far the exported file agrees with the forward, output by output."""
    sessions = [
        {output.output: output for output in found.outputs if output.optimized == optimized}
        for optimized in (True, False)
    ]
    rows = [
        (
            shorten(name, NAME_WIDTH),
            *(
                cell
                for session in sessions
                for cell in (f"{session[name].cosine:.7f}", wording.apart(session[name]))
            ),
        )
        for name in sessions[0]
    ]
    return Table(
        title=f"qdq_model.onnx in {found.runtime} against the quantized forward "
        f"({found.samples} samples, measured)",
        header=("output", "cosine", "apart at most", "cosine, unoptimized", "apart at most"),
        rows=tuple(rows),
        align=("left", *(RIGHT,) * 4),
    )
