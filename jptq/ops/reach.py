"""How each kind of operator answers which values of an operand it still tells apart.

The questions and what an answer means: `jptq.ops.intervals`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jptq.ops.intervals import ALL, Asked, Interval, Reach

_FAR = 1e30
"""Stands for infinity where a function is evaluated."""

_HALVINGS = 200
"""Of an interval as wide as `_FAR` down to neighbouring float64 numbers near 1."""

_APART = 1.0 / 64.0
"""Two INT8 steps: two numbers this share apart stay in order on a grid that ends at the larger."""

Bound = float | Callable[[Mapping[str, Any]], float | None] | None
"""Where a tail ends: a number, one that attributes decide on, or None where there is no tail."""


def saturates(
    function: Callable[..., float], *, left: Bound = None, right: Bound = None, told: str = ""
) -> Reach:
    """Return the reach of a function of one operand that levels off.

    Args:
      function: ``function(x, **attributes)`` in float64, for x up to 1e30 on sides that level off.
      left: It is monotone up to here and levels off towards minus infinity.
      right: It is monotone from here on and levels off towards infinity.
      told: See `Reach`.
    """

    def interval(asked: Asked) -> Interval:
        seen = asked.own
        if seen is None or math.isnan(seen.low) or math.isnan(seen.high):
            return ALL

        def at(x: float) -> float:
            try:
                return function(min(max(x, -_FAR), _FAR), **asked.attributes)
            except OverflowError:
                return math.inf

        size = max(abs(at(seen.low)), abs(at(seen.high)))
        if not 0 < size < math.inf:
            return ALL
        ends = [_given(bound, asked.attributes) for bound in (left, right)]
        low = _tail(at, -_FAR, ends[0], asked.tolerance * size)
        high = _tail(at, _FAR, ends[1], asked.tolerance * size)
        low, high = -math.inf if low is None else low, math.inf if high is None else high
        return Interval(low, high) if low < high else ALL  # else it is constant

    return Reach(interval=interval, told=told, inputs=(0,), asks=frozenset({"own"}))


def _given(bound: Bound, attributes: Mapping[str, Any]) -> float | None:
    return bound(attributes) if callable(bound) else bound


def _tail(at: Callable[[float], float], far: float, end: float | None, most: float) -> float | None:
    """Return how near to `end` a function still has its value at `far`, but for `most`."""
    if end is None or not abs(at(far) - at(far / 2)) <= most:
        return None
    end = min(max(end, -_FAR), _FAR)
    if abs(at(end) - at(far)) <= most:
        return end
    flat, other = far, end
    for _ in range(_HALVINGS):
        middle = (flat + other) / 2
        if abs(at(middle) - at(far)) <= most:
            flat = middle
        else:
            other = middle
    return flat


def clips(bounds: Callable[[Asked], Interval], told: str) -> Reach:
    """Return the reach of an operator that cuts values off and hands on the others."""

    def interval(asked: Asked) -> Interval:
        return bounds(asked).within(asked.output)

    return Reach(interval=interval, told=told, inputs=(0,), asks=frozenset({"others"}))


def _sum(asked: Asked, signs: Sequence[int] | None = None) -> Interval:
    """Answer for ``sum(sign * operand)``.

    A value that keeps the sum beyond an end, whatever the others are, is as good as any beyond it.
    """
    signs = signs or [1] * len(asked.operands)
    low, high = asked.output
    for i, seen in enumerate(asked.operands):
        if i == asked.index:
            continue
        if seen is None:
            return ALL
        # A row whose maximum is a mask itself decides nothing (`Seen.level`).
        least = seen.low if math.isnan(seen.level) else seen.level
        ends = (least, seen.high) if signs[i] > 0 else (-seen.high, -least)
        low, high = low - ends[1], high - ends[0]
    low, high = -math.inf if math.isnan(low) else low, math.inf if math.isnan(high) else high
    return Interval(low, high) if signs[asked.index] > 0 else Interval(-high, -low)


def _product(asked: Asked, *, divides: bool = False) -> Interval:
    """Answer for an operand that constants of one sign multiply or divide."""
    low, high = asked.output
    factors = (1.0, 1.0)
    for seen in asked.others:
        if seen is None or not seen.constant or not (seen.low > 0 or seen.high < 0):
            return ALL
        factors = (factors[0] * seen.low, factors[1] * seen.high)
    if not all(0 < abs(factor) < math.inf for factor in factors):
        return ALL
    if not divides:
        factors = (1 / factors[0], 1 / factors[1])
    if factors[0] < 0:
        low, high = high, low
    ends = [end * factor for end in (low, high) for factor in factors]
    return Interval(min(ends[:2]), max(ends[2:]))


def _quotient(asked: Asked) -> Interval:
    return _product(asked, divides=True) if asked.index == 0 else ALL


def _greatest(asked: Asked) -> Interval:
    """Answer for the largest of several values: what is below the least of them is never it."""
    others = [seen.low for seen in asked.others if seen is not None]
    return Interval(max(others, default=-math.inf)).within(asked.output)


def _least(asked: Asked) -> Interval:
    others = [seen.high for seen in asked.others if seen is not None]
    return Interval(high=min(others, default=math.inf)).within(asked.output)


def _from_result(asked: Asked) -> Interval:
    """Answer for the largest of some elements: what is below all results is never one."""
    if asked.result is None:
        return asked.output
    seen = asked.result
    least = seen.low if math.isnan(seen.level) else seen.level
    below = Interval(_below(least))
    return below.within(asked.output)


def _up_to_result(asked: Asked) -> Interval:
    if asked.result is None:
        return asked.output
    return Interval(high=-_below(-asked.result.high)).within(asked.output)


def _below(value: float) -> float:
    """Return a number that is less than another one on an INT8 grid too."""
    return value - abs(value) * _APART if math.isfinite(value) else -math.inf


def _ranked(asked: Asked) -> Interval:
    """Answer for the place of a row's largest element."""
    return ALL if asked.own is None else Interval(_below(_known(asked.own.level)))


