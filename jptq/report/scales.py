"""What an axis shows and where its ticks stand."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

SMALLEST_SHARES = 0.0005
"""Least height of an axis of shares: what is nearer together counts as equal."""

SMALLEST_DECADES = 0.15
"""Least height of an axis of errors, in decades."""

_MANTISSAS = (
    (1.0,),
    (1.0, 2.0, 5.0),
    (1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0),
    (*(1.0 + 0.1 * i for i in range(20)), *(3.0 + 0.2 * i for i in range(35))),
)
"""Where ticks may stand in a decade: the first row that gives three of them is taken."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Span:
    """A piece of an axis.

    Attributes:
      low: Its lower end.
      high: Its upper end.
    """

    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Tell whether a value lies on it."""
        return self.low <= value <= self.high

    def place(self, value: float) -> str:
        """Return where a value lies: "", ``below`` or ``above``."""
        return "" if self.holds(value) else "below" if value < self.low else "above"


def reaching(points: Sequence[float], lines: Sequence[float], *, room: float) -> Span:
    """Return the piece of an axis that shows points, and lines that are not far from them.

    Args:
      points: At least one.
      lines: Values to show if they are no farther away than ``room``: one that is would press the
        points together.
      room: Distance that is not far.
    """
    low, high = min(points), max(points)
    near = [line for line in lines if low - room <= line <= high + room]
    return Span(low=min(low, *near) if near else low, high=max(high, *near) if near else high)


def widened(span: Span, *, least: float, margin: float) -> Span:
    """Return a span of a least height, with a share of it added at both ends."""
    missing = max(0.0, least - (span.high - span.low)) / 2
    low, high = span.low - missing, span.high + missing
    return Span(low=low - margin * (high - low), high=high + margin * (high - low))


def error_ticks(span: Span) -> tuple[float, ...]:
    """Return where ticks stand on a logarithmic axis: round numbers, three and more.

    Args:
      span: Of the errors themselves.
    """
    decades = range(math.floor(math.log10(span.low)), math.ceil(math.log10(span.high)) + 1)
    found: tuple[float, ...] = ()
    for mantissas in _MANTISSAS:
        found = tuple(
            value
            for decade in decades
            for mantissa in mantissas
            if span.holds(value := float(f"{mantissa:g}e{decade}"))
        )
        if len(found) >= 3:
            break
    return found


def as_cosine(error: float, _: int | None = None) -> str:
    """Write ``1 - cosine`` as the cosine: 0.9, 0.988, 0.99999999."""
    text = f"{1.0 - error:.10f}".rstrip("0").rstrip(".")
    return "0" if text in ("", "-0") else text
