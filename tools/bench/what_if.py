"""How long a what-if question takes once the network is at hand, and what the first one costs."""

from __future__ import annotations

import argparse
import os
import random
import time
from typing import Any

import numpy as np

from jptq.engine.cache import enable_compilation_cache
from jptq.tuning import WhatIf, prepare
from tools.bench.networks import LARGEST_VALUE, MARCH, SAMPLES, Network
from tools.bench.record import Bench, Column

QUESTIONS = 30


def run(network: Network, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Flip single random nodes between INT8 and INT16, each from the calibrated network."""
    enable_compilation_cache()
    prepared = prepare(
        network.model, network.data, march=MARCH, quant_config=LARGEST_VALUE, limit=SAMPLES
    )
    ask = WhatIf(prepared)
    started = time.perf_counter()
    _ = ask.base
    first = time.perf_counter() - started
    nodes = [slots.node for slots in prepared.plan.slots]
    chosen = random.Random(options.seed).choices(nodes, k=QUESTIONS)
    compiled = prepared.runner.compilations.total
    answers = [ask({node: "int16"}) for node in chosen]
    times = np.asarray([answer.seconds for answer in answers])
    return [
        {
            "network": network.name,
            "nodes": len(list(prepared.floating.operators())),
            "samples": len(prepared.samples),
            "questions": len(answers),
            "first_s": first,
            "median_s": float(np.median(times)),
            "p95_s": float(np.percentile(times, 95)),
            "worst_s": float(times.max()),
            "rerun": float(np.mean([answer.rerun for answer in answers])),
            "compiled": prepared.runner.compilations.total - compiled,
            "load": os.getloadavg()[0],
        }
    ]


BENCH = Bench(
    name="what_if",
    run=run,
    columns=(
        Column(title="network", cell=lambda row: row["network"]),
        Column(title="nodes", cell=lambda row: str(row["nodes"])),
        Column(title="samples", cell=lambda row: str(row["samples"])),
        Column(title="first, s", cell=lambda row: f"{row['first_s']:.1f}"),
        Column(title="median, s", cell=lambda row: f"{row['median_s']:.2f}"),
        Column(title="95 %, s", cell=lambda row: f"{row['p95_s']:.2f}"),
        Column(title="worst, s", cell=lambda row: f"{row['worst_s']:.2f}"),
        Column(title="work done again", cell=lambda row: f"{row['rerun']:.0%}"),
        Column(title="programs compiled later", cell=lambda row: str(row["compiled"])),
    ),
)