def _softmax(asked: Asked) -> Interval:
    """Answer for exponentials over their sum.

    Of n elements those at ``level + ln(tolerance)`` have together at most ``tolerance`` of the
    sum: of the largest quotient, too, none moves by more than that.
    """
    if asked.own is None:
        return ALL
    return Interval(_known(asked.own.level) + math.log(asked.tolerance))


def _known(level: float) -> float:
    return -math.inf if math.isnan(level) else level


def _compared(asked: Asked) -> Interval:
    """Answer for a comparison with constants: only what is near to one of them matters."""
    (other,) = asked.others
    if other is None or not other.constant:
        return ALL
    margin = _APART * max(abs(other.low), abs(other.high))
    ends = Interval(other.low - margin, other.high + margin)
    return ends if margin > 0 and math.isfinite(margin) else ALL


def along(default: int = -1) -> Callable[[Mapping[str, Any], int], tuple[int, ...]]:
    """Return the rows that the attribute ``axis`` names."""

    def axes(attributes: Mapping[str, Any], rank: int) -> tuple[int, ...]:
        axis = attributes.get("axis")
        return (int(default if axis is None else axis) % max(rank, 1),)

    return axes


def trailing(attributes: Mapping[str, Any], rank: int) -> tuple[int, ...]:
    """Return the rows of opset 12: all axes from ``axis`` on."""
    axis = int(attributes["axis"])
    return tuple(range(axis % rank if axis < 0 else axis, rank))


def softmax(axes: Callable[[Mapping[str, Any], int], tuple[int, ...]]) -> Reach:
    """Return the reach of a softmax over some axes."""
    told = "from 11.1 below the logarithm of the row's mean exponential"
    return Reach(interval=_softmax, told=told, inputs=(0,), rows="mass", axes=axes)


def ranked(axes: Callable[[Mapping[str, Any], int], tuple[int, ...]]) -> Reach:
    """Return the reach of what looks for the largest element of a row."""
    return Reach(
        interval=_ranked, told="from the least row maximum", inputs=(0,), rows="maximum", axes=axes
    )


def sampled(taps: Mapping[str, int]) -> Reach:
    """Return the reach of the grid of GridSample: beyond it an image is all zero, or all border.

    A grid has one scale: that of the axis on which most positions are told apart.

    Args:
      taps: Positions that are read per axis, by ``mode``.
    """

    def interval(asked: Asked) -> Interval:
        image, padding = asked.operands[0], asked.attributes["padding_mode"]
        if image is None or padding not in ("zeros", "border"):
            return ALL
        far = taps[asked.attributes["mode"]] / 2
        outside = max(far, 1.0) if padding == "zeros" else max(far - 1.0, 0.0)
        ends = []
        for length in image.shape[2:]:
            if asked.attributes["align_corners"]:
                ends.append(1 + 2 * outside / (length - 1) if length > 1 else 1.0)
            else:
                ends.append(1 + (2 * outside - 1) / length)
        return Interval(-max(ends), max(ends))

    told = "of the grid: what is inside the image"
    return Reach(interval=interval, told=told, inputs=(1,), asks=frozenset({"shapes"}))


MOVES = Reach(interval=lambda asked: asked.output, told="as the readers", inputs=(0,), passes=True)
"""Values pass as they are."""

CHOOSES = dataclasses.replace(MOVES, inputs=(1, 2))
"""Where: the branches pass."""

JOINS = dataclasses.replace(MOVES, inputs=None)
"""All operands pass."""

ADDS = Reach(
    interval=_sum,
    told="as the readers, less the others",
    asks=frozenset({"others"}),
    passes=True,
)
SUBTRACTS = dataclasses.replace(
    ADDS, interval=lambda asked: _sum(asked, (1, -1)), told="as the readers, less the other"
)
MULTIPLIES = Reach(
    interval=_product,
    told="as the readers, over a constant",
    asks=frozenset({"others"}),
    passes=True,
)
DIVIDES = dataclasses.replace(
    MULTIPLIES, interval=_quotient, told="as the readers, times a constant"
)
NEGATES = dataclasses.replace(
    MOVES,
    interval=lambda asked: Interval(-asked.output.high, -asked.output.low),
    told="as the readers, negated",
)
GREATEST = Reach(
    interval=_greatest,
    told="from the largest least value of the others",
    asks=frozenset({"others"}),
)
LEAST = Reach(
    interval=_least, told="to the least largest value of the others", asks=frozenset({"others"})
)
LARGEST = Reach(
    interval=_from_result,
    told="from the least result",
    inputs=(0,),
    asks=frozenset({"result"}),
)
"""Each result is the largest of some elements."""

SMALLEST = Reach(
    interval=_up_to_result,
    told="to the largest result",
    inputs=(0,),
    asks=frozenset({"result"}),
)
COMPARES = Reach(interval=_compared, told="near the constant", asks=frozenset({"others"}))
