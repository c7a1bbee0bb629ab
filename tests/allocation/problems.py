"""Random allocation problems with everything real ones have."""

from __future__ import annotations

import numpy as np

from jptq.allocation import Coupling, Group, Problem
from jptq.results import Boundary, LatencyTable, NodeTime


def random_problem(
    seed: int,
    *,
    nodes: int,
    decades: float = 6.0,
    outputs: int = 1,
    fixed: float = 0.15,
    monotone: bool = True,
) -> Problem:
    """A chain of nodes with shared inputs, weights that need dual-int16, ties and boundaries."""
    rng = np.random.default_rng(seed)
    features = [f"f{i}" for i in range(nodes + 1)]
    groups = [
        Group(
            name=name,
            calibrations=(name,),
            types=("int8", "int16")
            if rng.random() > fixed
            else (str(rng.choice(["int8", "int16"])),),
        )
        for name in features
    ]
    couplings, times, boundaries = [], [], []
    for i in range(nodes):
        first = [features[i]]
        if rng.random() < 0.3:  # a residual connection: a calibration with two consumers
            first.append(features[int(rng.integers(0, i + 1))])
        first = list(dict.fromkeys(first))
        second = []
        if rng.random() < 0.5:
            second = [f"w{i}"]
            free = rng.random() > fixed
            groups.append(
                Group(
                    name=f"w{i}",
                    calibrations=(f"w{i}",),
                    types=("int8", "int16") if free else ("int8",),
                )
            )
            couplings.append(
                Coupling(second=len(groups) - 1, first=tuple(features.index(f) for f in first))
            )
        base = float(rng.uniform(1, 20))
        factors = np.sort(rng.uniform(1, 4, 2)) if monotone else rng.uniform(0.5, 4, 2)
        times.append(
            NodeTime(
                node=f"n{i}",
                op="Conv" if second else "Add",
                first=tuple(first),
                second=tuple(second),
                macs=100,
                bytes=10,
                time_us={
                    "int8": base,
                    "int16": base * float(factors[0]),
                    "dual-int16": base * float(factors[1]),
                    "float32": 100.0,
                },
            )
        )
        if rng.random() < 0.5:
            boundaries.append(
                Boundary(
                    first=tuple(first), second=features[i + 1], time_us=float(rng.uniform(0, 3))
                )
            )
    # The last feature is a graph output: it follows the input of the last node.
    if rng.random() < 0.5:
        tied = groups[nodes - 1]
        groups[nodes - 1] = Group(
            name=tied.name, calibrations=(*tied.calibrations, features[nodes]), types=tied.types
        )
        del groups[nodes]
        couplings = [
            Coupling(second=c.second - (c.second > nodes), first=c.first) for c in couplings
        ]
    shape = (outputs, len(groups))
    int8 = 10.0 ** rng.uniform(-decades / 2, decades / 2, shape)
    int16 = int8 * 10.0 ** rng.uniform(-5, 0.05, shape)  # now and then int16 is a little worse
    return Problem(
        groups=tuple(groups),
        errors=np.stack([int8, int16], axis=-1),
        latency=LatencyTable(target="test", nodes=tuple(times), boundaries=tuple(boundaries)),
        couplings=tuple(couplings),
        weights=rng.uniform(0.5, 2, outputs),
        limits=np.full(outputs, np.inf),
        base_error=np.zeros(outputs),
    )


def budget_of(problem: Problem, share: float) -> float:
    """The budget that spends a share of what raising everything costs."""
    low = problem.time_us(problem.lowest())
    return low + share * (problem.time_us(problem.highest()) - low)
