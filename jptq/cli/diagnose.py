"""Tell which kind of accuracy problem a network has, and what to try.

Really runs float, all-INT8, all-INT16 and the first steps along the ranking. Type 1: the ranking
works. Type 2: all-INT16 meets the goal and the ranking fails. Type 3: all-INT16 itself misses it;
then what it leaves INT8 is named, and the ceiling of any compensation is run. With --subgraph, the
subgraph to raise is searched where the ranking fails. With --out, diagnosis.json is written.

Exit codes: 0, whatever the answer; 3 if --subgraph was asked for and none meets the goal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jptq.cli import inputs, output, progress, sweep

if TYPE_CHECKING:
    from absl.flags import FlagValues

    from jptq.cli.progress import Progress
    from jptq.results.problem import Head, Problem
    from jptq.tuning import Prepared

FLAGS = (
    "model",
    "calibration_data",
    "evaluator",
    "min_score",
    "min_cosine",
    "metric",
    "output_node",
    "int16_model",
    "subgraph",
    "samples",
    *inputs.PREPARE[2:],
    "latency_table",
    "resume",
    "out",
    "json",
)
REQUIRED = ("model", "calibration_data")

_NAMED = 12
"""Leftovers that are printed."""


def run(flags: FlagValues) -> int:
    """Diagnose and print."""
    out = None if flags.out is None else output.folder(flags.out)
    bound = inputs.bound(flags, has_evaluator=flags.evaluator is not None)
    with progress.bars() as shown:
        prepared = inputs.prepared(flags, shown, folder=sweep.work(out))
        from jptq import files, tuning
        from jptq.api import sweep as steps

        problem, head = steps.diagnose(
            prepared,
            metrics=tuple(flags.metric or ("cosine-similarity", "mse")),
            evaluator=inputs.evaluator(flags),
            bound=steps.BOUND if bound is None else bound,
            output_nodes=flags.output_node,
            reference=_int16(flags, shown),
            subgraph=flags.subgraph,
            samples=flags.samples,
            journal=tuning.Journal(sweep.work(out), reuse=flags.resume),
            progress=shown,
        )
    runs = [problem.int8, problem.int16, *(step.evaluation for step in problem.steps)]
    notes = tuning.doubts(problem.floating, [one for one in runs if one is not None])
    head_json = None if head is None else head.to_json()
    content = {**problem.to_json(), "head": head_json, "notes": list(notes)}
    if out is not None:
        files.write_json(out / "diagnosis.json", content)
        if head is not None:
            files.write_json(out / "quant_config.json", head.quant_config)
    if flags.json:
        output.print_json(content)
    else:
        _print(problem, head, prepared)
        for note in notes:
            output.print_paragraph(note)
    return sweep.NOT_MET if head is not None and not head.met else 0


def _int16(flags: FlagValues, shown: Progress) -> Prepared | None:
    if flags.int16_model is None:
        return None
    from jptq.api import steps

    return steps.calibrate(
        flags.int16_model, flags.calibration_data, march=flags.march, progress=shown
    )


def _print(problem: Problem, head: Head | None, prepared: Prepared) -> None:
    from jptq.report.sweep_text import diagnosis_scores, diagnosis_table

    if scores := diagnosis_scores(problem, len(prepared.samples)):
        output.print_text(scores, "")
    output.print_text(diagnosis_table(problem), "")
    output.print_paragraph(problem.type.sentence())
    output.print_paragraph(f"Every row is calibrated by {problem.calibration}.", indent="  ")
    for one in problem.leftovers[:_NAMED]:
        output.print_paragraph(
            f"INT8 under all-INT16: {', '.join(one.slots)} (cosine {one.cosine:.5f})", indent="  "
        )
    if len(problem.leftovers) > _NAMED:
        output.print_paragraph(f"and {len(problem.leftovers) - _NAMED} more", indent="  ")
    for advice in problem.advice:
        tail = f" Try {' '.join(advice.flags)}." if advice.flags else ""
        output.print_paragraph(f"{advice.text}{tail}", indent="  ")
    if head is not None:
        verdict = "meets the goal" if head.met else "is the best found, it misses the goal"
        share, comparison = head.evaluation.worst_share, head.evaluation.comparison
        if share is not None:
            reached = f"{share:.2%} of the float score"
        else:
            assert comparison is not None
            reached = f"a least mean cosine of {comparison.min_cosine:.6f}"
        output.print_paragraph(
            f"The subgraph from {', '.join(head.inputs)} to {', '.join(head.outputs)} {verdict}: "
            f"{reached} (measured, {len(head.trials)} runs) at {head.evaluation.time_us:,.1f} µs "
            f"({head.evaluation.time_is}; all-INT8 {problem.int8.time_us:,.1f})."
        )
        output.print_json(dict(head.quant_config))
