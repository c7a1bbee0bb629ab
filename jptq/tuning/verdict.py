"""What a tuning says about its goal: one verdict, whatever was reached by which means."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from jptq.results import Outcome
from jptq.results.problem import ProblemType

_NAMED = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ending:
    """All that a verdict depends on.

    Attributes:
      outcome: How the tuning ended.
      quality: A quality is asked for, not only a budget.
      budget: A latency is.
      int8: All-INT8 keeps the quality.
      int16: All-INT16 does.
      ceiling: Every quantizer INT16, a simulation, does.
      final: What was chosen does.
      raised: Number of nodes above INT8 in it.
      duals: Its nodes with ``dual-int16``.
      dual_fails: All-INT16 with ``dual-int16`` was run and misses the quality.
      ec: Operands with ``ec``: with it, all-INT16 was seen to keep the quality.
      beyond_us: Latency of what keeps the quality with ``ec``, if `final` is without.
      kind: Problem type as far as the steps of the search tell it.
      int16_reached: Of all-INT16, as `goal.told` writes it.
      ceiling_reached: Of the simulation.
      left: Weights and features that all-INT16 leaves INT8.
    """

    outcome: Outcome
    quality: bool
    budget: bool
    int8: bool
    int16: bool
    ceiling: bool
    final: bool
    raised: int
    duals: Sequence[str] = ()
    dual_fails: bool = False
    ec: Sequence[str] = ()
    beyond_us: float | None = None
    kind: ProblemType | None = None
    int16_reached: str = ""
    ceiling_reached: str = ""
    left: tuple[int, int] = (0, 0)

    @property
    def met(self) -> bool:
        """Tell whether the whole goal was reached."""
        return self.outcome is Outcome.MET


def verdict(ending: Ending) -> tuple[str, ...]:
    """Say how the corners stand to the goal, what closes the gap, and the problem type.

    No sentence contradicts another one, or `Outcome.verdict`.
    """
    if not ending.quality:
        return ()
    if ending.int8:
        return (_int8_keeps(ending),)
    goal = "the quality asked for" if ending.budget else "the goal"
    kind = () if ending.kind is None else (ending.kind.sentence(goal),)
    if ending.int16:
        return kind
    weights, features = ending.left
    misses = (
        f"All-INT16 does not meet {goal} ({ending.int16_reached}). What it leaves "
        f"INT8: {_count(weights, 'weight')} and {_count(features, 'feature')} that the target "
        f"keeps so. With every quantizer INT16, a simulation, it is {ending.ceiling_reached}."
    )
    if ending.final and not ending.ec and not ending.duals:
        # A mix that keeps what all-INT16 does not: then INT16 is not what fails.
        return misses, _mix_keeps(ending)
    return misses, _closing(ending), *kind


def _int8_keeps(ending: Ending) -> str:
    if not ending.met:
        return "All-INT8 keeps the quality asked for: it is the budget that is missed."
    if ending.raised:
        return "All-INT8 keeps the quality asked for too: what is raised takes less time here."
    return "All-INT8 meets the goal: nothing has to be raised."


def _mix_keeps(ending: Ending) -> str:
    kept = "it all the same" if ending.met else "it, but takes more time than the budget"
    return (
        f"This mix of INT8 and INT16 meets {kept}: so near the goal, more INT16 is not always "
        "better. Check the result on samples that the search has not seen."
    )


def _closing(ending: Ending) -> str:
    """Say what closes the gap between all-INT16 and the quality, or that nothing does."""
    over = "" if ending.met else ", at more time than the budget"
    if ending.ec:
        tried = "dual-int16 does not. " if ending.dual_fails else ""
        verb = "closes" if ending.final else "would close"
        return (
            f"{tried}ec {verb} the gap, a second operator each, on "
            f"{_count(len(ending.ec), 'operand')}{over}: {_few(ending.ec)}."
        )
    if ending.final:
        nodes = _count(len(ending.duals), "node")
        return f"dual-int16 on {nodes} closes the gap{over}: {_few(ending.duals)}."
    if ending.beyond_us is not None:
        return f"ec would close the gap, at {ending.beyond_us:.1f} us: more than the budget."
    if not ending.ceiling:
        return (
            "Compensation does not close the gap: thresholds lose it. Try another calibration "
            "method, or float32 for what the ranking names."
        )
    return "No configuration that was run closes the gap."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
