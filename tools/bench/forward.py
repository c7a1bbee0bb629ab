"""How fast the float program is: per sample, in float forwards of onnxruntime."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from jptq.engine import Batching, Runner
from jptq.engine.cache import enable_compilation_cache
from tools.bench import clock
from tools.bench.networks import Network
from tools.bench.record import Bench, Column, Row

BATCH = 8


def run(network: Network, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time onnxruntime (batch 1), our program at batch 8 and at batch 1 in turns."""
    enable_compilation_cache()
    model, samples = network.floating(BATCH)
    runner = Runner(model, samples[0], batching=Batching(samples=BATCH))
    inputs = runner.program.inputs
    many = {n: np.stack([feeds[n] for feeds in samples]) for n in inputs}
    single = [{n: feeds[n][None] for n in inputs} for feeds in samples]
    weights = runner.float_weights
    times = clock.interleaved(
        {
            "f": clock.forwards(clock.session(network.model), samples),
            "batch 8": lambda: runner.run(weights, many),
            "batch 1": lambda: [runner.run(weights, feeds) for feeds in single],
        },
        options.rounds,
    )
    return [
        {
            "network": network.name,
            "samples": len(samples),
            "rounds": options.rounds,
            "f_ms": float(np.median(times["f"])) / len(samples) * 1e3,
            "batch_8": clock.ratio(times["batch 8"], times["f"]),
            "batch_1": clock.ratio(times["batch 1"], times["f"]),
        }
    ]


def _spread(row: Row, key: str) -> str:
    value = row[key]
    return f"{value['median']:.2f} ({value['p10']:.2f} to {value['p90']:.2f})"


def _mean(rows: Sequence[Row]) -> list[str]:
    def geometric(key: str) -> float:
        return float(np.exp(np.mean([np.log(row[key]["median"]) for row in rows])))

    return [
        f"Geometric mean: {geometric('batch_8'):.2f} f at batch 8, "
        f"{geometric('batch_1'):.2f} f at batch 1."
    ]


BENCH = Bench(
    name="forward",
    run=run,
    columns=(
        Column(title="network", cell=lambda row: row["network"]),
        Column(title="f, ms", cell=lambda row: f"{row['f_ms']:.2f}"),
        Column(title="batch 8, f per sample", cell=lambda row: _spread(row, "batch_8")),
        Column(title="batch 1, f per sample", cell=lambda row: _spread(row, "batch_1")),
        Column(title="rounds", cell=lambda row: str(row["rounds"])),
    ),
    summary=_mean,
)
