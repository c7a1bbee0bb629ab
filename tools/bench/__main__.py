"""``python -m tools.bench NAME MODELS``: see the package."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from jptq.engine import memory
from jptq.errors import JptqError
from tools.bench import networks
from tools.bench.record import markdown, store
from tools.bench.registry import BENCHES

RESULTS = Path("docs/results")


def main() -> None:
    """Measure, print tables, store figures."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument("name", choices=[*BENCHES, "all"])
    parser.add_argument(
        "models", type=Path, nargs="+", help="folders of networks, or of one network each"
    )
    parser.add_argument("--network", nargs="+", default=[], help="only these")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds (default 7)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--time-limit", type=float, help="seconds per search of tune")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON files")
    options = parser.parse_args()
    memory.hold()  # as the commands do
    try:
        for name in BENCHES if options.name == "all" else [options.name]:
            _measure(name, options)
    except JptqError as error:
        sys.exit(f"tools.bench: error: {error}")


def _measure(name: str, options: argparse.Namespace) -> None:
    bench = BENCHES[name]
    rows = []
    found = networks.find(options.models, options.network) if bench.per_network else [None]
    for network in found:
        label = network.name if network else name
        print(f"{name}: {label} ...", file=sys.stderr, flush=True)
        measured = bench.run(network, options)
        store(options.out, bench, label, measured)
        rows += measured
    print(markdown(bench, rows), flush=True)


if __name__ == "__main__":
    main()
