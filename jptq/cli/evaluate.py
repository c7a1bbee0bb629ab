"""Run a calibrated model and compare it with the float one.

Prints every output's errors over all samples, and your score with --evaluator. The model is a
calibrated one as it stands, or a float one with --quant_config (all INT8 without).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jptq.cli import inputs, output, progress

if TYPE_CHECKING:
    from absl.flags import FlagValues

    from jptq.report import Table
    from jptq.results import Evaluation, Spread
    from jptq.tuning import Prepared

FLAGS = (
    "model",
    "calibration_data",
    "evaluator",
    *inputs.PREPARE[2:],
    "latency_table",
    "out",
    "json",
)
REQUIRED = ("model", "calibration_data")


def run(flags: FlagValues) -> int:
    """Measure and print."""
    out = None if flags.out is None else output.folder(flags.out)
    with progress.bars() as shown:
        prepared = inputs.prepared(flags, shown)
        from jptq import tuning
        from jptq.tuning import findings

        evaluator = None if flags.evaluator is None else tuning.Evaluator.load(flags.evaluator)
        measurer = tuning.Measurer(prepared, evaluator, tuning.Journal(None))
        shown("evaluate", 0, 2)
        floating = measurer.floating()
        shown("evaluate", 1, 2)
        found = measurer("model", prepared.configured)
        shown("evaluate", 2, 2)
        ranges = tuning.integer_ranges(prepared, progress=shown)
    assert found.comparison is not None
    notes = (
        *prepared.notes,
        *tuning.doubts(floating, [found]),
        *findings.remarks(prepared, prepared.table(prepared.configured), found.comparison),
        *ranges.notes,
    )
    content = {
        **_json(floating, found),
        "integer_ranges": ranges.to_json(),
        "notes": list(notes),
    }
    if out is not None:
        from jptq import files

        files.write_json(Path(out) / "evaluation.json", content)
    if flags.json:
        output.print_json(content)
        return 0
    output.print_tables([*_scores(floating, found), _outputs(found, prepared)])
    types = sorted(set(prepared.configured.values()))
    output.print_paragraph(
        f"Types: {', '.join(types)}; {100 * found.macs_int16:.1f} % of the MACs in INT16; "
        f"{found.time_us:,.1f} µs on {prepared.target.march} ({found.time_is})."
    )
    for note in notes:
        output.print_paragraph(note)
    return 0


def _scores(floating: Evaluation, found: Evaluation) -> list[Table]:
    from jptq.report import Table

    if not floating.scores:
        return []
    return [
        Table(
            title="Scores (measured)",
            header=("score", "float", "model", "share of float"),
            rows=tuple(
                (name, f"{value:.4f}", f"{found.scores[name]:.4f}", f"{found.shares[name]:.2%}")
                for name, value in floating.scores.items()
            ),
            align=("left", "right", "right", "right"),
        )
    ]


def _outputs(found: Evaluation, prepared: Prepared) -> Table:
    from jptq.report import Table

    assert found.comparison is not None
    rows = []
    for one in found.comparison.outputs:
        name = one.output
        if one.equal is not None:
            rows.append((name, "equal", "", f"{one.equal:.2%}", ""))
            name = ""
        for title, spread, digits in (
            ("cosine", one.cosine, ".6f"),
            ("L1", one.l1, ".3g"),
            ("L2", one.l2, ".3g"),
            ("Chebyshev", one.chebyshev, ".3g"),
            ("SQNR, dB", one.sqnr, ".2f"),
        ):
            rows.append((name, title, *_cells(spread, digits)))
            name = ""
    return Table(
        title=f"Outputs against float ({found.comparison.samples} samples, measured)",
        header=("output", "", "min", "mean", "max"),
        rows=tuple(rows),
        align=("left", "left", "right", "right", "right"),
    )


def _cells(spread: Spread, digits: str) -> tuple[str, str, str]:
    return (
        format(spread.min, digits),
        format(spread.mean, digits),
        format(spread.max, digits),
    )


def _json(floating: Evaluation, found: Evaluation) -> dict[str, Any]:
    return {"schema": 1, "float": floating.to_json(), "model": found.to_json()}
