"""Choose types within a latency budget from a table of errors: a prediction.

Takes sensitivity.json of `jptq sensitivity --kind=group` and the same model. Without a budget, the
whole front is printed. What it finds is predicted by adding up errors, not measured: jptq tune runs
what it proposes. With --out and a budget, quant_config.json and allocation.json are written; of a
front, front.json.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jptq.cli import inputs, latency, output, progress
from jptq.errors import ConfigError

if TYPE_CHECKING:
    from absl.flags import FlagValues

    from jptq.api.timing import Timed
    from jptq.quant.config import Config
    from jptq.report import Table
    from jptq.results import Allocation

FLAGS = (
    "model",
    "sensitivity",
    "metric",
    "latency_budget_us",
    "latency_budget_ratio",
    "march",
    "latency_table",
    "input_shape",
    "input_value",
    "quant_config",
    "unmatched",
    "out",
    "json",
)
REQUIRED = ("model", "sensitivity")

POINTS = 24
"""Budgets that the front is solved for."""

BUDGET_TOO_SMALL = 4


def run(flags: FlagValues) -> int:
    """Solve and print."""
    out = None if flags.out is None else output.folder(flags.out)
    from jptq.api import steps
    from jptq.quant.assign import uniform
    from jptq.results import SensitivityTable

    errors = SensitivityTable.load(Path(flags.sensitivity))
    found = latency.timed(flags)
    int8_us = found.table.total_us(uniform(found.plan, "int8"))
    budget = _budget(flags, int8_us)
    metric = inputs.one(flags, "metric") if flags.metric else errors.metrics[0]
    problem = steps.problem(found, errors, metric=metric)
    if budget is None:
        from jptq.allocation import pareto

        with progress.bars() as shown:
            solved = pareto(
                problem, POINTS, progress=lambda done, total: shown("solve", done, total)
            )
    else:
        from jptq.allocation import SOLVERS, least_us
        from jptq.tuning.goal import ROUNDING

        least = least_us(problem)
        if budget < least * (1 - ROUNDING):
            return _too_small(flags, budget, least, found.table.origin)
        # A budget that is the least time but for the last place is meant to be met.
        solved = [SOLVERS["milp"](problem, max(budget, least))]
    if out is not None:
        _write(solved, found, inputs.config(flags), out, budgeted=budget is not None)
    if flags.json:
        output.print_json([one.to_json() for one in solved])
        return 0
    output.print_tables([_table(solved, found, int8_us, metric)])
    if budget is not None:
        output.print_text(f"Raised: {', '.join(_raised(solved[0], found)) or 'nothing'}")
    output.print_paragraph(
        f"Predicted by adding up errors, times {found.table.origin}. "
        "jptq tune runs what it proposes."
    )
    return 0


def _too_small(flags: FlagValues, budget: float, least: float, origin: str) -> int:
    if flags.json:
        output.print_json({"status": "budget too small", "budget_us": budget, "least_us": least})
    else:
        output.print_text(
            f"The budget of {budget:,.1f} µs is below the least reachable latency, "
            f"{least:,.1f} µs ({origin})."
        )
    return BUDGET_TOO_SMALL


def _budget(flags: FlagValues, int8_us: float) -> float | None:
    if flags.latency_budget_us is not None and flags.latency_budget_ratio is not None:
        raise ConfigError(
            "both --latency_budget_us and --latency_budget_ratio are given", hint="give one"
        )
    if flags.latency_budget_ratio is not None:
        return float(flags.latency_budget_ratio) * int8_us
    return None if flags.latency_budget_us is None else float(flags.latency_budget_us)


def _raised(one: Allocation, found: Timed) -> list[str]:
    from jptq.quant.assign import uniform

    base = uniform(found.plan, "int8")
    return [
        slots.node
        for slots in found.plan.slots
        if any(one.assignment[name] != base[name] for name in slots.calibrations)
    ]


def _table(solved: list[Allocation], found: Timed, int8_us: float, metric: str) -> Table:
    from jptq.report import Table

    return Table(
        title=f"Least error by latency on {found.target.march} (predicted)",
        header=(
            f"sum of {metric}",
            "bound",
            f"µs ({found.table.origin})",
            "of all INT8",
            "nodes raised",
            "proof",
        ),
        rows=tuple(
            (
                f"{one.predicted_error:.4g}",
                f"{one.bound:.4g}",
                f"{one.time_us:,.1f}",
                f"{one.time_us / int8_us:.3f}",
                str(len(_raised(one, found))),
                one.status.value,
            )
            for one in solved
        ),
        align=("right", "right", "right", "right", "right", "left"),
    )


def _write(
    solved: list[Allocation], found: Timed, config: Config | None, out: Path, *, budgeted: bool
) -> None:
    from jptq import files
    from jptq.quant.emit import quant_config

    if not budgeted:
        content: dict[str, Any] = {"schema": 1, "points": [one.to_json() for one in solved]}
        files.write_json(out / "front.json", content)
        return
    content = quant_config(
        found.model,
        found.plan,
        found.target,
        solved[0].assignment,
        activation=None if config is None else config.activation,
        like=config,
    )
    files.write_json(out / "allocation.json", {"schema": 1, **solved[0].to_json()})
    files.write_json(out / "quant_config.json", content)
