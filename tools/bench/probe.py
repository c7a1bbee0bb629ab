"""How well a few backward passes order the nodes, against the exact order, and what they cost."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from jptq.results import SensitivityTable
from jptq.sensitivity import compare, probe, rescore
from tools.bench import clock
from tools.bench.networks import SAMPLES, Network
from tools.bench.record import Bench, Column
from tools.bench.sweep import Sweep

PROBES = 16
WORST, FIRST = 10, 20


def run(network: Network, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rank by probes and exactly, over the same samples."""
    sweep = Sweep(network)
    reference, estimated = sweep(), estimate(sweep, options.seed)
    agreement = compare(estimated, reference, metric="mse", worst=WORST, first=FIRST)
    forwards = clock.forwards(clock.session(network.model), sweep.samples)
    times = clock.interleaved(
        {"f": forwards, "probe": lambda: estimate(sweep, options.seed)}, options.rounds, warm=1
    )
    return [
        {
            "network": network.name,
            "nodes": len(sweep.rows.names),
            "samples": len(sweep.samples),
            "probes": estimated.cost["probes"],
            "spearman": agreement.spearman,
            "spearman_sets": [spearman(one, options.seed) for one in parts(network)],
            "ratio": agreement.ratio,
            "worst_in_first": agreement.worst_in,
            "rescored": rescored(sweep, estimated, reference),
            "cost": clock.ratio(times["probe"], times["f"]),
            "first_s": estimated.seconds,
            "seconds": float(np.median(times["probe"])),
        }
    ]


def estimate(sweep: Sweep, seed: int) -> SensitivityTable:
    """Rank by probes."""
    prepared = sweep.prepared
    return probe.rank(
        prepared.runner,
        prepared.thresholds,
        prepared.all("int8"),
        sweep.rows,
        sweep.samples,
        metrics=("mse",),
        probes=PROBES,
        seed=seed,
    )


def parts(network: Network) -> list[Sweep]:
    """Return sweeps over disjoint sets of samples: what the order owes to the choice of them."""
    samples = network.prepared.samples
    starts = range(0, len(samples) - SAMPLES + 1, SAMPLES)
    return [Sweep(network, [samples[i + k] for k in range(SAMPLES)]) for i in starts]


def spearman(sweep: Sweep, seed: int) -> float:
    """Return the rank correlation of the estimate with the exact order."""
    return compare(estimate(sweep, seed), sweep(), metric="mse", worst=WORST, first=FIRST).spearman


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


def _sets(found: list[float]) -> str:
    ends = f"{min(found):.3f} to {max(found):.3f}"
    return f"{ends}, median {np.median(found):.3f}"


BENCH = Bench(
    name="probe",
    run=run,
    columns=(
        Column(title="network", cell=lambda row: row["network"]),
        Column(title="nodes", cell=lambda row: str(row["nodes"])),
        Column(title="probes", cell=lambda row: f"{row['probes']:.0f}"),
        Column(title="Spearman", cell=lambda row: f"{row['spearman']:.3f}"),
        Column(title="disjoint sets of samples", cell=lambda row: _sets(row["spearman_sets"])),
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
