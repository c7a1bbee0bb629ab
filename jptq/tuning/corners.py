"""The ends between which a tuning looks: all-INT8, all-INT16, and what INT16 could be."""

from __future__ import annotations

import dataclasses

from jptq.numerics.qtypes import INT8, INT16
from jptq.quant.assign import Assignment, true_int16
from jptq.quant.plan import FEATURE, WEIGHT
from jptq.results import Evaluation
from jptq.tuning.measure import Measurer
from jptq.tuning.prepare import Prepared, Progress, quiet


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corners:
    """What a network can be as it stands, measured.

    Attributes:
      int8: All-INT8.
      int16: All-INT16 as the target allows it.
      dual: All-INT16 with second operands as ``dual-int16``, if that was run.
      ceiling: Every quantizer INT16, a simulation.
      left: Weights and features that all-INT16 leaves INT8.
    """

    int8: Evaluation
    int16: Evaluation
    dual: Evaluation | None = None
    ceiling: Evaluation
    left: tuple[int, int]

    @property
    def steps(self) -> tuple[Evaluation, ...]:
        """Those that a device can run, in the order in which they were run."""
        return tuple(filter(None, (self.int8, self.int16, self.dual)))


def corners(measurer: Measurer, *, progress: Progress = quiet) -> Corners:
    """Measure the ends of a network, the float model first; what is known is not run again.

    Args:
      measurer: Runs it.
      progress: Called as work goes on.

    Raises:
      OutOfTime: The deadline of the measurer has passed, and something has not been run yet.
    """
    prepared = measurer.prepared
    ends = {
        "all-INT8": prepared.all(INT8.name),
        "all-INT16": prepared.all(INT16.name),
        "every quantizer INT16": true_int16(prepared.plan),
    }
    steps = 1 + len(ends)
    progress("measure", 0, steps)
    measurer.floating()
    found = []
    for number, (name, assignment) in enumerate(ends.items(), 1):
        progress("measure", number, steps)
        found.append(measurer(name, assignment))
    progress("measure", steps, steps)
    int8, int16, ceiling = found
    return Corners(int8=int8, int16=int16, ceiling=ceiling, left=left_int8(prepared))


def left_int8(prepared: Prepared) -> tuple[int, int]:
    """Return how many weights and features all-INT16 leaves INT8."""
    kept = prepared.all(INT16.name)
    left = [one.kind for one in prepared.plan.calibrations if kept[one.name] == INT8.name]
    return left.count(WEIGHT), left.count(FEATURE)


def duals(prepared: Prepared) -> Assignment:
    """Return all-INT16 with every second operand INT16 that the target allows as dual-int16."""
    out = prepared.all(INT16.name)
    for one in prepared.plan.calibrations:
        if one.dual and one.pinned is None:
            out[one.name] = INT16.name
    return out
