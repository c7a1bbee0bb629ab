"""What a benchmark leaves behind: one JSON file, in which a network's rows are replaced."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

from jptq import files

SCHEMA = 1
Row: TypeAlias = Mapping[str, Any]
PACKAGES = ("jax", "jaxlib", "numpy", "onnx", "onnxruntime", "scipy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table.

    Attributes:
      title: Its head, with the unit.
      cell: Text of a row's cell.
    """

    title: str
    cell: Callable[[Row], str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """A benchmark.

    Attributes:
      name: Of the command and of its file.
      run: Measures one network (None for a benchmark without networks); returns rows.
      columns: Of the table.
      per_network: Whether it is run network by network.
      summary: Lines below the table, from all rows.
    """

    name: str
    run: Callable[..., list[dict[str, Any]]]
    columns: Sequence[Column]
    per_network: bool = True
    summary: Callable[[Sequence[Row]], Sequence[str]] = lambda rows: ()


def environment() -> dict[str, Any]:
    """Return the machine and the versions behind a figure."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }


def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    if listed.is_file():
        for line in listed.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def store(folder: Path, bench: Bench, network: str, rows: Sequence[Row]) -> Path:
    """Replace the rows of a network in ``<folder>/<bench>.json``; others stay."""
    path = folder / f"{bench.name}.json"
    content: dict[str, Any] = {"schema": SCHEMA, "networks": {}}
    if path.is_file():
        content = files.read_json(path)
    content["networks"][network] = {"environment": environment(), "rows": list(rows)}
    content["networks"] = dict(sorted(content["networks"].items()))
    files.write_json(path, content)
    return path


def rows_of(content: Mapping[str, Any]) -> list[Row]:
    """Return all rows of a stored benchmark, network by network."""
    return [row for entry in content["networks"].values() for row in entry["rows"]]


def environments(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the machines and versions behind the rows, each once."""
    found: list[Mapping[str, Any]] = []
    for entry in content["networks"].values():
        if entry["environment"] not in found:
            found.append(entry["environment"])
    return found


def markdown(bench: Bench, rows: Sequence[Row]) -> str:
    """Return the table of a benchmark."""
    titles = [column.title for column in bench.columns]
    lines = [titles, ["---"] * len(titles)]
    lines += [[column.cell(row) for column in bench.columns] for row in rows]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    return "\n\n".join([table, *bench.summary(rows)])
