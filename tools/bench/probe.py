"""How well a few backward passes order the nodes, against the exact order, and what they cost."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from jptq.results import SensitivityTable
from jptq.sensitivity import compare, probe, rescore
from tools.bench import clock
from tools.bench.networks import Network
from tools.bench.record import Bench, Column
from tools.bench.sweep import Sweep

PROBES = 16
WORST, FIRST = 10, 20


def run(network: Network, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rank by probes and exactly, over the same samples."""
    sweep = Sweep(network)
    prepared = sweep.prepared

    def estimate() -> SensitivityTable:
        return probe.rank(
            prepared.runner,
            prepared.thresholds,
            prepared.all("int8"),
            sweep.rows,
            sweep.samples,
            metrics=("mse",),
            probes=PROBES,
            seed=options.seed,
        )

    reference, estimated = sweep(), estimate()
    agreement = compare(estimated, reference, metric="mse", worst=WORST, first=FIRST)
    forwards = clock.forwards(clock.session(network.model), sweep.samples)
    times = clock.interleaved({"f": forwards, "probe": estimate}, options.rounds, warm=1)
    return [
        {
            "network": network.name,
            "nodes": len(sweep.rows.names),
            "samples": len(sweep.samples),
            "probes": estimated.cost["probes"],
            "spearman": agreement.spearman,
            "ratio": agreement.ratio,
            "worst_in_first": agreement.worst_in,
            "rescored": rescored(sweep, estimated, reference),
            "cost": clock.ratio(times["probe"], times["f"]),
            "first_s": estimated.seconds,
            "seconds": float(np.median(times["probe"])),
        }
    ]


def rescored(sweep: Sweep, estimated: SensitivityTable, exact: SensitivityTable) -> dict[str, Any]:
    """Return how the head looks once its contested rows have been scored exactly."""
    prepared = sweep.prepared
    mended = rescore(
        estimated,
        prepared.runner,
        prepared.thresholds,
        prepared.all("int8"),
        sweep.rows,
        sweep.samples,
    )
    agreement = compare(mended, exact, metric="mse", worst=WORST, first=FIRST)
    return {
        "rows": int(mended.cost["exact rows"]),
        "worst_in_first": agreement.worst_in,
        "note": mended.notes[-1],
    }


BENCH = Bench(
    name="probe",
    run=run,
    columns=(
        Column(title="network", cell=lambda row: row["network"]),
        Column(title="nodes", cell=lambda row: str(row["nodes"])),
        Column(title="probes", cell=lambda row: f"{row['probes']:.0f}"),
        Column(title="Spearman", cell=lambda row: f"{row['spearman']:.3f}"),
        Column(title="estimate / exact, median", cell=lambda row: f"{row['ratio']:.2f}"),
        Column(
            title=f"{WORST} worst in first {FIRST}", cell=lambda row: str(row["worst_in_first"])
        ),
        Column(
            title="after exact scores of some (rows)",
            cell=lambda row: f"{row['rescored']['worst_in_first']} ({row['rescored']['rows']})",
        ),
        Column(title="cost, f per sample", cell=lambda row: f"{row['cost']['median']:.0f}"),
        Column(
            title="seconds (first time)",
            cell=lambda row: f"{row['seconds']:.1f} ({row['first_s']:.1f})",
        ),
    ),
)
