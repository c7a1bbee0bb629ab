"""What tuning reaches: the uniform types, the found configuration, and the documented walk."""

from __future__ import annotations

import argparse
import time
from typing import Any

from jptq.engine.cache import enable_compilation_cache
from jptq.results import Evaluation, Report
from jptq.tuning import Evaluator, Options, prepare, tune_prepared
from tools.bench.networks import MARCH, Network
from tools.bench.record import Bench, Column, Row


def run(network: Network, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Tune with either search, from the same calibrated network; nothing is kept between them."""
    enable_compilation_cache()
    started = time.perf_counter()
    prepared = prepare(network.model, network.data, march=MARCH)
    ready = time.perf_counter() - started
    rows = []
    for search in ("milp", "walk"):
        started = time.perf_counter()
        found = tune_prepared(
            prepared,
            Options(search=search, seed=options.seed, time_limit_s=options.time_limit),
            evaluator=Evaluator.load(str(network.evaluator)),
        )
        rows.append(_row(network, found, ready, time.perf_counter() - started))
    return rows


def _row(network: Network, found: Report, ready: float, searched: float) -> dict[str, Any]:
    return {
        "network": network.name,
        "search": found.search,
        "calibration": found.calibration,
        "goal": found.goal.min_score,
        "outcome": found.outcome.name.lower(),
        "float": _end(found.floating),
        "int8": _end(found.int8),
        "int16": _end(found.int16),
        "final": _end(found.final),
        "runs": len(found.steps),
        "evaluator_calls": found.evaluator_calls,
        "prepare_s": ready,
        "search_s": searched,
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
        Column(title="search", cell=lambda row: row["search"]),
        *(_score(name) for name in ("float", "int8", "int16", "final")),
        Column(title="worst share of float", cell=lambda row: f"{row['final']['share']:.4f}"),
        Column(title="goal", cell=lambda row: row["outcome"].replace("_", " ")),
        Column(title="modelled time, all-INT8 = 1", cell=lambda row: _time(row, "final")),
        Column(title="all-INT16", cell=lambda row: _time(row, "int16")),
        Column(title="MACs in INT16", cell=lambda row: f"{row['final']['macs_int16']:.1%}"),
        Column(title="nodes raised", cell=lambda row: str(row["final"]["raised"])),
        Column(title="evaluator calls", cell=lambda row: str(row["evaluator_calls"])),
        Column(
            title="s, calibration + search",
            cell=lambda row: f"{row['prepare_s']:.0f} + {row['search_s']:.0f}",
        ),
    ),
)
