"""Find the cheapest mixed precision that keeps your score, and verify it.

Where all-INT8 misses the goal, fits weights and biases as far as that helps (jptq fit), which costs
no latency; ranks every quantizer, proposes configurations, runs them, and lowers again what the
goal does not need. Writes quant_config.json, the network that it is for
(prepared_float_model.onnx) and calibrated_model.onnx for the vendor's tools, qdq_model.onnx for any
ONNX runtime, and report.md with the measured front, to --out (default: tuned_<model>).

Exit codes: 0 goal met; 3 not met; 4 budget below the least latency; 5 --time_limit reached. The
best result is written in each case.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from jptq.cli import inputs, machine, output, progress
from jptq.errors import ConfigError

if TYPE_CHECKING:
    from absl.flags import FlagValues

    from jptq.quant.config import Config
    from jptq.results import Report
    from jptq.tuning import Options

GOAL = (
    "min_score",
    "min_cosine",
    "latency_budget_us",
    "latency_budget_ratio",
)

SEARCH = (
    "fit",
    "search",
    "leftovers",
    "method",
    "loss",
    "samples",
    "batch_size",
    "memory_limit",
    "seed",
    "device",
    "threads",
    "time_limit",
    "resume",
    "out",
    "json",
)

FLAGS = (
    "model",
    "calibration_data",
    "evaluator",
    *GOAL,
    "march",
    "quant_config",
    "unmatched",
    "strict_integers",
    "reach",
    "latency_table",
    "input_shape",
    "input_value",
    *SEARCH,
)
REQUIRED = ("model", "calibration_data")


def run(flags: FlagValues) -> int:
    """Tune, print the result, and return how it ended."""
    return tuned(
        flags,
        model=Path(flags.model),
        calibration_data=Path(flags.calibration_data),
        evaluator=flags.evaluator,
        out=inputs.beside(flags, "tuned"),
        quant_config=inputs.config(flags),
        latency_table=flags.latency_table,
        strict_integers=flags.strict_integers,
        reach=flags.reach,
        input_shape=flags.input_shape,
        input_value=flags.input_value,
    )


def tuned(
    flags: FlagValues,
    *,
    model: Path,
    calibration_data: Path,
    evaluator: str | None,
    out: Path,
    quant_config: Config | None = None,
    latency_table: str | None = None,
    strict_integers: bool = False,
    reach: bool = True,
    input_shape: tuple[str, ...] = (),
    input_value: tuple[str, ...] = (),
) -> int:
    """Tune a network; flags of `GOAL`, `SEARCH` and ``march`` are read from ``flags``."""
    out = output.folder(out)
    refuse_contradictions(flags, has_evaluator=evaluator is not None)
    shapes = inputs.shapes(input_shape)
    values = inputs.values(input_value)
    machine.settle(flags.device, flags.threads)
    from jptq.api.run import tune

    asked = options(flags)
    with progress.bars() as shown:
        report = tune(
            model,
            calibration_data,
            out=out,
            march=flags.march,
            evaluator=evaluator,
            quant_config=quant_config,
            options=asked,
            input_shapes=shapes,
            input_values=values,
            measured_latency=latency_table,
            strict_integers=strict_integers,
            reach=reach,
            fit=flags.fit,
            resume=flags.resume,
            flags={name: flags[name].value for name in flags if flags[name].present},
            progress=shown,
            later=shown.later,
            batching=inputs.batching(flags),
        )
    show(report, out, as_json=flags.json)
    return int(report.outcome)


def refuse_contradictions(flags: FlagValues, *, has_evaluator: bool) -> None:
    """Refuse flags of the goal that would have no effect.

    Raises:
      ConfigError: Names them.
    """
    inputs.bound(flags, has_evaluator=has_evaluator)
    if flags.latency_budget_us is not None and flags.latency_budget_ratio is not None:
        raise ConfigError(
            "both --latency_budget_us and --latency_budget_ratio are given", hint="give one"
        )


def options(flags: FlagValues) -> Options:
    """Return the goal and how to search; names are checked before any work is done.

    Raises:
      UnknownNameError: A method or search that does not exist.
      ConfigError: ``--loss`` cannot be loaded, or the method takes none.
    """
    from jptq import sensitivity, tuning

    method = inputs.one(flags, "method")
    budgeted = flags.latency_budget_us is not None or flags.latency_budget_ratio is not None
    bounded = flags.min_score is not None or flags.min_cosine is not None
    asked = tuning.Options(
        **({"min_score": flags.min_score} if flags.min_score is not None else {}),
        **({"min_cosine": flags.min_cosine} if flags.min_cosine is not None else {}),
        latency_budget_us=flags.latency_budget_us,
        latency_budget_ratio=flags.latency_budget_ratio,
        quality=bounded or not budgeted,
        method=method,
        search=flags.search,
        leftovers=flags.leftovers,
        samples=flags.samples,
        seed=flags.seed,
        time_limit_s=flags.time_limit,
    )
    asked.check()
    if flags.loss is None:
        return asked
    if method not in ("gradient", "hessian"):
        raise ConfigError(f"--loss with --method={method}", hint="gradient and hessian take one")
    return dataclasses.replace(asked, loss=sensitivity.load_loss(flags.loss))


def show(report: Report, out: Path, *, as_json: bool) -> None:
    """Print what was found."""
    from jptq.report import tables
    from jptq.report.fitted import sentence
    from jptq.results import PREPARED_FILE

    if as_json:
        output.print_json(report.to_json())
        return
    output.print_tables(tables(report))
    output.print_paragraph(f"{report.outcome.verdict} {report.headline}")
    for note in report.notes:
        output.print_paragraph(note, indent="  ")
    if report.agreement is not None:
        output.print_paragraph(report.agreement.sentence)
    if report.fit is not None:
        output.print_paragraph(sentence(report.fit))
    if report.recalibration is not None:
        output.print_paragraph(report.recalibration.sentence)
    output.print_paragraph(
        f"Written to {out}: report.md, quant_config.json, calibrated_model.onnx, {PREPARED_FILE}"
    )
