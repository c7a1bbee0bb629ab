"""Change types or thresholds of a calibrated model: what does that do to its outputs?

jptq what-if --model=calibrated_model.onnx --calibration_data=data Conv_12=int16
Mul_943.input0=int16 Conv_3.threshold=4.2

prints every output's errors before and after, over all samples, and your score with --evaluator.
All changes are made together; nothing is written. A request that the target does not apply is
said. To ask many times, jptq.what_if in Python keeps the network at hand: a further question runs
only what depends on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jptq.cli import inputs, machine, output, progress
from jptq.errors import ConfigError

if TYPE_CHECKING:
    from absl.flags import FlagValues

    from jptq.report import Table
    from jptq.tuning import Answer

FLAGS = (
    "model",
    "calibration_data",
    "change",
    "reference",
    "evaluator",
    "march",
    "strict_integers",
    "latency_table",
    "batch_size",
    "memory_limit",
    "device",
    "threads",
    "json",
)
REQUIRED = ("model", "calibration_data")
WORDS = "change"


def run(flags: FlagValues) -> int:
    """Ask once and print."""
    if not flags.change:
        raise ConfigError(
            "no change is named", where="jptq what-if", hint="NODE=TYPE, for instance Conv_12=int16"
        )
    machine.settle(flags.device, flags.threads)
    from jptq.api.what_if import check, what_if
    from jptq.tuning import changes

    requests = changes.read(flags.change)
    check(flags.model, requests, march=flags.march)
    with progress.bars() as shown:
        ask = what_if(
            flags.model,
            flags.calibration_data,
            march=flags.march,
            evaluator=flags.evaluator,
            batching=inputs.batching(flags),
            measured_latency=flags.latency_table,
            strict_integers=flags.strict_integers,
            reference=flags.reference,
            progress=shown,
        )
        answer = ask(requests)
    if flags.json:
        output.print_json(answer.to_json())
        return 0
    output.print_tables([_changes(answer), *_scores(answer), _outputs(answer)])
    output.print_paragraph(
        f"Modelled latency on {flags.march}: {answer.before.time_us:,.1f} to "
        f"{answer.after.time_us:,.1f} µs; MACs in INT16: {100 * answer.before.macs_int16:.1f} to "
        f"{100 * answer.after.macs_int16:.1f} %."
    )
    for note in answer.notes:
        output.print_paragraph(note)
    return 0


def _changes(answer: Answer) -> Table:
    from jptq.report import Table

    return Table(
        title="Changes",
        header=("asked", "quantizer", "before", "after", ""),
        rows=tuple(
            (change.request, change.calibration, change.before, change.after, change.note)
            for change in answer.changes
        ),
        align=("left",) * 5,
    )


def _scores(answer: Answer) -> list[Table]:
    from jptq.report import Table

    if not answer.after.scores:
        return []
    return [
        Table(
            title="Scores (measured)",
            header=("score", "before", "after", "difference", "share of float"),
            rows=tuple(
                (
                    name,
                    f"{answer.before.scores[name]:.4f}",
                    f"{new:.4f}",
                    f"{new - answer.before.scores[name]:+.4f}",
                    f"{answer.after.shares[name]:.2%}",
                )
                for name, new in answer.after.scores.items()
            ),
            align=("left", *("right",) * 4),
        )
    ]


def _outputs(answer: Answer) -> Table:
    from jptq.report import Table
    from jptq.tuning.what_if import COLUMNS

    rows = []
    for old, new in answer.outputs:
        name = old.output
        for title, field in COLUMNS:
            before, after = getattr(old, field).mean, getattr(new, field).mean
            digits = ".6f" if field == "cosine" else ".4g"
            row = (format(before, digits), format(after, digits), f"{after - before:+.3g}")
            rows.append((name, title, *row))
            name = ""
    assert answer.after.comparison is not None
    return Table(
        title=f"Outputs against float, mean over {answer.after.comparison.samples} samples "
        "(measured)",
        header=("output", "", "before", "after", "difference"),
        rows=tuple(rows),
        align=("left", "left", *("right",) * 3),
    )
