"""Which values of an operand an operator's output still tells apart.

Beyond either end of such an interval a value is as good as the end itself: a sigmoid is 1 there, a
softmax 0. No step of a grid need be spent on what lies outside.

An output counts as unchanged if it moves by at most half an INT16 step: `HALF_STEP` of its largest
absolute value.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

HALF_STEP = 1.0 / 65534.0
"""Half a step of INT16 as a share of the largest absolute value of its grid (hmct-spec 2.1)."""

SINGLE = 2.0**-24
"""Half a step of float32 as a share of a number."""

INFINITE = 1e30
"""No network computes with numbers as large; what holds them stands for infinity."""


class Interval(NamedTuple):
    """Values that are told apart, in a tensor's unit."""

    low: float = -math.inf
    high: float = math.inf

    @property
    def limits(self) -> bool:
        """Whether either end is finite."""
        return self != ALL

    def hull(self, other: Interval) -> Interval:
        """Return the least interval that holds both."""
        return Interval(min(self.low, other.low), max(self.high, other.high))

    def within(self, other: Interval) -> Interval:
        """Return what lies in both; where nothing does, what lies between them."""
        ends = sorted((max(self.low, other.low), min(self.high, other.high)))
        return Interval(*ends)


ALL = Interval()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen:
    """What is known of a tensor, over all samples.

    Attributes:
      low: Least value.
      high: Largest value.
      level: Least sum of a row, see `Reach.rows`; NaN if not asked for.
      shape: Its shape.
      constant: It is the same for every sample.
    """

    low: float
    high: float
    level: float = math.nan
    shape: tuple[int, ...] = ()
    constant: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """A question about one operand of a node.

    Attributes:
      index: Which operand.
      output: What the readers of the output tell apart.
      operands: What is known of all operands; None where nothing is.
      result: What is known of output 0.
      attributes: Of the node, defaults included.
      tolerance: Largest change of the output that counts as none, as a share of its largest
        absolute value.
    """

    index: int
    output: Interval = ALL
    operands: Sequence[Seen | None] = ()
    result: Seen | None = None
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tolerance: float = HALF_STEP

    @property
    def own(self) -> Seen | None:
        """What is known of the operand itself."""
        return self.operands[self.index]

    @property
    def others(self) -> list[Seen | None]:
        """What is known of the other operands."""
        return [seen for i, seen in enumerate(self.operands) if i != self.index]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reach:
    """How to answer `Asked` for an operator.

    Attributes:
      interval: The answer.
      told: The same for a reader, in a few words.
      inputs: Operands that it is about; None means all. Of others everything is told apart.
      asks: Operands whose range the answer needs: ``own``, ``others``, ``result``, ``shapes``.
      rows: What is asked of the rows of the operand: ``mass`` (logarithm of the mean exponential)
        or ``maximum``; "" for nothing.
      axes: ``(attributes, rank) -> axes`` of a row.
      passes: It only hands on what its readers tell apart: where that is all, so is this.
    """

    interval: Callable[[Asked], Interval]
    told: str
    inputs: tuple[int, ...] | None = None
    asks: frozenset[str] = frozenset()
    rows: str = ""
    axes: Callable[[Mapping[str, Any], int], tuple[int, ...]] | None = None
    passes: bool = False

    def of(self, index: int) -> bool:
        """Tell whether an operand is one that this is about."""
        return self.inputs is None or index in self.inputs
