"""Rank nodes or quantizers by how much the outputs suffer if only they are quantized.

Takes a float model, which is calibrated first, or a calibrated one. Several --method print a table
each; --compare shows how far they agree with the exact ranking and what they cost. With --out,
sensitivity.json is written (of several methods: sensitivity_<method>.json).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jptq.cli import inputs, output, progress
from jptq.errors import ConfigError

if TYPE_CHECKING:
    from absl.flags import FlagValues

    from jptq.cli.progress import Progress
    from jptq.report import Table
    from jptq.results import SensitivityTable
    from jptq.sensitivity import Agreement
    from jptq.tuning import Prepared

FLAGS = (
    "model",
    "calibration_data",
    "kind",
    "method",
    "metric",
    "compare",
    "output_node",
    "sweep",
    "loss",
    "samples",
    "seed",
    "top",
    *inputs.PREPARE[2:],
    "out",
    "json",
)
REQUIRED = ("model", "calibration_data")


def run(flags: FlagValues) -> int:
    """Rank and print."""
    out = None if flags.out is None else output.folder(flags.out)
    methods = tuple(dict.fromkeys(flags.method))
    if not methods:
        raise ConfigError("--method names none")
    with progress.bars() as shown:
        prepared = inputs.prepared(flags, shown)
        exact = _exact(flags, prepared, methods, shown) if flags.compare else None
        tables = [
            exact.only(_metrics(flags, method))
            if exact is not None and method == exact.method
            else _ranked(flags, prepared, method, shown)
            for method in methods
        ]
        agreements = [] if exact is None else _agreements(tables, exact)
    if out is not None:
        for table in tables:
            name = "sensitivity" if len(tables) == 1 else f"sensitivity_{table.method}"
            table.save(Path(out) / f"{name}.json")
    if flags.json:
        output.print_json(_json(tables, agreements))
        return 0
    for table in tables:
        _print(table, prepared, top=flags.top)
    if agreements:
        output.print_tables([_agreement_table(agreements)])
    return 0


def _ranked(
    flags: FlagValues, prepared: Prepared, method: str, shown: Progress, *, metrics: Any = None
) -> SensitivityTable:
    from jptq import sensitivity
    from jptq.api import steps

    loss = None
    if flags.loss is not None and method in ("gradient", "hessian"):
        loss = sensitivity.load_loss(flags.loss)
    elif flags.loss is not None and len(flags.method) == 1:
        raise ConfigError(f"--loss with --method={method}", hint="gradient and hessian take one")
    return steps.rank_nodes(
        prepared,
        kind=flags.kind,
        method=method,
        metrics=tuple(metrics or flags.metric or ()),
        samples=flags.samples,
        seed=flags.seed,
        loss=loss,
        output_nodes=flags.output_node,
        sweep=flags.sweep if method == "metric" else "fast",
        progress=shown,
    )


def _metrics(flags: FlagValues, method: str) -> tuple[str, ...]:
    from jptq.api import steps

    return tuple(flags.metric or ()) or steps.default_metrics(method, flags.kind)


def _exact(
    flags: FlagValues, prepared: Prepared, methods: Sequence[str], shown: Progress
) -> SensitivityTable:
    """Rank exactly, once, by every metric that a method uses or is compared by."""
    from jptq import sensitivity

    wanted = dict.fromkeys(name for method in methods for name in _metrics(flags, method))
    known = sensitivity.METRICS_OF["metric"]
    if "metric" in methods:
        known = (*known, *_metrics(flags, "metric"))
    metrics = [name for name in (*wanted, "mse") if name in known]
    return _ranked(flags, prepared, "metric", shown, metrics=tuple(dict.fromkeys(metrics)))


def _agreements(tables: Sequence[SensitivityTable], exact: SensitivityTable) -> list[Agreement]:
    """Return how far each table agrees with the exact one by its own metric, or by MSE."""
    from jptq import sensitivity

    return [
        sensitivity.compare(table, exact) for table in tables if table.method != exact.method
    ] + [sensitivity.compare(exact, exact, metric="mse")]


def _print(table: SensitivityTable, prepared: Prepared, *, top: int) -> None:
    from jptq.report import sensitivity_table

    kept = table.take(table.order()[:top] if top else table.order())
    printed = sensitivity_table(kept, before=_columns(kept, prepared), exact=True)
    output.print_text(printed.lstrip("\n"))
    left = len(table.rows) - len(kept.rows)
    metrics = f"{table.method}, {table.samples} samples, outputs {', '.join(table.outputs)}"
    more = f"{left} more rows: --top=0; " if left else ""
    output.print_paragraph(f"({more}{metrics})", indent="")
    for note in table.notes:
        output.print_paragraph(note, indent="  ")
    output.print_text("")


def _columns(table: SensitivityTable, prepared: Prepared) -> dict[str, list[str]]:
    """Return what the vendor prints beside quantizers: their node, threshold and type."""
    from jptq.report.vendor_tables import calibration_columns

    return calibration_columns(
        table,
        owners=prepared.plan.owners,
        thresholds=prepared.thresholds,
        qtypes=prepared.configured,
    )


def _agreement_table(agreements: list[Agreement]) -> Table:
    from jptq.report import Table

    exactly = agreements[-1].seconds
    return Table(
        title="Agreement with the exact ranking (measured here, compilation included)",
        header=("method", "score", "rank correlation", "worst found", "seconds", "of exact"),
        rows=tuple(
            (
                one.method,
                one.metric,
                "-" if math.isnan(one.spearman) else f"{one.spearman:.3f}",
                f"{one.worst_in} of {one.worst} in first {one.first}",
                f"{one.seconds:.1f}",
                f"{one.seconds / exactly:.2f}" if exactly else "-",
            )
            for one in agreements
        ),
        align=("left", "left", "right", "right", "right", "right"),
    )


def _json(tables: list[SensitivityTable], agreements: list[Agreement]) -> dict[str, Any]:
    import dataclasses

    content: dict[str, Any] = {"tables": [table.to_json() for table in tables]}
    if agreements:
        content["agreement"] = [
            {k: None if v != v else v for k, v in dataclasses.asdict(one).items()}
            for one in agreements
        ]
    return content
