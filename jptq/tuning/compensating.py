"""Where all-INT16 misses the goal: the network again, with ec on the operands that lose it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from jptq.numerics.qtypes import INT8, INT16
from jptq.quant.assign import true_int16
from jptq.quant.config import EC, Config
from jptq.tuning.corners import Corners, corners, duals
from jptq.tuning.deadline import OutOfTime, bounded
from jptq.tuning.goal import Judge
from jptq.tuning.measure import Measurer
from jptq.tuning.options import AUTO, Options
from jptq.tuning.prepare import Prepared, Progress, quiet
from jptq.tuning.repair import repair

Again = Callable[[Config], Prepared]
"""Prepares the same network by another configuration."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compensated:
    """A network with ec on some operands.

    Attributes:
      measurer: Runs it; it has second operators.
      operands: ``{node: input}``, the worst first.
      before: What the network was without.
    """

    measurer: Measurer
    operands: Mapping[str, int]
    before: Corners


def compensated(
    measurer: Measurer,
    judge: Judge,
    options: Options,
    again: Again,
    *,
    deadline: float | None = None,
    progress: Progress = quiet,
) -> Compensated | None:
    """Return the network with ec where that alone reaches the goal as all-INT16.

    The operands are found by the vendor's trial (`repair`), then built for real; while the real
    network misses the goal, twice as many are taken.

    Args:
      measurer: Runs the network as it is.
      judge: Knows the goal.
      options: Whether ec may be used.
      again: Prepares the network by a configuration with ec.
      deadline: `time.monotonic` value after which no new run starts.
      progress: Called as work goes on.

    Returns:
      None if there is no need, if it is not wanted, if it does not help, if the budget has no room
      for it, or if time is up.
    """
    if not judge.goal.has_quality or options.leftovers not in (AUTO, EC):
        return None
    prepared, budget_us = measurer.prepared, judge.goal.budget_us
    int8_us = prepared.latency.total_us(prepared.all(INT8.name))
    if budget_us is not None and budget_us < int8_us:
        return None  # second operators only add time
    int8 = measurer("all-INT8", prepared.all(INT8.name))
    int16 = None if judge.meets(int8) else measurer("all-INT16", prepared.all(INT16.name))
    if int16 is None or judge.meets(int16):
        return None
    dual = None
    if options.leftovers == AUTO:
        dual = measurer("all dual-INT16", duals(prepared))
        if judge.meets(dual):
            return None
    ceiling = measurer("every quantizer INT16", true_int16(prepared.plan))
    if not judge.meets(ceiling):
        return None
    try:
        measurer.deadline = deadline
        limited = bounded(progress, deadline)
        found = repair(measurer, judge, samples=options.samples, progress=limited)
        chosen = dict(found.operands) if found.met else {}
        while chosen:
            measurer.check_time()
            progress(f"build with ec on {len(chosen)} operands", 0, 0)
            other = options.allowed(again(prepared.config.compensating(chosen)))
            other = dataclasses.replace(other, remarks=prepared.remarks)
            inside = measurer.on(other)
            if judge.meets(inside("all-INT16 with ec", other.all(INT16.name))):
                before = dataclasses.replace(corners(measurer), dual=dual)
                return Compensated(measurer=inside, operands=chosen, before=before)
            chosen = _more(chosen, found.ranked)
    except OutOfTime:
        pass
    return None


def _more(chosen: Mapping[str, int], ranked: Mapping[str, int]) -> dict[str, int]:
    """Return twice as many operands, the worst of the others added; none if there are no others."""
    others = [one for one in ranked.items() if one[0] not in chosen]
    return {**chosen, **dict(others[: max(1, len(chosen))])} if others else {}
