"""The vendor's tables, to the character, so that readers and parsers of them keep working."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jptq.errors import printable
from jptq.results import Comparison, OutputError, SensitivityTable, Spread
from jptq.results.sensitivity import DIGITS, shown

KEY_WIDTH = (10, 50)
"""Least and largest width of the first column of `info_table`."""

GAP = 2
"""Blanks behind each field of `info_table`."""


def shorten(name: str, width: int) -> str:
    """Return a name of at most ``width`` characters: what is too long keeps its end.

    >>> shorten("/encoder/block/conv/Conv", 12)
    '...conv/Conv'
    """
    shown = printable(name)
    return shown if len(shown) <= width else "..." + shown[3 - width :]


def info_table(
    header: str,
    keys: Sequence[str],
    columns: Mapping[str, Sequence[object]],
    *,
    title: str = "",
    description: str = "",
    least: int = KEY_WIDTH[0],
) -> str:
    """Return a table in the form of the vendor's debugger and model information.

    Every field is left-aligned and padded, trailing blanks included; there is no closing rule.

    Args:
      header: Heading of the first column.
      keys: First column; names longer than 50 characters lose their beginning.
      columns: ``{heading: values}``, as many values as keys; None leaves a field blank.
      title: Centred in a rule of ``=``; the odd one is at the right.
      description: First line; an empty one leaves the line empty.
      least: Least width of the first column.

    Returns:
      Lines without a newline at the end.

    Source: hmct-spec 3.3.
    """
    most = KEY_WIDTH[1]
    key_width = min(most, max(least, *(len(key) for key in keys))) if keys else least
    fields = {
        name: ["" if value is None else str(value) for value in values]
        for name, values in columns.items()
    }
    widths = [
        key_width + GAP,
        *(max(len(text) for text in (name, *cells)) + GAP for name, cells in fields.items()),
    ]
    total = sum(widths)
    left = (total - len(title)) // 2

    def line(cells: Sequence[str]) -> str:
        return "".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))

    rows = zip((shorten(key, key_width) for key in keys), *fields.values(), strict=True)
    return "\n".join(
        [
            description,
            "=" * left + title + "=" * (total - left - len(title)),
            line([header, *fields]),
            "-" * total,
            *(line(row) for row in rows),
        ]
    )


def sensitivity_table(
    table: SensitivityTable,
    *,
    candidate: str | None = None,
    before: Mapping[str, Sequence[object]] | None = None,
    exact: bool = False,
) -> str:
    """Return the ranking as the vendor's debugger prints it, worst row first.

    Args:
      table: Rows of any kind; its first metric decides the order.
      candidate: Which candidate's scores; the first if None.
      before: Columns to print before the metrics, in the order of ``table.rows``: ``node`` for
        weights; ``node``, ``threshold`` and ``qtype`` for activations.
      exact: Write small errors with significant digits, where the vendor's tables have 0.0.

    Returns:
      Lines without a newline at the end; the first one is empty.

    Raises:
      UnknownNameError: The table does not hold that candidate.

    Source: hmct-spec 3.3.
    """
    order = table.order(candidate=candidate)
    columns: dict[str, list[object]] = {
        name: [values[i] for i in order] for name, values in (before or {}).items()
    }
    for metric in table.metrics:
        scores = table.column(metric, candidate)
        written = shown if exact else _decimals
        columns[metric] = [str(written(metric, float(scores[i]))) for i in order]
    return info_table(table.kind, [table.rows[i] for i in order], columns, title="node sensitivity")


def _decimals(metric: str, value: float) -> float:
    del metric
    return round(value, DIGITS)


def distance_table(comparison: Comparison) -> str:
    """Return the vendor's second information table: means over samples, one row per output.

    Source: hmct-spec 3.3, "hmct-info".
    """
    columns = {
        heading: [f"{getattr(output, field).mean:.6f}" for output in comparison.outputs]
        for heading, field in (
            ("Cosine Similarity", "cosine"),
            ("L1 Distance", "l1"),
            ("L2 Distance", "l2"),
            ("Chebyshev Distance", "chebyshev"),
        )
    }
    return info_table(
        "Output",
        [output.output for output in comparison.outputs],
        columns,
        description="The quantized model output:",
    )


def score_table(
    *,
    model: str,
    march: str,
    samples: int,
    floating: Mapping[str, float],
    scores: Mapping[str, float],
    shares: Mapping[str, float],
    cosine: float,
) -> str:
    """Return the vendor's score table, one row per score.

    Text is left-aligned, numbers stand with their decimal points below each other, a column is
    at least two characters wider than its heading.

    Args:
      model: Name without suffix; a row is called ``<model>_<score>``.
      march: Target.
      samples: Evaluation samples.
      floating: Scores of the float model.
      scores: Scores of the quantized model, by the same names.
      shares: These as shares of float; one that falls below a negative float score is below 1.
      cosine: Of the whole model; repeated in each row.

    Returns:
      Lines without a newline at the end.

    Source: hmct-spec 7.2.
    """
    text = {
        "Model": [f"{model}_{name}" for name in scores],
        "March": [march] * len(scores),
        "calibrated_model": [
            share_cell(value, shares[name], floating[name]) for name, value in scores.items()
        ],
    }
    numbers = {
        "Float": [f"{round(floating[name], 5):g}" for name in scores],
        "Samples": [str(samples)] * len(scores),
        "Cosine_Similarity": [f"{cosine:.6g}"] * len(scores),
    }
    columns = []
    for heading in ("Model", "Float", "March", "Samples", "calibrated_model", "Cosine_Similarity"):
        cells = text[heading] if heading in text else _aligned(numbers[heading])
        width = max(len(heading) + 2, *(len(cell) for cell in cells))
        lines = [heading, *cells]
        justified = [cell.ljust(width) if heading in text else cell.rjust(width) for cell in lines]
        columns.append([justified[0], "-" * width, *justified[1:]])
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))


SPREADS = {
    "cosine-similarity": "cosine",
    "mae": "l1",
    "mse": "l2",
    "chebyshev": "chebyshev",
    "sqnr": "sqnr",
}
"""Metrics that `output_table` can show, and where `OutputError` keeps them."""


def output_table(comparison: Comparison, metrics: Sequence[str] = ("cosine-similarity",)) -> str:
    """Return the vendor's grid of every output's metrics over all samples.

    Cells are centred, the odd blank at the right. Min and Max are the least and the largest
    value: under ``mse`` the worst sample is Max.

    Args:
      comparison: What was measured.
      metrics: Keys of `SPREADS`; a row per output and metric.

    Returns:
      Lines without a newline at the end.

    Source: hmct-spec 7.2.
    """
    rows: list[tuple[str, ...]] = [("Output", "Metric", "Min", "Max", "Avg")]
    for output in comparison.outputs:
        for metric in metrics:
            spread = _spread(output, metric)
            numbers = (f"{value:.6f}" for value in (spread.min, spread.max, spread.mean))
            rows.append((output.output, metric, *numbers))
    widths = [max(len(cell) for cell in column) + 2 for column in zip(*rows, strict=True)]
    rule = "+" + "+".join("-" * width for width in widths) + "+"
    lines = [
        "|" + "|".join(f"{cell:^{width}}" for cell, width in zip(row, widths, strict=True)) + "|"
        for row in rows
    ]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])


def _spread(output: OutputError, metric: str) -> Spread:
    spread: Spread = getattr(output, SPREADS[metric])
    return spread


def share_cell(value: float, share: float, floating: float) -> str:
    """Write a score with its share of float; a share of zero means nothing and is left out."""
    return f"{value:.5f}({share:.2%})" if floating else f"{value:.5f}"


def _aligned(cells: Sequence[str]) -> list[str]:
    """Pad numbers at the right until their decimal points stand below each other."""
    tails = [len(cell.partition(".")[2]) + ("." in cell) for cell in cells]
    return [cell + " " * (max(tails) - tail) for cell, tail in zip(cells, tails, strict=True)]
