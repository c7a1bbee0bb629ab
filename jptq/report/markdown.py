"""``report.md``: the answer first, then what it rests on; every number says where it is from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from jptq.report import fitted, methods, reach, shipped, terminal, text, wording
from jptq.report.markup import code, plain, table
from jptq.report.table import RIGHT
from jptq.results import OutputError, Report, Spread

HEAD = 20
"""Rows of the ranking that are printed."""

PICTURES = {
    "pareto": "Measured quality against the latency of everything that was run",
    "outputs": "Error of each output, mean over samples, whiskers from best to worst (measured)",
    "ranking": "The worst nodes by their own error as INT8",
}
"""``{file without suffix: what it shows}``."""


def render(report: Report) -> str:
    """Return the text of ``report.md``."""
    sections = (
        _answer(report),
        _reachable(report),
        _compared(report),
        _notes(report),
        shipped.use(report),
        shipped.section(report),
        _exported(report),
        _raised(report),
        _outputs(report),
        methods.section(report),
        reach.section(report),
        fitted.section(report),
        _tried(report),
        _ranking(report),
        _latency(report),
        _provenance(report),
    )
    return "\n\n".join(block for section in sections for block in section) + "\n"


def _answer(report: Report) -> list[str]:
    goal, final = report.goal, report.final
    rows = []
    if goal.min_score is not None and final.worst_share is not None:
        short = goal.min_score - final.worst_share
        rows.append(
            (
                "every score, share of float",
                f"at least {wording.percent(goal.min_score)}",
                f"{wording.percent(final.worst_share)} (measured)",
                _verdict(short, f"{100 * short:.3g} points short"),
            )
        )
    if goal.min_cosine is not None and final.comparison is not None:
        short = goal.min_cosine - final.comparison.min_cosine
        rows.append(
            (
                "mean cosine of every output",
                f"at least {goal.min_cosine:g}",
                f"{wording.min_cosine(final)} (measured)",
                _verdict(short, f"{short:.3g} short" if short == short else "no number"),
            )
        )
        rows += [
            ("channels of an output that are lost", "none", f"{count} (measured)", "**missed**")
            for count in [sum(map(wording.lost, final.comparison.outputs))]
            if count
        ]
    if goal.budget_us is not None and final.time_us is not None:
        over = final.time_us - goal.budget_us
        rows.append(
            (
                "latency",
                f"at most {wording.micros(goal.budget_us)} µs",
                f"{wording.micros(final.time_us)} {wording.times(report.final)}",
                _verdict(over, f"{wording.micros(over)} µs over"),
            )
        )
    blocks = [
        f"# {plain(report.model)} on {plain(report.march)}",
        f"**{report.outcome.verdict}** {report.headline}",
    ]
    if rows:
        header = ("goal", "asked for", "reached", "")
        blocks.append(table(header, rows, ("left", "right", "right", "left")))
    return blocks


def _reachable(report: Report) -> list[str]:
    if not report.reachable:
        return []
    known = {step.name: step for step in (report.int8, report.int16, report.final, *report.steps)}
    rows = [
        (
            code(name),
            wording.quality(known[name]),
            wording.micros(known[name].time_us),
            f"{100 * known[name].macs_int16:.1f} %",
            str(known[name].raised),
        )
        for name in report.reachable
    ]
    return [
        "## Nearest reachable points",
        "Nothing that was run meets the whole goal. These come nearest; one of them is reached by "
        "relaxing the score or the budget to what it shows.",
        table(
            (
                "configuration",
                f"{wording.quality_name(report)} (measured)",
                f"latency, {wording.times(report.final)}",
                "MACs in INT16",
                "nodes raised",
            ),
            rows,
            ("left", "right", "right", "right", "right"),
        ),
    ]


def _compared(report: Report) -> list[str]:
    side = terminal.compared(report)
    blocks = [
        "## What it costs, what it brings",
        table(side.header, [(plain(row[0]), *row[1:]) for row in side.rows], side.align),
        "All-INT16 is what the target allows: operands that it only "
        f"has as INT8 stay so. Latencies are {_trust(report)}.",
    ]
    if report.true_int16 is not None:
        blocks.append(
            "true INT16 sets every quantizer to INT16, also where the target cannot: a simulation "
            "(measured) that shows what error compensation could reach at most."
        )
    if report.search == "milp" and report.walk_us is not None and report.final.time_us is not None:
        saved = 1 - report.final.time_us / report.walk_us if report.walk_us else 0.0
        blocks.append(
            "The documented way, raising the worst nodes one after the other until the goal is "
            f"met, needs {wording.micros(report.walk_us)} µs; this configuration needs "
            f"{wording.micros(report.final.time_us)} µs, {100 * abs(saved):.1f} % "
            f"{'less' if saved >= 0 else 'more'} (both {report.latency.origin})."
        )
    return [*blocks, _picture("pareto")]


def _notes(report: Report) -> list[str]:
    if not report.notes:
        return []
    return ["## What to know", "\n".join(f"- {note}" for note in report.notes)]


def _exported(report: Report) -> list[str]:
    if report.agreement is None:
        return []
    return ["## In onnxruntime", plain(report.agreement.sentence)]


def _raised(report: Report) -> list[str]:
    if not report.raised:
        return ["## Which nodes are raised", "None: every node runs as INT8."]
    rows = [
        (
            wording.rank(report, node),
            code(node.node),
            plain(node.op),
            node.candidate,
            wording.error(node.error_int8),
            wording.cost(node.cost_us),
            plain(node.why),
        )
        for node in report.raised
    ]
    counts = Counter(node.candidate for node in report.raised)
    total = ", ".join(f"{count} as {name}" for name, count in counts.items())
    return [
        "## Which nodes are raised, and why",
        f"{total}, of {len(report.latency.nodes)} nodes. The error is the mean squared error at "
        f"the outputs with only this node quantized, as INT8 ({wording.origin(report)}); rank 1 "
        f"is the worst node; the latency that raising adds is {report.latency.origin}.",
        table(
            ("rank", "node", "operator", "runs as", "own error", "adds, µs", "why"),
            rows,
            ("right", "left", "left", "left", "right", "right", "left"),
        ),
    ]


def _outputs(report: Report) -> list[str]:
    shown = [
        (name, evaluation.comparison)
        for name, evaluation in wording.buildable(report)
        if evaluation.comparison is not None
    ]
    if not shown:
        return []
    rows = []
    for index in range(len(shown[0][1].outputs)):
        for name, comparison in shown:
            error = comparison.outputs[index]
            rows.append((code(error.output), name, *_spreads(error)))
    return [
        "## Outputs",
        f"Against the float model over {shown[-1][1].samples} samples, measured: min / mean / max. "
        "L1 is the mean absolute, L2 the mean squared, Chebyshev the largest difference, in the "
        "output's unit.",
        table(
            ("output", "configuration", "cosine", "L1", "L2", "Chebyshev"),
            rows,
            ("left", "left", "right", "right", "right", "right"),
        ),
        _picture("outputs"),
    ]


def _spreads(error: OutputError) -> Iterable[str]:
    def cell(spread: Spread, form: str) -> str:
        return " / ".join(format(v, form) for v in (spread.min, spread.mean, spread.max))

    yield cell(error.cosine, ".6f")
    for spread in (error.l1, error.l2, error.chebyshev):
        yield cell(spread, ".3g")


def _tried(report: Report) -> list[str]:
    if not report.steps:
        return []
    front = {step.name for step in report.pareto}
    rows = [
        (
            code(step.name),
            *(wording.scored(step, task) for task in report.floating.scores),
            wording.min_cosine(step),
            wording.error(step.predicted_error),
            wording.error(wording.measured_error(step)),
            wording.micros(step.time_us),
            f"{100 * step.macs_int16:.1f} %",
            str(step.raised),
            "yes" if step.name in front else "",
        )
        for step in report.steps
    ]
    scores = tuple(f"{plain(task)} (measured)" for task in report.floating.scores)
    return [
        "## What was tried",
        f"{len(report.steps)} configurations, in order, each really run. The measured error is "
        "the mean squared error, averaged over samples and outputs; the predicted one is what "
        "the search had expected of it. Front: nothing that was run is both better and faster.",
        table(
            (
                "step",
                *scores,
                "least mean cosine (measured)",
                "error (predicted)",
                "error (measured)",
                f"latency, {wording.times(report.final)}",
                "MACs in INT16",
                "raised",
                "front",
            ),
            rows,
            ("left", *(RIGHT,) * (len(scores) + 6), "left"),
        ),
    ]


def _ranking(report: Report) -> list[str]:
    ranking = report.sensitivity
    head = ranking.take(ranking.order()[:HEAD])
    lines = text.sensitivity_table(head, exact=True).lstrip("\n").splitlines()
    return [
        "## Ranking",
        f"The {len(head.rows)} worst of {len(ranking.rows)} nodes, only the node itself quantized, "
        f"{ranking.samples} samples ({wording.origin(report)}).",
        "```text\n" + "\n".join(line.rstrip() for line in lines) + "\n```",
        *(f"- {note}" for note in ranking.notes),
        _picture("ranking"),
    ]


def _latency(report: Report) -> list[str]:
    times = report.latency
    raised = {node.node for node in report.raised}
    rows = []
    for name, (value, source) in times.constants.items():
        if not source.startswith("assumed"):
            continue
        users = [node.node for node in times.nodes if name in node.assumed]
        rows.append(
            (
                code(name),
                f"{value:g}",
                str(len(users)),
                str(len(raised.intersection(users))),
                plain(source.removeprefix("assumed").removeprefix(":").strip()),
            )
        )
    sources = Counter(node.source for node in times.nodes)
    blocks = [
        "## How far to trust the latencies",
        f"Times of {len(times.nodes)} nodes on {times.target}: "
        + ", ".join(f"{count} {source}" for source, count in sources.items())
        + ".",
    ]
    if not rows:
        return [*blocks, "No constant of the model is assumed."]
    return [
        *blocks,
        "These constants of the model are assumed, because nothing is published. A raised node "
        "that depends on one was chosen on its strength: times measured on the chip replace it.",
        table(
            ("constant", "assumed value", "nodes", "of these raised", "why"),
            rows,
            ("left", "right", "right", "right", "left"),
        ),
    ]


def _provenance(report: Report) -> list[str]:
    rows = (
        ("calibration", code(report.calibration)),
        ("calibration samples", str(report.samples)),
        ("search", code(report.search)),
        ("ranking used by the search", code(report.method)),
        ("evaluator calls", str(report.evaluator_calls)),
    )
    return ["## How it was found", table(("", ""), rows, ("left", "left"))]


def _trust(report: Report) -> str:
    """Say where the latencies are from."""
    if report.latency.origin == "modelled":
        return "modelled, not taken on the chip"
    return f"{report.latency.origin}: from the table that was given"


def _verdict(excess: float, missed: str) -> str:
    """Round nothing away: a goal that is missed by a hair still says so."""
    return "met" if excess <= 0 else f"**{missed}**"


def _picture(name: str) -> str:
    return f"![{PICTURES[name]}]({name}.png)"
