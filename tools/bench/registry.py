"""The benchmarks by name."""

from __future__ import annotations

from tools.bench import fit, forward, lowerings, probe, sweep, tune, what_if
from tools.bench.record import Bench

BENCHES: dict[str, Bench] = {
    module.BENCH.name: module.BENCH
    for module in (forward, lowerings, sweep, probe, fit, tune, what_if)
}
