"""Where thresholds stop short of the largest values, and where they are far above most of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limit:
    """A quantizer whose threshold stops where no reader tells values apart any more.

    Attributes:
      calibration: Its name.
      tensor: What it sits on.
      low: Values below are as good as this one; -inf where all are told apart.
      high: The same of values above.
      least: Least value of the samples.
      largest: Largest value of the samples.
      by: The nodes that tell no more apart, with their operators, in graph order.
      masked: Rows that a mask fills as a whole were left out.
    """

    calibration: str
    tensor: str
    low: float
    high: float
    least: float
    largest: float
    by: tuple[tuple[str, str], ...]
    masked: bool = False

    @property
    def before(self) -> float:
        """Return the largest absolute value."""
        return max(abs(self.least), abs(self.largest))

    @property
    def cuts(self) -> bool:
        """Tell whether there are values beyond either end."""
        return self.least < self.low or self.largest > self.high

    @property
    def after(self) -> float:
        """Return the largest absolute value that is told apart."""
        return max(abs(max(self.least, self.low)), abs(min(self.largest, self.high)))

    @property
    def sentence(self) -> str:
        """Say it."""
        return (
            f"{self.calibration}: values reach from {self.least:.4g} to {self.largest:.4g}, but "
            f"{listed(self.by)} {_tells(self.by)} apart only {_span(self)}: the threshold stops "
            "there."
        )

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads; infinite ends are None."""
        ends = {name: _finite(getattr(self, name)) for name in ("low", "high", "least", "largest")}
        return {**dataclasses.asdict(self), **ends, "by": [list(one) for one in self.by]}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Limit:
        """Return a limit from what `to_json` returned."""
        signs = {"low": -1, "high": 1, "least": -1, "largest": 1}
        ends = {n: _parsed(content[n], sign) for n, sign in signs.items()}
        by = tuple((str(node), str(op)) for node, op in content["by"])
        return cls(
            calibration=content["calibration"],
            tensor=content["tensor"],
            by=by,
            masked=bool(content["masked"]),
            **ends,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outlying:
    """A quantizer whose threshold is far above nearly all values.

    Attributes:
      calibration: Its name.
      tensor: What it sits on.
      threshold: Largest absolute value of its grid.
      usual: What 99.9 % of the absolute values do not exceed, exact zeros left out.
      by: The nodes that read it, with their operators, in graph order.
    """

    calibration: str
    tensor: str
    threshold: float
    usual: float
    by: tuple[tuple[str, str], ...]

    @property
    def steps(self) -> float:
        """Return how many steps of INT8 lie between zero and the usual values' end."""
        return 127 * self.usual / self.threshold

    @property
    def sentence(self) -> str:
        """Say it."""
        return (
            f"{self.calibration}: the threshold, {self.threshold:.4g}, is "
            f"{self.threshold / self.usual:.0f} times what 99.9 % of its values do not exceed "
            f"({self.usual:.2g}): INT8 has {self.steps:.1f} steps for them. "
            f"{listed(self.by)} {_reads(self.by)} the larger ones."
        )

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {**dataclasses.asdict(self), "by": [list(one) for one in self.by]}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Outlying:
        """Return a finding from what `to_json` returned."""
        by = tuple((str(node), str(op)) for node, op in content["by"])
        return cls(**{**content, "by": by})


def reach_notes(limits: Sequence[Limit], outlying: Sequence[Outlying]) -> tuple[str, ...]:
    """Return sentences about a calibration, at most a few of either kind."""
    said = []
    if limits:
        lowest = max(limits, key=lambda one: one.before / max(one.after, _LEAST))
        more = len(limits) - 1
        said.append(
            f"{len(limits)} threshold{'s stop' if more else ' stops'} where the network tells no "
            f"larger values apart. {'The most: ' if more else ''}{lowest.sentence}"
        )
    if any(one.masked for one in limits):
        said.append(
            "Rows that a mask fills as a whole were left out: a softmax spreads over them evenly, "
            "whatever the float network does there."
        )
    said += [one.sentence for one in outlying[:_MOST]]
    if len(outlying) > _MOST:
        said.append(f"{len(outlying) - _MOST} more thresholds are as far above their values.")
    return tuple(said)


_LEAST = 1e-30

_MOST = 3
"""Names in a sentence."""


def listed(nodes: Sequence[tuple[str, str]]) -> str:
    """Name some nodes."""
    named = ", ".join(f"{node!r} ({op})" for node, op in nodes[:_MOST])
    return named + (f" and {len(nodes) - _MOST} more" if len(nodes) > _MOST else "")


def _tells(nodes: Sequence[tuple[str, str]]) -> str:
    return "tells" if len(nodes) == 1 else "tell"


def _reads(nodes: Sequence[tuple[str, str]]) -> str:
    return "reads" if len(nodes) == 1 else "read"


def _span(one: Limit) -> str:
    ends = [
        f"from {one.low:.4g}" if one.low > -float("inf") else "",
        f"up to {one.high:.4g}" if one.high < float("inf") else "",
    ]
    return " ".join(filter(None, ends))


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None


def _parsed(value: float | None, sign: int) -> float:
    return sign * float("inf") if value is None else float(value)
