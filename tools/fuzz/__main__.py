"""``python -m tools.fuzz --count=N --seed=S``: see the package."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.fuzz import corpus, minimize, report, workers


def main() -> None:
    """Judge graphs, print what is wrong, cut it down, keep it."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=500, help="graphs (default 500)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="first graph of the seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"), help="folder of findings")
    options = parser.parse_args()
    workers.quiet()
    whole = report.Report()
    for part in workers.run_apart(options.seed, options.start, options.count, jobs=options.jobs):
        whole.add(part)
        for finding in part.unexplained:
            small = minimize.minimized(finding)
            path = corpus.store(options.out, small)
            print(f"{small}\n  kept as {path}", flush=True)
        sys.stderr.write(f"\r{whole.cases} graphs, {len(whole.unexplained)} unexplained ")
    sys.stderr.write("\n")
    print(whole)
    sys.exit(1 if whole.unexplained else 0)


if __name__ == "__main__":
    main()
