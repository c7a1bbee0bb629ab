"""What exact sensitivities of all nodes cost: time, compilation, memory.

Two fresh processes measure: the first compiles everything, the second finds the programs in the
persistent cache. Each notes its peak memory before onnxruntime is loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jptq.engine import lower, memory
from jptq.errors import JptqError
from jptq.results import SensitivityTable
from jptq.sensitivity import METRICS_OF, exact, rows_of
from jptq.tuning.source import spread
from tools.bench import clock
from tools.bench.networks import SAMPLES, Network
from tools.bench.record import Bench, Column

_MAXRSS = 1 if sys.platform == "darwin" else 1024
"""Bytes of what the system counts memory in."""

LARGE = (320, 320)
"""Size at which memory is measured too, of networks that take any size."""


def run(network: Network, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure at the network's own size and, where it takes any, at a larger one."""
    rows = [_measured(network, options)]
    with tempfile.TemporaryDirectory() as folder:
        large = network.resized(*LARGE, Path(folder))
        if large is not None and _runs(large):
            rows.append(_measured(large, options))
    return rows


def _runs(network: Network) -> bool:
    """Tell whether a network takes samples of this size: some do not, whatever they declare."""
    try:
        model, samples = network.floating(1)
        lower(model, samples[0])
    except JptqError:
        return False
    return True


def _measured(network: Network, options: argparse.Namespace) -> dict[str, Any]:
    """Measure in a process with an empty compilation cache, then in one with a full cache."""
    with tempfile.TemporaryDirectory() as cache:
        cold = _child(network, 0, cache)
        warm = _child(network, options.rounds, cache)
    return {
        "network": network.name,
        **warm,
        "compile_cold_s": cold["first_s"] - warm["sweep_s"],
        "compile_warm_s": warm["first_s"] - warm["sweep_s"],
        "peak_bytes": max(cold["peak_bytes"], warm["peak_bytes"]),
    }


def _child(network: Network, rounds: int, cache: str) -> dict[str, Any]:
    arguments = [sys.executable, "-m", "tools.bench.sweep", str(network.folder), str(rounds)]
    done = subprocess.run(
        arguments,
        env={**os.environ, "JPTQ_CACHE": cache},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class Sweep:
    """Exact sensitivities of every node, five metrics, with programs that are kept.

    Args:
      network: What is ranked.
      samples: By which; eight evenly taken from the set if None, as the commands do.
    """

    def __init__(
        self, network: Network, samples: Sequence[Mapping[str, np.ndarray]] | None = None
    ) -> None:
        self.prepared = network.prepared
        self.samples = spread(self.prepared.samples, SAMPLES) if samples is None else samples
        self.rows = rows_of(self.prepared.calibrated, self.prepared.plan, "node")

    def __call__(self) -> SensitivityTable:
        """Run it."""
        return exact.rank(
            self.prepared.runner,
            self.prepared.thresholds,
            self.prepared.all("int8"),
            self.rows,
            self.samples,
            metrics=METRICS_OF["metric"],
        )


def measure(network: Network, rounds: int) -> dict[str, Any]:
    """Time the first sweep of this process and, beside onnxruntime, some later ones."""
    sweep = Sweep(network)
    started = time.perf_counter()
    sweep()
    out: dict[str, Any] = {
        "nodes": len(sweep.rows.names),
        "samples": len(sweep.samples),
        "rounds": rounds,
        "first_s": time.perf_counter() - started,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS,
    }
    if rounds:
        forwards = clock.forwards(clock.session(network.model), sweep.samples)
        times = clock.interleaved({"f": forwards, "sweep": sweep}, rounds, warm=1)
        # f before and after each sweep: a sweep takes long enough for the machine to change.
        around = np.append(times["f"], clock.seconds(forwards))
        unit = (around[:-1] + around[1:]) / 2
        out["f_ms"] = float(np.median(times["f"])) / len(sweep.samples) * 1e3
        out["sweep_s"] = float(np.median(times["sweep"]))
        out["cost"] = clock.ratio(times["sweep"] / len(sweep.rows.names), unit)
    return out


BENCH = Bench(
    name="sweep",
    run=run,
    columns=(
        Column(title="network", cell=lambda row: row["network"]),
        Column(title="nodes", cell=lambda row: str(row["nodes"])),
        Column(
            title="cost, f per node and sample",
            cell=lambda row: (
                f"{row['cost']['median']:.2f} "
                f"({row['cost']['p10']:.2f} to {row['cost']['p90']:.2f})"
            ),
        ),
        Column(title="f, ms", cell=lambda row: f"{row['f_ms']:.2f}"),
        Column(title="sweep, s", cell=lambda row: f"{row['sweep_s']:.1f}"),
        Column(
            title="compilation, empty cache, s", cell=lambda row: f"{row['compile_cold_s']:.1f}"
        ),
        Column(title="full cache, s", cell=lambda row: f"{row['compile_warm_s']:.1f}"),
        Column(title="peak memory, MiB", cell=lambda row: f"{row['peak_bytes'] / 2**20:.0f}"),
    ),
)

if __name__ == "__main__":
    memory.hold()  # as the commands do
    print(json.dumps(measure(Network(Path(sys.argv[1])), int(sys.argv[2]))))
