"""What the numbers say about how to look at them: which metric, which output, what to raise.

Source: the vendor's tuning chapter; hmct-spec 2.5, 4.5 and 8.1.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from jptq.ir.model import Model
from jptq.quant.assign import Thresholds
from jptq.results import Comparison, Evaluation, Goal, OutputError, SensitivityTable
from jptq.results.problem import Advice, Leftover
from jptq.tuning.sweep import printed

HIGH_COSINE = 0.99
"""From here on a cosine looks harmless."""

TIED = 0.25
"""Share of tied scores from which on a ranking is called blunt."""

_EXACT = 60.0
"""A vendor's SQNR that float32 does not reach unless there is no error."""

_NAMED = 6


def failing(goal: Goal, evaluation: Evaluation) -> tuple[str, ...]:
    """Return the scores that miss the goal, or the outputs if the cosine decides."""
    if goal.min_score is not None and evaluation.shares:
        bound = goal.min_score
        return tuple(name for name, share in evaluation.shares.items() if share < bound)
    if goal.min_cosine is not None and evaluation.comparison is not None:
        least = goal.min_cosine
        return tuple(o.output for o in evaluation.comparison.outputs if o.quality < least)
    return ()


def magnitude(output: OutputError) -> float:
    """Return the root mean square of a float output, from its error and its ratio to the signal.

    Source: hmct-spec 2.5: ``sqnr = 5 log10(signal power / error power)``, ``l2`` the error power.
    """
    # A sample without error has an infinite ratio: the mean says nothing then.
    ratio = min(output.sqnr.mean, _EXACT)
    return math.sqrt(output.l2.mean) * math.pow(10.0, ratio / 10.0)


def metric_advice(comparison: Comparison, culprits: Sequence[str] = ()) -> Advice | None:
    """Advise MSE where a high cosine hides errors that matter.

    The cosine weighs an element by its size: in an output that joins pixels with probabilities
    the pixels decide it. Errors are hidden if one is larger than the output's own magnitude, or
    if the output makes a score fail all the same.

    Args:
      comparison: Of a quantized model that fails.
      culprits: Outputs that make it fail, if scores decide.
    """
    harmless = [
        one for one in comparison.outputs if one.cosine.mean >= HIGH_COSINE and magnitude(one) > 0
    ]
    large = [one for one in harmless if one.chebyshev.mean > magnitude(one)]
    hidden = large or [one for one in harmless if one.output in culprits]
    if not hidden:
        return None
    worst = max(hidden, key=lambda one: one.chebyshev.mean / magnitude(one))
    blamed = " and makes a score fail" if worst.output in culprits else ""
    return Advice(
        kind="metric",
        text=f"Output {worst.output!r} keeps a cosine of {worst.cosine.mean:.6f}{blamed}, with an "
        f"L1 distance of {worst.l1.mean:.6g}, an L2 distance of {worst.l2.mean:.6g} and a "
        f"Chebyshev distance of {worst.chebyshev.mean:.6g} at a root mean square of "
        f"{magnitude(worst):.6g}: the cosine hides errors that matter. Rank by mse.",
        flags=("--metric=mse",),
    )


def tied_share(ranking: SensitivityTable, metric: str | None = None) -> float:
    """Return the share of rows whose printed score another row with other quantizers has too.

    Rows behind the same quantizers are equal by definition and count once.
    """
    table = ranking if metric is None else _by(ranking, metric)
    scores = dict(zip(table.members, printed(table), strict=True))
    counts = Counter(scores.values())
    return sum(counts[score] > 1 for score in scores.values()) / len(scores) if scores else 0.0


def tie_advice(ranking: SensitivityTable) -> Advice | None:
    """Say what share of the scores is tied, and which metric of the table ties least."""
    share = tied_share(ranking)
    if share < TIED:
        return None
    score, count = Counter(printed(ranking)).most_common(1)[0]
    text = (
        f"{share:.0%} of the scores by {ranking.metrics[0]} are tied at five decimals ({count} "
        f"nodes print {score}): a threshold cannot tell these nodes apart."
    )
    best = min(ranking.metrics, key=lambda name: tied_share(ranking, name))
    if tied_share(ranking, best) >= share:
        return Advice(kind="ties", text=text)
    return Advice(
        kind="ties",
        text=f"{text} By {best} it is {tied_share(ranking, best):.0%}.",
        flags=(f"--metric={best}",),
    )


