"""More of the vendor's tables, and readers of all of them: a printed table is a table again.

The printers of `jptq.report.text` pad every field; what went through a mail or a web page has
often lost its blanks. The readers go by words and not by columns, so that they take both.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np

from jptq.errors import StorageError, printable
from jptq.report.text import info_table
from jptq.results import SensitivityTable, Spread

_LOG_KEY_WIDTH = 4
_ELIDED = "..."
_KIND_OF_COLUMN = {"node", "threshold", "qtype"}

_RANKING = re.compile(r"=+(?P<title>[^=\n]*)=+\s+(?P<head>\S[^=]*?)\s+-{5,}\s(?P<body>.*)", re.S)
_RULES = re.compile(r"(?:^|\s)(?:-{3,}\s+)+")
_GRID_ROW = re.compile(r"\|([^|\n]+)\|([^|\n]+)\|([^|\n]+)\|([^|\n]+)\|([^|\n]+)\|")
_SHARE = re.compile(r"(?P<value>[^()]+)(?:\((?P<share>[^()%]+)%\))?$")


# --- printers -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class NodeRow:
    """One node of the vendor's model information.

    Attributes:
      node: Its name.
      op: Operator type.
      cosine: Of its output, the fully calibrated model against float; None if it has none.
      threshold: First one of the quantizer at input 0, in the tensor's unit.
      qtype: Type of that quantizer.
    """

    node: str
    op: str
    cosine: float | None
    threshold: float
    qtype: str


def node_table(rows: Sequence[NodeRow]) -> str:
    """Return the vendor's first information table, one row per node with a quantized input.

    Source: hmct-spec 3.3, "hmct-info".
    """
    columns: dict[str, list[object]] = {
        "Type": [row.op for row in rows],
        "Cosine Similarity": ["--" if row.cosine is None else f"{row.cosine:.6f}" for row in rows],
        "Threshold": [f"{row.threshold:.6}" for row in rows],
        "DataType": [row.qtype for row in rows],
    }
    return info_table(
        "Node",
        [row.node for row in rows],
        columns,
        description="The main quantized node information:",
    )


def calibration_columns(
    table: SensitivityTable,
    *,
    owners: Mapping[str, Sequence[str]],
    thresholds: Mapping[str, np.ndarray],
    qtypes: Mapping[str, str],
) -> dict[str, list[str]]:
    """Return what the vendor prints beside quantizers, in the order of ``table.rows``.

    Args:
      table: A ranking of kind ``weight`` or ``activation``; others have no such columns.
      owners: The nodes that read each quantizer.
      thresholds: Of each quantizer, in its tensor's unit.
      qtypes: The type that each one holds.

    Returns:
      ``node`` (several are joined by ``;``); of activations ``threshold`` and ``qtype`` too.

    Source: hmct-spec 3.3.
    """
    if table.kind not in ("weight", "activation"):
        return {}
    columns = {"node": [";".join(owners[name]) for name in table.rows]}
    if table.kind == "activation":
        largest = (float(np.max(thresholds[name])) for name in table.rows)
        columns["threshold"] = [str(round(value, 5)) for value in largest]
        columns["qtype"] = [qtypes[name] for name in table.rows]
    return columns


def sensitivity_log(
    table: SensitivityTable, *, before: Mapping[str, Sequence[object]] | None = None
) -> str:
    """Return a ranking as the vendor's debugger saves it; arguments as `text.sensitivity_table`.

    It differs from what is printed in its title, its first heading and the least width of the
    first column; the rule has as many ``=`` on either side of the title.

    Source: hmct-spec 3.3, "Saved log".
    """
    order = table.order()
    columns: dict[str, list[object]] = {
        name: [values[i] for i in order] for name, values in (before or {}).items()
    }
    for metric in table.metrics:
        scores = table.column(metric)
        columns[metric] = [str(round(float(scores[i]), 5)) for i in order]
    keys = [table.rows[i] for i in order]
    lines = info_table("Node", keys, columns, least=_LOG_KEY_WIDTH).split("\n")[1:]
    side = "=" * ((len(lines[0]) - len(table.kind)) // 2)
    return "\n".join([side + table.kind + side, *lines[1:], ""])


# --- readers ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranking:
    """A printed or saved ranking.

    Attributes:
      title: What stands in the rule.
      metrics: Headings of the scores, in order.
      rows: ``{name: scores}`` in the order of the table; names as printed, long ones shortened.
      more: ``{name: {heading: cell}}`` of the columns that are no scores.
    """

    title: str
    metrics: tuple[str, ...]
    rows: Mapping[str, tuple[float, ...]]
    more: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)

    def score(self, name: str, metric: str | None = None) -> float:
        """Return a score of a row, by the first metric if none is named."""
        return self.rows[name][0 if metric is None else self.metrics.index(metric)]


def parse_sensitivity_table(text: str) -> Ranking:
    """Read a ranking that the vendor's debugger or ours printed or saved.

    Args:
      text: May hold other lines before the table; what follows the last row is ignored.

    Raises:
      StorageError: There is no such table in it.

    Example:
      >>> parse_sensitivity_table('''
      ... =======node sensitivity========
      ... node        cosine-similarity
      ... -------------------------------
      ... Mul_943     0.99736
      ... ''').rows
      {'Mul_943': (0.99736,)}
    """
    found = _RANKING.search(text)
    if found is None:
        raise StorageError(
            "not a sensitivity table", why="there is no rule of '=' with a heading and '-' below it"
        )
    headings = found["head"].split()[1:]
    words = found["body"].split()
    rows: dict[str, tuple[float, ...]] = {}
    more: dict[str, dict[str, str]] = {}
    scored = [i for i, heading in enumerate(headings) if heading not in _KIND_OF_COLUMN]
    width = 1 + len(headings)
    for start in range(0, len(words) - width + 1, width):
        name, *cells = words[start : start + width]
        try:
            rows[name] = tuple(float(cells[i]) for i in scored)
        except ValueError:
            break  # the table has ended
        others = {h: cells[i] for i, h in enumerate(headings) if i not in scored}
        if others:
            more[name] = others
    if not rows:
        raise StorageError("a sensitivity table without rows")
    return Ranking(
        title=found["title"],
        metrics=tuple(headings[i] for i in scored),
        rows=rows,
        more=more,
    )


def resolve_name(shown: str, names: Sequence[str]) -> str:
    """Return the full name behind one that a table may have shortened at its left.

    Raises:
      StorageError: No name, or more than one, ends like that.
    """
    if shown in names:
        return shown
    if not shown.startswith(_ELIDED):
        return next((name for name in names if printable(name) == shown), shown)
    tail = shown.removeprefix(_ELIDED)
    ends = [name for name in names if printable(name).endswith(tail)]
    if len(ends) != 1:
        raise StorageError(
            f"{len(ends)} names end like {shown!r}",
            why="tables shorten names of more than 50 characters",
            hint="take the full names from node_sensitivity.json" if ends else "",
        )
    return ends[0]


def parse_distance_table(text: str) -> dict[str, tuple[float, float, float, float]]:
    """Read the vendor's output information.

    Returns:
      ``{output: (cosine, L1, L2, chebyshev)}``, NaN where the table has ``--``.

    Raises:
      StorageError: There is no such table in the text.
    """
    _, heading, body = text.partition("Chebyshev Distance")
    words = [word for word in body.split() if set(word) != {"-"} or word == "--"]
    rows = {}
    for start in range(0, len(words) - 4, 5):
        name, *cells = words[start : start + 5]
        try:
            cosine, l1, l2, chebyshev = (float("nan" if c == "--" else c) for c in cells)
        except ValueError:
            break  # the table has ended
        rows[name] = (cosine, l1, l2, chebyshev)
    if not heading or not rows:
        raise StorageError("not a table of output distances")
    return rows


def parse_output_table(text: str) -> dict[tuple[str, str], Spread]:
    """Read the vendor's grid of every output's metrics over all samples.

    Returns:
      ``{(output, metric): its spread}`` in the order of the table.

    Raises:
      StorageError: There is no such table in the text, or a number is none.
    """
    rows = [[cell.strip() for cell in row] for row in _GRID_ROW.findall(text)]
    if not rows or rows[0] != ["Output", "Metric", "Min", "Max", "Avg"]:
        raise StorageError("not a table of outputs", why="its heading is Output, Metric, Min, ...")
    found = {}
    for output, metric, *cells in rows[1:]:
        least, most, mean = (_number(cell) for cell in cells)
        found[output, metric] = Spread(min=least, mean=mean, max=most)
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """One row of the vendor's score table.

    Attributes:
      model: ``<model>_<task>``.
      floating: The float model's score.
      march: Target.
      samples: Number of evaluated samples.
      score: The calibrated model's.
      share: Of the float score as printed, 0.9785 for 97.85 %; NaN if it is left out.
      cosine: Of the whole model.
    """

    model: str
    floating: float
    march: str
    samples: int
    score: float
    share: float
    cosine: float


def parse_score_table(text: str) -> tuple[Score, ...]:
    """Read the vendor's score table.

    Raises:
      StorageError: There is no such table in the text, or a cell is no number.
    """
    rule = _RULES.search(text)
    words = text[rule.end() :].split() if rule is not None else []
    if "calibrated_model" not in text or not words or len(words) % 6:
        raise StorageError("not a table of scores")
    rows = []
    for start in range(0, len(words), 6):
        model, floating, march, samples, cell, cosine = words[start : start + 6]
        parts = _SHARE.match(cell)
        if parts is None:
            raise StorageError(f"{cell!r} is no score", where=model)
        rows.append(
            Score(
                model=model,
                floating=_number(floating),
                march=march,
                samples=int(_number(samples)),
                score=_number(parts["value"]),
                share=_number(parts["share"] or "nan") / 100,
                cosine=_number(cosine),
            )
        )
    return tuple(rows)


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError as error:
        raise StorageError(f"{cell!r} is not a number") from error
