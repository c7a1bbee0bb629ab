"""Model the time of every node as INT8 and as INT16, without any data.

All times are estimates from published and assumed facts of the target; constants that are assumed
are named. Your own times (--latency_table) replace the model's node by node. With --out,
latency.json is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jptq.cli import inputs, output

if TYPE_CHECKING:
    from absl.flags import FlagValues

    from jptq.api.timing import Timed
    from jptq.report import Table

FLAGS = (
    "model",
    "march",
    "quant_config",
    "unmatched",
    "latency_table",
    "input_shape",
    "input_value",
    "top",
    "out",
    "json",
)
REQUIRED = ("model",)


def run(flags: FlagValues) -> int:
    """Model and print."""
    out = None if flags.out is None else output.folder(flags.out)
    found = timed(flags)
    if out is not None:
        found.table.save(Path(out) / "latency.json")
    if flags.json:
        output.print_json(found.table.to_json())
        return 0
    output.print_tables([_totals(found), _nodes(found, flags.top or len(found.table.nodes))])
    assumed = [
        f"{name} {value:g}"
        for name, (value, source) in sorted(found.table.constants.items())
        if source.startswith("assumed")
    ]
    output.print_paragraph("Modelled, not measured. Assumed constants (*): " + ", ".join(assumed))
    return 0


def timed(flags: FlagValues) -> Timed:
    """Return the times of the network that the flags name."""
    from jptq.api import timing

    return timing.timed(
        flags.model,
        march=flags.march,
        quant_config=inputs.config(flags),
        input_shapes=inputs.shapes(flags.input_shape),
        input_values=inputs.values(flags.input_value),
        measured_latency=flags.latency_table,
    )


def _totals(found: Timed) -> Table:
    from jptq.quant.assign import uniform
    from jptq.report import Table

    assignments = {
        "all INT8": uniform(found.plan, "int8"),
        "all INT16": uniform(found.plan, "int16"),
        "the model's own types": found.assignment,
    }
    base = found.table.total_us(assignments["all INT8"])
    rows = []
    for name, assignment in assignments.items():
        total = found.table.total_us(assignment)
        share = found.table.macs_share(assignment)
        rows.append((name, f"{total:,.1f}", f"{total / base:.3f}", f"{share:.1%}"))
    return Table(
        title=f"Latency on {found.target.march}, µs ({found.table.origin})",
        header=("", "µs", "of all INT8", "MACs in INT16"),
        rows=tuple(rows),
        align=("left", "right", "right", "right"),
    )


def _nodes(found: Timed, count: int) -> Table:
    from jptq.report import Table
    from jptq.report.text import shorten

    nodes = sorted(found.table.nodes, key=lambda n: -n.time_us["int8"])[:count]
    total = sum(node.time_us["int8"] for node in found.table.nodes)
    rows = [
        (
            shorten(node.node, 40),
            node.op,
            f"{node.time_us['int8']:,.2f}",
            f"{node.time_us['int16']:,.2f}",
            f"{node.time_us['int8'] / total:.1%}" if total else "-",
            node.limit or node.source,
            "*" if node.assumed else "",
        )
        for node in nodes
    ]
    return Table(
        title=f"The {len(rows)} slowest of {len(found.table.nodes)} nodes",
        header=("node", "op", "INT8 µs", "INT16 µs", "share", "bound by", ""),
        rows=tuple(rows),
        align=("left", "left", "right", "right", "right", "left", "left"),
    )
