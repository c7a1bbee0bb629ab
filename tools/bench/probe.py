"""How well a few backward passes order the nodes, against the exact order, and what they cost."""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np

from jptq.results import SensitivityTable
from jptq.sensitivity import compare, probe
from tools.bench import clock
from tools.bench.networks import Network
from tools.bench.record import Bench, Column
from tools.bench.sweep import Sweep

PROBES = 16
WORST, FIRST = 10, 20
RESCORED = 0.1
"""Share of the nodes whose estimate is replaced by the exact score."""


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
            "rescored": rescored(estimated, reference),
            "cost": clock.ratio(times["probe"], times["f"]),
            "first_s": estimated.seconds,
            "seconds": float(np.median(times["probe"])),
        }
    ]


def rescored(estimated: SensitivityTable, exact: SensitivityTable) -> dict[str, Any]:
    """Return how the head looks once its contested rows have been scored exactly.

    The highest estimates are replaced by exact scores, one after the other, until the first rows
    are all exact or the share is spent. The exact scores are those of the reference: a sweep of
    these rows alone gives the same numbers.
    """
    scores = estimated.column("mse").copy()
    truth = exact.column("mse")
    left = math.floor(RESCORED * len(scores))
    known: set[int] = set()
    while left > len(known):
        head = np.argsort(-scores, kind="stable")[:FIRST]
        contested = [int(i) for i in head if int(i) not in known]
        if not contested:
            break
        known.add(contested[0])
        scores[contested[0]] = truth[contested[0]]
    head = np.argsort(-scores, kind="stable")[:FIRST]
    worst = np.argsort(-truth, kind="stable")[:WORST]
    return {"rows": len(known), "worst_in_first": len(set(head.tolist()) & set(worst.tolist()))}


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
