"""Run the numeric tests on other instruction sets; print the tolerances that are nearly used up.

    python -m tools.margins [--sets=SSE4_2,AVX,AVX2,AVX512] [--threads=1,2] [--jobs=1]
        [--limit=0.25] [FILE OR FOLDER ...]

A row is a comparison in a test: the largest share of its tolerance that any of the runs used, and
which. A quarter is the limit, because what another processor may add is not known. An instruction
set that the processor lacks runs as the largest that it has; float16 needs F16C, which SSE4_2 and
AVX leave out.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools.margins.recorder import FILE

NUMERIC = (
    "ops",
    "numerics",
    "metrics",
    "engine",
    "calibration",
    "sensitivity",
    "diagnosis",
    "quant",
)
LIMIT = 0.25
SETS = ("SSE4_2", "AVX", "AVX2", "AVX512")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print.

    Returns:
      0 if every run passed and no tolerance is used by more than a quarter, else 1.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sets", default=",".join(SETS), help="values of --xla_cpu_max_isa")
    parser.add_argument("--threads", default="1,2", help="processors that a run may use")
    parser.add_argument("--jobs", default="1", help="workers of a run")
    parser.add_argument("--limit", type=float, default=LIMIT, help="share that may be used")
    parser.add_argument("tests", nargs="*", default=[f"tests/{name}" for name in NUMERIC])
    given = parser.parse_args(arguments)
    worst: dict[str, tuple[float, str]] = {}
    failed = []
    tests = [*(("-n", given.jobs) if given.jobs != "1" else ()), *given.tests]
    for name, code, rows in runs(given.sets.split(","), given.threads.split(","), tests):
        if code:
            failed.append(name)
        for place, share in rows:
            worst[place] = max(worst.get(place, (0.0, "")), (share, name))
    near = sorted(((s, p, n) for p, (s, n) in worst.items() if given.limit < s), reverse=True)
    for share, place, name in near:
        print(f"{share:8.2f}  {place}  ({name})")
    print(
        f"{len(worst)} comparisons with a tolerance; {len(near)} use more than {given.limit:.0%} "
        f"of it, the worst {max((s for s, _ in worst.values()), default=0.0):.2f}; "
        f"failed: {', '.join(failed) or 'none'}"
    )
    return int(bool(near or failed))


def runs(
    sets: Sequence[str], threads: Sequence[str], tests: Sequence[str]
) -> Iterator[tuple[str, int, list[tuple[str, float]]]]:
    """Run the tests once per instruction set and number of threads.

    Yields:
      Name of the run, pytest's exit status, and ``(place, share of the tolerance)``.
    """
    for isa in sets:
        for count in threads:
            name = f"{isa}, {count} thread{'s' if count != '1' else ''}"
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder, "shares.jsonl")
                flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_max_isa={isa}".strip()
                code = subprocess.run(
                    [
                        sys.executable,
                        *("-m", "pytest", "-p", "tools.margins.recorder"),
                        *("-o", "enable_assertion_pass_hook=true"),
                        *("-m", "not models and not gpu", *tests),
                    ],
                    env={**os.environ, "XLA_FLAGS": flags, FILE: str(file)},
                    preexec_fn=functools.partial(_bound, int(count)),
                    check=False,
                ).returncode
                lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
            yield name, code, [(place, share) for place, share in map(json.loads, lines)]


def _bound(count: int) -> None:
    """Let this process and its children use so many processors; XLA takes a thread for each."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


if __name__ == "__main__":
    sys.exit(main())
