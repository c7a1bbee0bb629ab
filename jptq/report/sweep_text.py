"""The tables of a sweep, one row per threshold, as the vendor's tuning chapter lays them out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jptq.errors import printable
from jptq.report import wording
from jptq.report.text import score_table, share_cell
from jptq.results import Evaluation, Spread
from jptq.results.problem import Problem
from jptq.results.sweep import Sweep

GAP = "  "
"""Between two columns."""

Cell = Callable[[Evaluation], str]


def sweep_table(sweep: Sweep, *, spread: bool = False) -> str:
    """Return the rows of a sweep: scores with their share of float, or cosines of each output.

    Args:
      sweep: At least one row.
      spread: Show the least cosine of any sample beside each output's mean.

    Returns:
      Lines without a newline at the end; the row that the configuration is of ends in ``*``.

    Source: hmct-spec 7.2.
    """
    columns = _columns_of(sweep.floating, sweep.rows[0].evaluation, spread=spread)
    header = (
        "No.",
        f"{sweep.metric} ({sweep.comparison})",
        *columns,
        "nodes",
        "MACs in INT16",
        wording.times(sweep.rows[0].evaluation),
    )
    rows = [
        (
            str(number),
            "None" if row.threshold is None else str(row.threshold),
            *(cell(row.evaluation) for cell in columns.values()),
            str(len(row.nodes)),
            f"{100 * row.evaluation.macs_int16:.1f} %",
            "-" if row.evaluation.time_us is None else f"{row.evaluation.time_us:.1f}",
            "*" if row is sweep.taken else "",
        )
        for number, row in enumerate(sweep.rows, 1)
    ]
    return simple_table((*header, ""), rows)


def simple_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return left-aligned columns with a rule of ``-`` under each heading.

    A last column without a heading gets no rule.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = ["-" * width if title else "" for title, width in zip(header, widths, strict=True)]
    return "\n".join(
        GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (header, rule, *rows)
    )


def diagnosis_scores(problem: Problem, samples: int) -> str:
    """Return the vendor's score tables of all-INT8, all-INT16 and the ceiling.

    Args:
      problem: A diagnosis with scores of the user.
      samples: Calibration samples, which the cosine is of.

    Returns:
      A table each, titled; empty without scores.
    """
    named = (
        ("all-INT8", problem.int8),
        ("all-INT16", problem.int16),
        ("true INT16 (simulated)", problem.true_int16),
    )
    blocks = []
    for title, evaluation in named:
        if evaluation is None or not evaluation.scores or evaluation.comparison is None:
            continue
        table = score_table(
            model=problem.model,
            march=problem.march,
            samples=samples,
            floating=problem.floating.scores,
            scores=evaluation.scores,
            shares=evaluation.shares,
            cosine=evaluation.comparison.min_cosine,
        )
        blocks.append(f"{title}, calibrated by {problem.calibration}:\n{table}")
    return "\n\n".join(blocks)


def diagnosis_table(problem: Problem) -> str:
    """Return what a diagnosis ran, one row per model.

    Args:
      problem: A diagnosis.

    Returns:
      Lines without a newline at the end.
    """
    named = [("all-INT8", problem.int8)]
    named += [
        (f"worst {len(step.nodes)} of {problem.ranked} INT16", step.evaluation)
        for step in problem.steps
    ]
    named += [("all-INT16", problem.int16)] if problem.int16 is not None else []
    named += [("true INT16 (simulated)", problem.true_int16)] if problem.true_int16 else []
    columns = _columns_of(problem.floating, problem.int8, spread=False)
    rows = [
        (
            name,
            *(cell(evaluation) for cell in columns.values()),
            "-" if evaluation.time_us is None else f"{evaluation.time_us:.1f}",
        )
        for name, evaluation in named
    ]
    return simple_table(("model", *columns, wording.times(problem.int8)), rows)


def _columns_of(floating: Evaluation, first: Evaluation, *, spread: bool) -> dict[str, Cell]:
    """Return the headings of what was measured, and how each cell is written."""
    if floating.scores:
        return {task: _score_cell(task, value) for task, value in floating.scores.items()}
    out: dict[str, Cell] = {}
    for number, output in enumerate(first.comparison.outputs if first.comparison else ()):
        if spread:
            out[f"{output.output} Min"] = _cosine_cell(number, lambda cosine: cosine.min)
            out[f"{output.output} Avg"] = _cosine_cell(number, lambda cosine: cosine.mean)
        else:
            out[output.output] = _cosine_cell(number, lambda cosine: cosine.mean)
    return out


def _score_cell(task: str, floating: float) -> Cell:
    def cell(evaluation: Evaluation) -> str:
        return share_cell(evaluation.scores[task], evaluation.shares[task], floating)

    return cell


def _cosine_cell(number: int, of: Callable[[Spread], float]) -> Cell:
    def cell(evaluation: Evaluation) -> str:
        if evaluation.comparison is None:
            return "-"
        output = evaluation.comparison.outputs[number]
        return wording.output_cosine(output, of(output.cosine))

    return cell
