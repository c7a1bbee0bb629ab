"""What a tuning has to reach, and how far a measured model is from it."""

from __future__ import annotations

import dataclasses

from jptq.results import Evaluation, Goal

ROUNDING = 1e-9
"""Relative: sums of node times are exact to a few units in the last place."""


GAIN = 0.25
"""Share of what misses the goal that something has to give back to be taken: less is chance."""

_SHOWS = 0.9
"""Below this a cosine shows by itself that something is wrong."""


def told(evaluation: Evaluation) -> str:
    """Write what a goal bounds: a number, or in words what is lost where a cosine hides that."""
    found = evaluation.comparison
    if evaluation.shares or found is None:
        return f"{evaluation.quality:.5f}"
    worst = min(found.outputs, key=lambda one: one.quality)
    if worst.broken:
        return f"{worst.broken_share:.2%} of {worst.output!r} not finite"
    if worst.equal is not None:
        return f"{worst.equal:.2%} of {worst.output!r} equal"
    if worst.lost and worst.cosine.mean >= _SHOWS:
        count = sum(len(one.channels) for one in worst.lost)
        return f"{count} channel{'s' if count > 1 else ''} of {worst.output!r} lost"
    return f"{found.min_cosine:.5f}"


@dataclasses.dataclass(frozen=True)
class Judge:
    """Compares measured models with a goal."""

    goal: Goal

    def meets(self, evaluation: Evaluation) -> bool:
        """Tell whether the quality asked for is reached; latency is not looked at."""
        if self.goal.min_score is not None and evaluation.shares:
            return evaluation.quality >= self.goal.min_score
        if self.goal.min_cosine is not None and evaluation.comparison is not None:
            return evaluation.comparison.quality >= self.goal.min_cosine
        return True

    def affords(self, evaluation: Evaluation) -> bool:
        """Tell whether the latency budget, if any, is kept."""
        return self.affords_us(evaluation.time_us or 0.0)

    def affords_us(self, time_us: float) -> bool:
        """Tell whether the latency budget, if any, has room for a time."""
        budget = self.goal.budget_us
        return budget is None or time_us <= budget * (1 + ROUNDING)

    def gains(self, one: Evaluation, other: Evaluation) -> bool:
        """Tell whether one is clearly nearer to the goal: it gives back `GAIN` of what misses."""
        goal = self.goal
        asked = goal.min_score if one.shares and goal.min_score is not None else goal.min_cosine
        missing = (1.0 if asked is None else asked) - other.quality
        return one.quality - other.quality > GAIN * max(missing, 0.0)

    def better(self, one: Evaluation, other: Evaluation | None) -> bool:
        """Tell whether ``one`` is the better end, by the goal's own order."""
        return other is None or self._order(one) > self._order(other)

    def expense(self, evaluation: Evaluation) -> tuple[float, ...]:
        """Return what is kept small among models that meet the goal: time, then INT16 work."""
        # Equal sums of node times may differ in the last place.
        return (round(evaluation.time_us or 0.0, 6), evaluation.macs_int16, evaluation.raised)

    def _order(self, evaluation: Evaluation) -> tuple[float, ...]:
        cheap = tuple(-value for value in self.expense(evaluation))
        quality = evaluation.quality
        if not self.affords(evaluation):
            return (0.0, *cheap, quality)
        if self.goal.has_quality and self.meets(evaluation):
            return (2.0, *cheap, quality)
        return (1.0, quality, *cheap)
