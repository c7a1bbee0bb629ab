"""The outcome of a calibration: the thresholds of a network and how they were chosen."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from jptq.ir.model import Model
from jptq.quant.calibrated import with_thresholds
from jptq.results import Limit, MethodTrial, Outlying


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """A method that was tried.

    Attributes:
      method: Its tag.
      score: Similarity of the quantized to the float outputs; NaN if it could not be had.
    """

    method: str
    score: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Merged:
    """A feature that the layerwise search looked at.

    Attributes:
      name: Calibration.
      method: Tag of the method that it takes now.
      before: Score with only this feature quantized, by the base method.
      after: The same by `method`, with the type `qtype` if that is given.
      qtype: Type that it was raised to, or None.
    """

    name: str
    method: str
    before: float
    after: float
    qtype: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibrated:
    """The thresholds of every quantizer of a network.

    Attributes:
      thresholds: ``{calibration: float32[C]}``; ``[min, max]`` if asymmetric.
      method: Tag of the method, as hmct-spec 2.2 writes it.
      asymmetric: Those with a range.
      axes: Channel axis of features with a threshold per channel.
      types: Features that the layerwise search raised, and to what.
      samples: Number of samples.
      trials: The methods that the documented search compared, in the order tried; none if there
        was no choice, or another one.
      compared: The methods that were compared by what several samples lose (`choice`).
      rivals: By the other methods of `compared`.
      clipped: Largest value of a feature over its threshold, of the feature where this is largest.
      clips: The tensor of that feature; empty if nothing is clipped.
      merged: What the layerwise search did, worst feature first.
      limited: Where thresholds stop because no reader tells larger values apart, by quantizer.
      outlying: Thresholds far above nearly all values, the worst first.
      constants: Masks without what no reader tells apart: initializers by name. In float they
        compute the same, and another tool that calibrates finds no larger values in them.
    """

    thresholds: Mapping[str, np.ndarray]
    method: str
    asymmetric: frozenset[str] = frozenset()
    axes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    types: Mapping[str, str] = dataclasses.field(default_factory=dict)
    samples: int = 0
    trials: tuple[Trial, ...] = ()
    compared: tuple[MethodTrial, ...] = ()
    rivals: tuple[Calibrated, ...] = ()
    clipped: float = 1.0
    clips: str = ""
    merged: tuple[Merged, ...] = ()
    limited: Mapping[str, Limit] = dataclasses.field(default_factory=dict)
    outlying: tuple[Outlying, ...] = ()
    constants: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def write(self, model: Model) -> Model:
        """Return a calibrated model with these thresholds in it; its constants stay."""
        return with_thresholds(model, self.thresholds, asymmetric=self.asymmetric, axes=self.axes)
