"""Raise all nodes at or beyond each threshold of a ranking, and really run every row.

Ranks once by --metric, then walks the --thresholds: a node becomes INT16 if its score, rounded to
five decimals (errors below 0.001 to five digits), is at or below the threshold (cosine-similarity,
sqnr), or at or above it (mse, mre, chebyshev). The first row raises nothing; the first one that
meets the goal is taken, the best one if none does. With --out, sweep.json, the row's
quant_config.json and its calibrated_model.onnx are written, from which another sweep can go on.

Exit codes: 0 goal met; 3 not met.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from jptq.cli import inputs, output, progress
from jptq.errors import ConfigError

if TYPE_CHECKING:
    from absl.flags import FlagValues

FLAGS = (
    "model",
    "calibration_data",
    "evaluator",
    "min_score",
    "min_cosine",
    "metric",
    "thresholds",
    "every_row",
    "spread",
    "output_node",
    "samples",
    *inputs.PREPARE[2:],
    "latency_table",
    "resume",
    "out",
    "json",
)
REQUIRED = ("model", "calibration_data")

NOT_MET = 3
"""Exit code of a goal that was not met, as of `jptq tune`."""


def run(flags: FlagValues) -> int:
    """Sweep, print the table and the configuration, and return whether the goal is met."""
    out = None if flags.out is None else output.folder(flags.out)
    bound = inputs.bound(flags, has_evaluator=flags.evaluator is not None)
    thresholds = numbers(flags.thresholds or ())
    metric = inputs.one(flags, "metric") if flags.metric else "cosine-similarity"
    with progress.bars() as shown:
        prepared = inputs.prepared(flags, shown, folder=work(out))
        from jptq import tuning
        from jptq.api import sweep

        found = sweep.sweep(
            prepared,
            metric=metric,
            thresholds=thresholds,
            evaluator=inputs.evaluator(flags),
            bound=sweep.BOUND if bound is None else bound,
            output_nodes=flags.output_node,
            samples=flags.samples,
            every_row=flags.every_row,
            journal=tuning.Journal(work(out), reuse=flags.resume),
            progress=shown,
        )
    if out is not None:
        sweep.write(found, prepared, out)
    notes = tuning.doubts(found.floating, [row.evaluation for row in found.rows])
    if flags.json:
        output.print_json({**found.to_json(), "notes": list(notes)})
        return 0 if found.chosen is not None else NOT_MET
    from jptq.report.sweep_text import sweep_table

    output.print_text(sweep_table(found, spread=flags.spread), "")
    if found.chosen is None:
        output.print_paragraph("No row meets the goal; this is the best one:")
    else:
        output.print_paragraph("The first row that meets the goal:")
    output.print_json(dict(found.quant_config))
    for note in notes:
        output.print_paragraph(note)
    return 0 if found.chosen is not None else NOT_MET


def numbers(words: list[str] | tuple[str, ...]) -> tuple[float, ...]:
    """Return thresholds as numbers.

    Raises:
      ConfigError: One is not a number.
    """
    found = []
    for word in words:
        try:
            value = float(word.strip(" []"))
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ConfigError(
                f"--thresholds: {word!r} is not a number", hint="--thresholds=0.99,0.999,0.9999"
            )
        found.append(value)
    return tuple(found)


def work(out: Path | None) -> Path | None:
    """Return the folder of findings inside an output folder."""
    return None if out is None else out / ".jptq"
