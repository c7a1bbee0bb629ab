"""What a plain calibration of the prepared float network gives, beside what was calibrated."""

from __future__ import annotations

import dataclasses
from typing import Any

_NAMED = 3

PREPARED_FILE = "prepared_float_model.onnx"
"""The float network with equivalents only: what another tool calibrates to the same integers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moved:
    """A feature whose threshold a calibration of the prepared network finds elsewhere.

    Attributes:
      name: Quantizer.
      change: Largest relative change of its thresholds; 1 if their number is another one.
    """

    name: str
    change: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recalibration:
    """`PREPARED_FILE`, read back and calibrated without a fit, beside the calibrated network.

    Attributes:
      changed: Constants that are others than in the network that was given.
      weights: Quantizers of constants.
      elements: Integers of all these constants, under the final types.
      same_elements: Those that are the same.
      scales: Scales of all these constants.
      same_scales: Those that are the same to the last bit.
      constants: Constants of numbers without a quantizer: biases among them.
      same_constants: Those that are the same to the last bit.
      wrong: What differs of the above: ``{constant or quantizer: what, in words}``.
      method: Tag of the calibration method.
      features: Quantizers of features whose thresholds were found anew; 0 if `unasked`.
      moved: Those whose thresholds differ, the largest change first.
      stopped: Those of which they differ because they stop where no reader tells larger values
        apart (`reach`), which a plain calibration does not know.
      unasked: Why thresholds of features were not found anew, in words.
    """

    changed: int
    weights: int
    elements: int
    same_elements: int
    scales: int
    same_scales: int
    constants: int
    same_constants: int
    wrong: dict[str, str] = dataclasses.field(default_factory=dict)
    method: str = ""
    features: int = 0
    moved: tuple[Moved, ...] = ()
    stopped: tuple[Moved, ...] = ()
    unasked: str = ""

    @property
    def holds(self) -> bool:
        """Tell whether every integer, scale and constant is the same."""
        return not self.wrong

    @property
    def sentence(self) -> str:
        """What a person has to know: one line, and what differs if anything does."""
        if self.holds:
            said = (
                f"{PREPARED_FILE}, calibrated again without a fit: all {self.elements:,} integers "
                f"and {self.scales:,} scales of {self.weights} weights and all {self.constants} "
                "biases and other constants are the same."
            )
        else:
            first = [f"{name} ({what})" for name, what in list(self.wrong.items())[:_NAMED]]
            more = len(self.wrong) - len(first)
            said = (
                f"{PREPARED_FILE}, calibrated again without a fit, does not give the same "
                f"network: {', '.join(first)}{f' and {more} more' if more else ''}; "
                f"{self.same_elements:,} of {self.elements:,} integers, {self.same_scales:,} of "
                f"{self.scales:,} scales and {self.same_constants} of {self.constants} other "
                "constants are the same."
            )
        return f"{said} {self._features}"

    @property
    def _features(self) -> str:
        if self.unasked:
            return f"Thresholds of features were not compared: {self.unasked}."
        if not self.moved and not self.stopped:
            return f"So are the thresholds of all {self.features} features."
        said = []
        if self.moved:
            said.append(
                f"{len(self.moved)} of {self.features} thresholds of features differ, by "
                f"{_most(self.moved)}."
            )
        if self.stopped:
            said.append(
                f"{len(self.stopped)} of {self.features} thresholds of features stop where no "
                "reader tells larger values apart; a plain calibration goes on, by "
                f"{_most(self.stopped)}."
            )
        return " ".join(said)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        lists = {name: [dataclasses.asdict(m) for m in getattr(self, name)] for name in _LISTS}
        return {"holds": self.holds, **dataclasses.asdict(self), **lists}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Recalibration:
        """Return what `to_json` wrote."""
        fields = {name: value for name, value in found.items() if name != "holds"}
        lists = {name: tuple(Moved(**one) for one in fields[name]) for name in _LISTS}
        return cls(**{**fields, **lists})


_LISTS = ("moved", "stopped")


def _most(features: tuple[Moved, ...]) -> str:
    return f"{100 * features[0].change:.2g} % at most ({features[0].name})"
