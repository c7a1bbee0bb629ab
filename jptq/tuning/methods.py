"""Which calibration method a network gets, by what the goal bounds: the user's own score.

Errors of outputs choose first (`jptq.calibration.choice`). Where all-INT8 misses the goal the
methods in front are scored, and where all-INT16 misses it the others are, before any node is
raised, any operator added, or anything called impossible.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable

from jptq.calibration.choice import REPAIRED
from jptq.errors import NonFiniteScoreError
from jptq.numerics.qtypes import INT8, INT16
from jptq.results import Evaluation, MethodTrial
from jptq.tuning.deadline import OutOfTime, passed
from jptq.tuning.goal import Judge, told
from jptq.tuning.measure import Measurer
from jptq.tuning.prepare import Prepared, Progress, quiet

_logger = logging.getLogger(__name__)

FRONT = 2
"""Methods beside the one in front that all-INT8 is scored by."""

NEAR = 1.5
"""How often the least loss a method in front may lose at INT8."""

OTHERS = 4
"""Methods that all-INT16 is scored by, where it misses the goal."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settled:
    """The network by the method that was taken.

    Attributes:
      measurer: Runs it.
      methods: All that were compared, scored as far as they were run.
      note: What a reader has to know; empty if the errors' choice stands.
    """

    measurer: Measurer
    methods: tuple[MethodTrial, ...]
    note: str = ""


def settled(
    measurer: Measurer,
    judge: Judge,
    allowed: Callable[[Prepared], Prepared],
    *,
    deadline: float | None = None,
    progress: Progress = quiet,
) -> Settled:
    """Return the network by the calibration method that the score asks for.

    Args:
      measurer: Runs the network as the errors chose it.
      judge: Knows the goal.
      allowed: Gives a network the types that the search may use.
      deadline: `time.monotonic` value after which no further method is tried.
      progress: Called as work goes on.
    """
    methods = measurer.prepared.methods
    if len(methods) < 2 or not judge.goal.has_quality:
        return Settled(measurer=measurer, methods=methods)
    return _Trials(measurer, judge, allowed, deadline, progress).settled()


class _Trials:
    def __init__(
        self,
        measurer: Measurer,
        judge: Judge,
        allowed: Callable[[Prepared], Prepared],
        deadline: float | None,
        progress: Progress,
    ) -> None:
        self._judge = judge
        self._allowed = allowed
        self._deadline = deadline
        self._progress = progress
        self._rows = {one.method: one for one in measurer.prepared.methods}
        self._first = next(one.method for one in self._rows.values() if one.chosen)
        self._measurers = {self._first: measurer}

    def settled(self) -> Settled:
        first = self._first
        int8 = self._measured(first, INT8.name)
        if self._judge.meets(int8):
            return self._as(first)
        int16 = self._measured(first, INT16.name)
        try:
            if not self._judge.meets(int16):
                finer = self._finer(first, int16)
                if finer != first:
                    return self._as(finer, INT16.name)
            return self._as(self._coarser(first, int8, int16))
        except OutOfTime:
            return self._as(first)

    def _finer(self, best: str, int16: Evaluation) -> str:
        """Return the first method that all-INT16 meets the goal by, else the clearly best one."""
        coarse = self._measured(best, INT8.name)
        others = self._others(key=lambda one: one.int16)
        for number, other in enumerate(others[:OTHERS]):
            self._check(number, min(OTHERS, len(others)))
            found = self._measured(other.method, INT16.name)
            if self._judge.meets(found):
                self._measured(other.method, INT8.name)
                return other.method
            if self._judge.gains(found, int16) and not self._judge.gains(
                coarse, self._measured(other.method, INT8.name)
            ):
                best, int16 = other.method, found
        return best

    def _coarser(self, best: str, int8: Evaluation, int16: Evaluation) -> str:
        """Return the method in front by which all-INT8 scores clearly best.

        What it gives at INT8 must not be paid at INT16: raised nodes have to reach the goal.
        """
        first, top = self._rows[best], int8.quality
        front = [
            one
            for one in self._others(key=lambda one: one.int8)
            if one.int8 <= NEAR * first.int8 and one.int16 <= max(NEAR * first.int16, REPAIRED)
        ]
        for number, other in enumerate(front[:FRONT]):
            self._check(number, min(FRONT, len(front)))
            found = self._measured(other.method, INT8.name)
            if (
                self._judge.gains(found, int8)
                and found.quality > top
                and (self._judge.meets(found) or self._keeps(other.method, int16))
            ):
                best, top = other.method, found.quality
            if self._judge.meets(found):
                break
        return best

    def _keeps(self, method: str, int16: Evaluation) -> bool:
        """Tell whether all-INT16 by a method is no clearly worse than what is known."""
        found = self._measured(method, INT16.name)
        return self._judge.meets(found) or (
            not self._judge.meets(int16) and not self._judge.gains(int16, found)
        )

    def _others(self, key: Callable[[MethodTrial], float]) -> list[MethodTrial]:
        """Return the methods beside the first; those that lose the same are one method."""
        first = self._rows[self._first]
        different = {(one.int8, one.int16): one for one in reversed(self._rows.values())}
        different.pop((first.int8, first.int16), None)
        return sorted(different.values(), key=key)

    def _check(self, number: int, total: int) -> None:
        if passed(self._deadline):
            raise OutOfTime
        self._progress("score calibration methods", number, total)

    def _measured(self, method: str, qtype: str) -> Evaluation:
        """Run all-INT8 or all-INT16 by a method, and note its score."""
        measurer = self._measurers.get(method)
        if measurer is None:
            first = self._measurers[self._first]
            other = self._allowed(first.prepared.rivals[method]())
            measurer = self._measurers[method] = first.on(other)
        named = "" if method == self._first else f" by {method}"
        names = {INT8.name: "all-INT8", INT16.name: "all-INT16"}
        try:
            found = measurer(f"{names[qtype]}{named}", measurer.prepared.all(qtype))
        except NonFiniteScoreError as error:
            if method == self._first:
                raise
            _logger.warning("calibrated by %s: %s", method, error.what)
            found = Evaluation(name="", shares={"": -math.inf})
        row, quality = self._rows[method], found.quality
        self._rows[method] = (
            dataclasses.replace(row, int8_quality=quality)
            if qtype == INT8.name
            else dataclasses.replace(row, int16_quality=quality)
        )
        return found

    def _as(self, best: str, qtype: str = INT8.name) -> Settled:
        note = ""
        if best != self._first:
            rows = self._rows
            ran = {name: self._measured(name, qtype) for name in (self._first, best)}
            words = {name: told(found) for name, found in ran.items()}
            note = (
                f"Calibrated by {best}: all-{qtype.upper()} gives {words[best]} (measured); by "
                f"{self._first}, in front by the errors of the outputs, {words[self._first]}."
            )
            self._rows[self._first] = dataclasses.replace(
                rows[self._first], chosen=False, why="in front by its errors, not by the score"
            )
            self._rows[best] = dataclasses.replace(
                rows[best], chosen=True, why=f"the score as {qtype.upper()}"
            )
        return Settled(
            measurer=self._measurers[best], methods=tuple(self._rows.values()), note=note
        )