def output_advice(model: Model, culprits: Sequence[str], failed: Sequence[str]) -> Advice | None:
    """Advise to rank at the outputs that fail; None if all of them do."""
    rest = [name for name in model.output_names if name not in culprits]
    if not culprits or not rest:
        return None
    nodes = [producer_of(model, name) for name in culprits]
    return Advice(
        kind="output",
        text=f"Only {_listed(failed)} fails, through the output{'s' if len(culprits) > 1 else ''} "
        f"{_listed(culprits)}; {_listed(rest)} "
        f"{'do' if len(rest) > 1 else 'does'} not. Rank only what acts on it.",
        flags=tuple(f"--output_node={name}" for name in nodes if name),
    )


def producer_of(model: Model, tensor: str) -> str:
    """Return the operator that writes a tensor, a quantizer looked through; empty for an input."""
    node = model.producers.get(tensor)
    while node is not None and node.is_calibration:
        node = model.producers.get(node.inputs[0])
    return "" if node is None else node.name


def subgraph_advice(model: Model, culprits: Sequence[str]) -> Advice:
    """Advise a subgraph in front of the failing outputs."""
    nodes = [name for name in (producer_of(model, tensor) for tensor in culprits) if name]
    return Advice(
        kind="subgraph",
        text=f"The ranking misleads. Raise the subgraph in front of {_listed(nodes)} as a whole, "
        "then give back inside what the goal does not need.",
        flags=("--subgraph",),
    )


def compensation_advice(
    goal_met: bool,
    leftovers: Sequence[Leftover],
    reached: str,
    worst: Mapping[str, float] | None = None,
) -> Advice:
    """Say what closes the gap between all-INT16 and the goal, or that nothing INT16 does.

    Args:
      goal_met: By every quantizer INT16, a simulation.
      leftovers: What all-INT16 leaves INT8.
      reached: What the simulation reaches, as `goal.told` writes it.
      worst: Where it fails, operands that fail alone as INT16, with the cosine that each leaves.
    """
    if not goal_met:
        text = (
            f"With every quantizer INT16, a simulation, it is {reached}: "
            "compensation does not reach the goal. Thresholds lose it: try another calibration "
            "method, or float16."
        )
        if worst:
            listed = [f"{slot} ({cosine:.5f})" for slot, cosine in worst.items()]
            text += f" Alone at work as INT16, it is lost by {', '.join(listed[:_NAMED])}."
        return Advice(kind="calibration", text=text)
    slots = [one.slots[0] for one in leftovers if one.slots and one.repairs]
    return Advice(
        kind="compensate",
        text=f"With every quantizer INT16, a simulation, it is {reached}: what all-INT16 "
        f"leaves INT8 loses the goal. Compensate the worst of these {len(leftovers)} quantizers "
        f"(ec, or dual-int16), one after the other: {_listed(slots)}.",
    )


def mix_advice(
    thresholds: Thresholds, reference: Thresholds, methods: tuple[str, str]
) -> Advice | None:
    """Report thresholds that differ from those of the all-INT16 reference.

    Args:
      thresholds: Of the INT8 model.
      reference: Of the all-INT16 model that reached the goal.
      methods: Calibration tags of both, in this order.
    """
    shared = thresholds.keys() & reference.keys()
    differing = [n for n in sorted(shared) if not _equal(thresholds[n], reference[n])]
    if not differing and methods[0] == methods[1]:
        return None
    return Advice(
        kind="calibration",
        text=f"INT8 is calibrated by {methods[0]!r} and the all-INT16 reference by "
        f"{methods[1]!r}; {len(differing)} of {len(shared)} thresholds differ. What INT16 proved "
        "does not hold for a mix: calibrate both with the reference's method.",
    )


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool(np.all(a == b))


def _by(ranking: SensitivityTable, metric: str) -> SensitivityTable:
    """Return a ranking with one of its metrics alone."""
    at = ranking.metrics.index(metric)
    keep = slice(at, at + 1)
    return dataclasses.replace(
        ranking,
        metrics=(metric,),
        score=ranking.score[:, :, keep],
        stderr=ranking.stderr[:, :, keep],
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} others" if len(names) > _NAMED else ""
    return ", ".join(repr(name) for name in names[:_NAMED]) + more
