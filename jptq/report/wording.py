"""How configurations are called and how each quantity is written: the same in every output."""

from __future__ import annotations

from jptq.results import Evaluation, OutputAgreement, OutputError, Raised, Report

NONE = "-"
"""Stands where there is no number."""


def score(value: float) -> str:
    """Write a user's score."""
    return f"{value:.4f}"


def percent(value: float) -> str:
    """Write a share of float: 1 is ``100.00 %``."""
    return f"{100 * value:.2f} %"


def scored(evaluation: Evaluation, task: str) -> str:
    """Write a score with its share of float, if there is one."""
    text = score(evaluation.scores[task])
    share = evaluation.shares.get(task)
    return text if share is None else f"{text} ({percent(share)})"


def cosine(value: float) -> str:
    """Write a cosine similarity."""
    return f"{value:.6f}"


def error(value: float | None) -> str:
    """Write an error, three digits."""
    return NONE if value is None else f"{value:.3g}"


def apart(output: OutputAgreement) -> str:
    """Write a largest difference: a share of the largest value, and steps where there are some."""
    text = f"{100 * output.difference:.2g} %"
    return text if output.steps is None else f"{text} ({output.steps:.2g} steps)"


def micros(value: float | None) -> str:
    """Write microseconds, without the unit."""
    return NONE if value is None else f"{value:,.1f}"


def cost(value: float) -> str:
    """Write what a node adds to the latency, without the unit: often less than a microsecond."""
    return f"{value:+,.2f}"


def times(evaluation: Evaluation) -> str:
    """Name the unit of an evaluation's time, and where that is from."""
    return f"µs ({evaluation.time_is})"


def min_cosine(evaluation: Evaluation) -> str:
    """Write the least mean cosine of any output."""
    return NONE if evaluation.comparison is None else cosine(evaluation.comparison.min_cosine)


def lost(output: OutputError) -> int:
    """Return how many channels of an output are lost."""
    return sum(len(one.channels) for one in output.lost)


def output_cosine(output: OutputError, value: float) -> str:
    """Write one of an output's cosines, and beside it what that does not show."""
    count = lost(output)
    return cosine(value) + (f" ({count} lost)" if count else "")


def rank(report: Report, node: Raised) -> str:
    """Write a node's place in the ranking; some have no quantizer of their own to be ranked by."""
    return str(node.rank) if node.rank <= len(report.sensitivity.rows) else NONE


def quality(evaluation: Evaluation) -> str:
    """Write what the goal bounds: the worst share of float, else the least mean cosine.

    Beside it stands what that hides.
    """
    found = evaluation.comparison
    if evaluation.shares or found is None:
        return percent(evaluation.quality) if evaluation.shares else cosine(evaluation.quality)
    worst = min(found.outputs, key=lambda one: one.quality)
    if worst.equal is not None:
        return f"{percent(worst.equal)} equal"
    return output_cosine(worst, worst.cosine.mean if worst.lost else found.min_cosine)


def quality_name(report: Report) -> str:
    """Name what `quality` writes."""
    return "worst share of float" if report.final.shares else "least mean cosine"


def buildable(report: Report) -> tuple[tuple[str, Evaluation], ...]:
    """Return the configurations that the target can run, with their names."""
    return (("all-INT8", report.int8), ("all-INT16", report.int16), ("final", report.final))


def configurations(report: Report) -> tuple[tuple[str, Evaluation], ...]:
    """Return everything that a reader compares: float and simulations besides `buildable`."""
    simulated = (
        () if report.true_int16 is None else (("true INT16 (simulated)", report.true_int16),)
    )
    int8, int16, final = buildable(report)
    return (("float", report.floating), int8, int16, *simulated, final)


def measured_error(evaluation: Evaluation) -> float | None:
    """Return the mean squared error, averaged over samples and then over outputs.

    Source: hmct-spec 2.5, the rule for several outputs.
    """
    if evaluation.comparison is None:
        return None
    outputs = evaluation.comparison.outputs
    return sum(output.l2.mean for output in outputs) / len(outputs)


def origin(report: Report) -> str:
    """Say whether the nodes' own errors were measured or predicted."""
    method = report.sensitivity.method
    return "measured" if method == "metric" else f"predicted by {method}"
