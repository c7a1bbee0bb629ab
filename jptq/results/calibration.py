"""The calibration methods that were compared, with what each of them loses."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from jptq.results.evaluation import plain


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodTrial:
    """One calibration method.

    Attributes:
      method: Its tag, as the vendor writes it.
      int8: What the outputs lose with the types of the configuration, all INT8 if it says
        nothing: 0 to 1, mean over samples, outputs and channels (`lost_share`).
      int16: The same with all that the target can as INT16: what no raised node gives back.
      clipped: Largest value of a feature over its threshold, of the feature where this is largest;
        1 if nothing is clipped.
      clips: The tensor of that feature; empty if nothing is clipped.
      int8_quality: All-INT8 by what the goal bounds (`Evaluation.quality`), or None if not run.
      int16_quality: All-INT16 by the same, or None if not run.
      chosen: Whether the network is calibrated by it.
      why: Why it was taken or left, in words.
    """

    method: str
    int8: float
    int16: float
    clipped: float = 1.0
    clips: str = ""
    int8_quality: float | None = None
    int16_quality: float | None = None
    chosen: bool = False
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        content: dict[str, Any] = plain(dataclasses.asdict(self))
        return content

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> MethodTrial:
        """Return what `to_json` wrote."""
        numbers = {
            name: float(content[name])
            for name in ("int8", "int16", "clipped", "int8_quality", "int16_quality")
            if content[name] is not None
        }
        return cls(**{**content, **numbers})

    @property
    def clips_much(self) -> bool:
        """Tell whether it cuts values off, more than the bins of a histogram are wide."""
        return math.isnan(self.clipped) or self.clipped > _CUT


_CUT = 1.01
