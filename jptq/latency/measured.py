"""The user's own times, per node, in place of modelled ones."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Mapping
from pathlib import Path

from jptq import files
from jptq.errors import ConfigError, StorageError, UnknownNameError
from jptq.ir import Model, unknown_node
from jptq.results import LatencyTable, NodeTime

COLUMNS = {"int8_us": "int8", "int16_us": "int16", "dual_int16_us": "dual-int16"}
"""Columns of a table of measured times, and the candidates that they time."""

REQUIRED = ("int8_us", "int16_us")

_MOST_US = 1e12
"""Of one node: twelve days. Sums of larger ones leave the range of numbers."""


def read_measured(path: Path) -> dict[str, dict[str, float]]:
    """Read a table of measured times.

    Args:
      path: CSV with the columns ``node,int8_us,int16_us`` and perhaps ``dual_int16_us``, whose
        cells may be empty; or, named ``*.json``, ``{node: {"int8_us": ..., ...}}``.

    Returns:
      ``{node: {candidate: microseconds}}``.

    Raises:
      StorageError: The file cannot be read.
      UnknownNameError: A column is unknown.
      ConfigError: A node is listed twice, or a time is missing, negative or no number.
    """
    rows = _json_rows(path) if path.suffix.lower() == ".json" else _csv_rows(path)
    found: dict[str, dict[str, float]] = {}
    for where, node, cells in rows:
        if node in found:
            raise ConfigError("a node is timed twice", where=f"{where}, node {node!r}")
        found[node] = _times(cells, where=f"{where}, node {node!r}")
    return found


def with_measured(
    table: LatencyTable,
    measured: Mapping[str, Mapping[str, float]],
    *,
    where: str = "",
    model: Model | None = None,
) -> LatencyTable:
    """Return the table with measured times; `NodeTime.source` tells which they are.

    A node that was not measured stays modelled. Where only the dual-int16 time of a product was
    not measured, it is the measured int16 time, scaled as the model scales it. Boundaries stay
    modelled.

    Args:
      table: Modelled times.
      measured: ``{node: {candidate: microseconds}}``, int8 and int16 at least.
      where: The file, for errors.
      model: The network, for errors: knows what nodes of its file are fused into.

    Raises:
      ConfigError: A measured node is not in the table.
    """
    known = {node.node for node in table.nodes}
    for name in measured:
        if name not in known:
            if model is not None:
                raise unknown_node(name, model, known=known, where=where)
            raise UnknownNameError("node", name, known, where=where)
    nodes = (
        _measured(node, measured[node.node]) if node.node in measured else node
        for node in table.nodes
    )
    return dataclasses.replace(table, nodes=tuple(nodes))


def _measured(node: NodeTime, times: Mapping[str, float]) -> NodeTime:
    known = {**node.time_us, **times}
    scaled = "dual-int16" in node.time_us and "dual-int16" not in times
    if scaled:
        modelled = node.time_us["int16"]
        factor = node.time_us["dual-int16"] / modelled if modelled > 0 else 1.0
        known["dual-int16"] = times["int16"] * factor
    # A host time is not measured; it must not come out cheaper than the accelerator's.
    known["float32"] = max(known.values())
    return dataclasses.replace(
        node,
        time_us=known,
        source="measured",
        limit="",
        assumed=tuple(n for n in node.assumed if scaled and n == "dual_int16_factor"),
    )


def _csv_rows(path: Path) -> list[tuple[str, str, dict[str, object]]]:
    try:
        text = files.read_text(path, "utf-8-sig")
    except OSError as error:
        raise StorageError(f"cannot read {path}", why=error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise StorageError(f"{path} is not UTF-8 text", why=str(error)) from error
    reader = csv.DictReader(io.StringIO(text), strict=True, restkey="", restval="")
    columns = [name.strip() for name in reader.fieldnames or ()]
    _refuse_columns(columns, where=str(path))
    reader.fieldnames = columns
    rows = []
    try:
        for cells in reader:
            where = f"{path}:{reader.line_num}"
            if "" in cells:
                raise ConfigError("a row has more cells than the header", where=where)
            node = str(cells.pop("node")).strip()
            filled = {k: v for k, v in cells.items() if str(v).strip()}
            rows.append((where, node, filled))
    except csv.Error as error:
        raise ConfigError("not a CSV table", where=str(path), why=str(error)) from error
    return rows


def _json_rows(path: Path) -> list[tuple[str, str, dict[str, object]]]:
    content = files.read_json(path)
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise ConfigError(
            "not a table of times", where=str(path), hint='{"node": {"int8_us": 1, "int16_us": 2}}'
        )
    for cells in content.values():
        _refuse_columns(["node", *REQUIRED, *cells], where=str(path))
    return [(str(path), node, dict(cells)) for node, cells in content.items()]


def _refuse_columns(columns: list[str], *, where: str) -> None:
    known = ("node", *COLUMNS)
    for name in columns:
        if name not in known:
            raise UnknownNameError("column", name, known, where=where)
    missing = [name for name in ("node", *REQUIRED) if name not in columns]
    if missing:
        raise ConfigError(
            "a table of times lacks columns " + ", ".join(missing),
            where=where,
            hint="the header is node,int8_us,int16_us[,dual_int16_us]",
        )


def _times(cells: Mapping[str, object], *, where: str) -> dict[str, float]:
    times = {}
    for column, candidate in COLUMNS.items():
        if column not in cells:
            if column in REQUIRED:
                raise ConfigError(f"{column} is missing", where=where)
            continue
        cell = cells[column]
        try:
            value = math.nan if isinstance(cell, bool) else float(str(cell))
        except ValueError:
            value = math.nan
        if not 0 <= value <= _MOST_US:
            raise ConfigError(f"{column} is {cell!r}, not a time in microseconds", where=where)
        times[candidate] = value
    return times
