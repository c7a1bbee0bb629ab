"""Measure how far networks agree with onnxruntime; print the table of docs/results.md.

    python -m tools.bench.agreements [MODELS]

MODELS holds one folder per network: ``model.onnx`` and ``calibration_data/<input>/*.npy``. The demo
network is measured in any case.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import onnxruntime

from tests import agreements
from tests.agreements import Figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return 1 if a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, nargs="?", help="folder of further networks")
    parser.add_argument("--only", nargs="*", metavar="NETWORK", help="names of networks")
    parser.add_argument("--rows", nargs="*", choices=list(agreements.ROWS), help="rows to measure")
    parser.add_argument("--samples", type=int, default=4, help="calibration samples to use")
    options = parser.parse_args(arguments)
    further = sorted(options.models.glob("*/model.onnx")) if options.models else []
    folders = [agreements.DEMO, *(path.parent for path in further)]
    chosen = [folder for folder in folders if not options.only or folder.name in options.only]
    found: dict[str, dict[str, Figure]] = {row: {} for row in options.rows or agreements.ROWS}
    for folder in chosen:
        network = agreements.load_network(folder, samples=options.samples)
        for row, figures in found.items():
            figures[folder.name] = agreements.ROWS[row](network)
            print(f"{folder.name}: {figures[folder.name]}", file=sys.stderr)
    print(markdown(found, [folder.name for folder in chosen], samples=options.samples))
    return 0 if all(f.holds for figures in found.values() for f in figures.values()) else 1


def markdown(found: dict[str, dict[str, Figure]], networks: list[str], *, samples: int) -> str:
    """Return a table with a column per network; what passes its limit is bold."""
    lines = [
        f"onnxruntime {onnxruntime.__version__}, {samples} samples, thresholds from their largest "
        "absolute values.",
        "",
        f"| what | quantity | {' | '.join(networks)} |",
        "|---|---|" + "---|" * len(networks),
    ]
    for figures in found.values():
        what = next(iter(figures.values())).what
        for quantity in next(iter(figures.values())).values:
            cells = [_cell(figures[name], quantity) for name in networks]
            lines.append(f"| {what} | {quantity} | {' | '.join(cells)} |")
            what = ""
    return "\n".join(lines)


def _cell(figure: Figure, quantity: str) -> str:
    value, limit = figure.values[quantity], figure.limits.get(quantity)
    if limit is None:
        return f"{value:.3g}"
    text = f"{value:.3g} (<= {limit:.2g})"
    return text if value <= limit else f"**{text}**"


if __name__ == "__main__":
    raise SystemExit(main())
