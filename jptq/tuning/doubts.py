"""What makes the user's scores worth less than they look."""

from __future__ import annotations

from collections.abc import Sequence

from jptq.results import Evaluation
from jptq.tuning.scores import EXACT


def doubts(floating: Evaluation, found: Sequence[Evaluation]) -> tuple[str, ...]:
    """Return what a reader has to know before believing a score, most important first.

    Args:
      floating: The float model's scores.
      found: Quantized configurations that were run, with their scores.
    """
    return (
        *(_unmoved(name, floating, found) for name in _still(floating, found)),
        *(_worthless(name, value) for name, value in floating.scores.items() if value <= 0),
        *_noisy(floating),
    )


def _still(floating: Evaluation, found: Sequence[Evaluation]) -> list[str]:
    """Return the scores that no configuration moves, though it moves the outputs."""
    moved = [one for one in found if _changes(one)]
    return [
        name
        for name, value in floating.scores.items()
        if moved and all(one.scores.get(name) == value for one in moved)
    ]


def _changes(one: Evaluation) -> bool:
    if one.comparison is None:
        return False
    return any(output.chebyshev.max > 0 for output in one.comparison.outputs)


def _unmoved(name: str, floating: Evaluation, found: Sequence[Evaluation]) -> str:
    least = min(one.comparison.min_cosine for one in found if one.comparison is not None)
    configurations = (
        "every quantized configuration that was run" if len(found) > 1 else "the quantized model"
    )
    return (
        f"Score {name!r} is {floating.scores[name]:.6g} for float and for {configurations}, though "
        f"outputs change (least cosine {least:.6f}): it cannot tell them apart. Either it does not "
        "depend on the outputs, or its samples are too few or too easy."
    )


def _worthless(name: str, value: float) -> str:
    if value == 0:
        return f"Score {name!r} of the float model is 0: whatever is not below 0 keeps it."
    return (
        f"Score {name!r} of the float model is {value:.6g}, below 0: 99 % of it means a score that "
        "is lower by 1 % of its size."
    )


def _noisy(floating: Evaluation) -> list[str]:
    noisy = {name: value for name, value in floating.noise.items() if value > EXACT}
    if not noisy:
        return []
    listed = ", ".join(f"{name!r} by {100 * value:.2g} %" for name, value in noisy.items())
    return [
        f"The evaluator is not deterministic: two scores of the float model differ, {listed}. "
        "Differences of this size say nothing."
    ]
