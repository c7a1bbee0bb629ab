"""What tuning reaches: the uniform types, and what the whole command finds."""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import Any

import jptq
from jptq.engine.cache import enable_compilation_cache
from jptq.results import Evaluation, Report
from jptq.tuning import Options
from tools.bench.networks import MARCH, Network
from tools.bench.record import Bench, Column, Row


def run(network: Network, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Tune by the whole command, as a user does."""
    enable_compilation_cache()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        found = jptq.tune(
            network.model,
            network.data,
            out=folder,
            march=MARCH,
            evaluator=str(network.evaluator),
            options=Options(seed=options.seed, time_limit_s=options.time_limit),
        )
        return [_row(network, found, time.perf_counter() - started)]


def _row(network: Network, found: Report, whole: float) -> dict[str, Any]:
    return {
        "network": network.name,
        "calibration": found.calibration,
        "goal": found.goal.min_score,
        "outcome": found.outcome.name.lower(),
        "float": _end(found.floating),
        "int8": _end(found.int8),
        "int16": _end(found.int16),
        "final": _end(found.final),
        "runs": len(found.steps),
        "evaluator_calls": found.evaluator_calls,
        "fitted": 0 if found.fit is None or not found.fit.kept else found.fit.count("weights"),
        "whole_s": whole,
    }


def _end(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "scores": dict(evaluation.scores),
        "share": evaluation.worst_share,
        "time_us": evaluation.time_us,
        "macs_int16": evaluation.macs_int16,
        "raised": evaluation.raised,
    }


def _score(name: str) -> Column:
    return Column(
        title=f"{name}, score", cell=lambda row: f"{next(iter(row[name]['scores'].values())):.4f}"
    )


def _time(row: Row, name: str) -> str:
    return f"{row[name]['time_us'] / row['int8']['time_us']:.3f}"


BENCH = Bench(
    name="tune",
    run=run,
    columns=(
        Column(title="network", cell=lambda row: row["network"]),
        *(_score(name) for name in ("float", "int8", "int16", "final")),
        Column(title="worst share of float", cell=lambda row: f"{row['final']['share']:.4f}"),
        Column(title="goal", cell=lambda row: row["outcome"].replace("_", " ")),
        Column(title="modelled time, all-INT8 = 1", cell=lambda row: _time(row, "final")),
        Column(title="all-INT16", cell=lambda row: _time(row, "int16")),
        Column(title="MACs in INT16", cell=lambda row: f"{row['final']['macs_int16']:.1%}"),
        Column(title="nodes raised", cell=lambda row: str(row["final"]["raised"])),
        Column(title="evaluator calls", cell=lambda row: str(row["evaluator_calls"])),
        Column(title="calibrated by", cell=lambda row: row["calibration"]),
        Column(title="weights fitted", cell=lambda row: str(row["fitted"])),
        Column(title="s, whole command", cell=lambda row: f"{row['whole_s']:.0f}"),
    ),
)
