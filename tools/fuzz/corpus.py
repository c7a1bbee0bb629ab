"""Graphs that showed a fault once, small, with the right results: run with every test."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from tools.fuzz.graphs import Case
from tools.fuzz.judge import Finding

FOLDER = Path(__file__).parent / "found"
"""One ``.onnx`` file each, with feeds and results in an ``.npz`` beside it."""

_WHAT = "what"


def store(folder: Path, finding: Finding) -> Path:
    """Keep the graph of a finding; return its file."""
    folder.mkdir(parents=True, exist_ok=True)
    model = onnx.ModelProto()
    model.CopyFrom(finding.case.model)
    helper.set_model_props(model, {_WHAT: f"{finding.kind}: {finding.tensor}: {finding.what}"})
    last = next(n.op_type for n in reversed(model.graph.node) if n.op_type != "Constant")
    digest = hashlib.sha256(finding.case.content).hexdigest()[:8]
    path = folder / f"{finding.kind}-{last}-{digest}.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    arrays: dict[str, Any] = {
        f"{role}/{i}/{name}": array
        for role, rows in (("in", finding.case.samples), ("out", finding.case.expected))
        for i, row in enumerate(rows)
        for name, array in row.items()
    }
    np.savez(path.with_suffix(".npz"), **arrays)
    return path


def load(folder: Path = FOLDER) -> list[Case]:
    """Return the graphs that are kept."""
    cases = []
    for path in sorted(folder.glob("*.onnx")):
        rows: dict[str, dict[int, dict[str, np.ndarray]]] = {"in": {}, "out": {}}
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
            for key in arrays:
                role, index, name = re.fullmatch(r"(in|out)/(\d+)/(.*)", key).groups()  # type: ignore[union-attr]
                rows[role].setdefault(int(index), {})[name] = arrays[key]
        count = max(len(rows["in"]), len(rows["out"]))
        samples, expected = ([rows[role].get(i, {}) for i in range(count)] for role in rows)
        cases.append(
            Case(name=path.stem, model=onnx.load(path), samples=samples, expected=expected)
        )
    return cases
