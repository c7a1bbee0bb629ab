"""Where a network leaves the integers that its target adds up in."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

BIAS = "bias"
SUM = "sum"
PARTS = "partial sums"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Excess:
    """One thing that is too large for its integers.

    Attributes:
      node: The matrix product.
      op: Operator type.
      what: `BIAS`; `SUM`, products and bias together; or `PARTS`, where the sum fits and the sum
        of the magnitudes of what it adds does not: whether something on the way leaves depends on
        the order.
      operands: Types of the operands, ``INT16 x INT8``.
      bits: Width that it does not fit.
      factor: Its largest magnitude as a multiple of ``2^(bits - 1)``.
      channels: Channels of a bias that do not fit; 0 otherwise.
      of: All its channels; 0 otherwise.
      bits_are: Where `bits` is from: ``doc: ...`` or ``assumed: ...``.
    """

    node: str
    op: str
    what: str
    operands: str
    bits: int
    factor: float
    channels: int = 0
    of: int = 0
    bits_are: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class IntegerRanges:
    """What a configuration does to the integers of its target.

    Attributes:
      found: What leaves them, in graph order: biases, which do not depend on samples, and sums of
        some sample.
      possible: Sums that stay inside on the samples and could leave on other inputs: the factor is
        what weights and bias allow at most.
      products: Matrix products that were looked at: those of two quantized operands.
      samples: Number of samples that sums were measured on; 0 if no sum could leave.
      strict: The forward that was measured keeps inside, as the target does.
      beyond: What the target makes of a sum that leaves: ``saturates`` or ``wraps``.
      beyond_is: Where that is from.
    """

    found: tuple[Excess, ...]
    possible: tuple[Excess, ...]
    products: int
    samples: int
    strict: bool
    beyond: str
    beyond_is: str

    @property
    def changes(self) -> bool:
        """Whether the target computes something else than an exact forward on these samples."""
        return not self.strict and any(one.what != PARTS for one in self.found)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person has to know of it, most important first; nothing if nothing can leave."""
        listed = [
            (what, [one for one in self.found if one.what == what]) for what in (BIAS, SUM, PARTS)
        ]
        notes = [self._note(what, excesses) for what, excesses in listed if excesses]
        if self.possible:
            worst = max(self.possible, key=lambda one: one.factor)
            count = len(self.possible)
            notes.append(
                f"No sum of {_count(count, 'other node')} leaves its integers on these samples; on "
                f"other inputs weights and bias allow up to {_times(worst)} the range "
                f"({worst.node}, {worst.operands})."
            )
        return tuple(notes)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**dataclasses.asdict(self), "notes": list(self.notes)}

    def _note(self, what: str, excesses: Sequence[Excess]) -> str:
        named = "; ".join(_named(one) for one in excesses[:_NAMED])
        if len(excesses) > _NAMED:
            named += f"; and {len(excesses) - _NAMED} more"
        many = len(excesses) > 1
        bits = sorted({one.bits for one in excesses})
        width = " or ".join(f"int{n}" for n in bits)
        sources = dict.fromkeys(_said(one.bits_are) for one in excesses)
        hangs = f"That it is {width} is {'; '.join(sources)}."
        if what == BIAS:
            wider = _up(max(one.factor for one in excesses))
            return (
                f"{_count(len(excesses), 'bias', 'biases')} {'do' if many else 'does'} not fit "
                f"{width}, in multiples of its range: {named}. "
                f"{self._measured('has the nearest that fits (assumed)')} "
                f"Thresholds of these weights {wider} times as large make "
                f"{'all of them' if many else 'it'} fit: a bias counts steps of features times "
                f"steps of weights. {hangs}"
            )
        if what == SUM:
            return (
                f"The sums of {_count(len(excesses), 'node')} leave {width} on these samples, in "
                f"multiples of its range: {named}. "
                f"{self._measured(f'{self.beyond} ({_said(self.beyond_is)})')} {hangs}"
            )
        return (
            f"The sums of {_count(len(excesses), 'node')} fit {width} on these samples; what they "
            f"add up may leave it on the way, by the order of adding: {named}. --strict_integers "
            f"looks at whole sums. {hangs}"
        )

    def _measured(self, does: str) -> str:
        if self.strict:
            return f"As the target, what is measured here {does}."
        return (
            f"The target {does}; what is measured here adds exactly, whatever the size: "
            "--strict_integers (strict_integers=True) does as the target."
        )


_NAMED = 6


def _named(one: Excess) -> str:
    channels = f", {one.channels} of {one.of} channels" if one.of > 1 else ""
    return f"{one.node} {_times(one)} ({one.operands}{channels})"


def _times(one: Excess) -> str:
    return f"{one.factor:.3g} times"


def _count(count: int, noun: str, plural: str = "") -> str:
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def _said(source: str) -> str:
    """Return where a fact is from, as part of a sentence."""
    return source if source.startswith("assumed") else f"published ({source})"


def _up(factor: float) -> str:
    """Return a number that is not below, in two digits."""
    unit = 10.0 ** (math.floor(math.log10(factor)) - 1)
    return f"{math.ceil(factor / unit) * unit:.2g}"
