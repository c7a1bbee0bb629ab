"""What a fit of weights and biases did, layer by layer (`jptq.fitting`)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

PLAIN = "plain"
BIAS = "bias"
WEIGHTS = "weights"

MODES = ("auto", "off", BIAS, WEIGHTS)
"""What may be changed: what the guards accept, nothing, biases alone, weights with their biases."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerFit:
    """One constant weight, and all nodes that read it.

    Errors are of the layer's output on samples that were held out, weights INT8 and inputs float:
    sum of squared errors over sum of squared deviations of the output from its channels' means.

    Attributes:
      nodes: In graph order.
      weight: Initializer.
      kept: `WEIGHTS` (with the bias, where there is one), `BIAS`, or `PLAIN`: nothing changed.
      rows: Rows of inputs of the samples that were fitted to.
      plain: Error with weights rounded to the nearest.
      biased: The same with a bias that takes up the mean error; `plain` where there is no bias.
      fitted: With fitted rounding, and the bias where there is one; NaN if not tried.
      reason: Why something was not tried or not kept, in words.
    """

    nodes: tuple[str, ...]
    weight: str
    kept: str
    rows: int = 0
    plain: float = math.nan
    biased: float = math.nan
    fitted: float = math.nan
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the fields; NaN, which JSON lacks, as null."""
        found = dataclasses.asdict(self) | {"nodes": list(self.nodes)}
        return {name: _number(value) for name, value in found.items()}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> LayerFit:
        """Return what `to_json` wrote."""
        errors = {name: _read(found[name]) for name in ("plain", "biased", "fitted")}
        return cls(**{**found, **errors, "nodes": tuple(found["nodes"])})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit:
    """A whole fit.

    Attributes:
      mode: Of `MODES`.
      layers: Every constant weight with a quantizer, in graph order.
      plain: Error of the network's outputs on samples that were held out, before a final Softmax
        or Sigmoid, weights rounded to the nearest and everything else INT16: sum of squared errors
        over sum of squared deviations from the mean, mean over the outputs. NaN if nothing was
        tried.
      fitted: The same with what the layers' guards kept.
      kept: It is better; otherwise nothing is changed.
      reason: Why nothing is changed, in words.
    """

    mode: str
    layers: tuple[LayerFit, ...] = ()
    plain: float = math.nan
    fitted: float = math.nan
    kept: bool = False
    reason: str = ""

    def count(self, kept: str) -> int:
        """Return how many layers keep `WEIGHTS`, `BIAS` or `PLAIN`."""
        return sum(layer.kept == kept for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """Return the fields; NaN, which JSON lacks, as null."""
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        layers = [layer.to_json() for layer in self.layers]
        return {name: _number(value) for name, value in (found | {"layers": layers}).items()}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Fit:
        """Return what `to_json` wrote."""
        layers = tuple(LayerFit.from_json(layer) for layer in found["layers"])
        errors = {name: _read(found[name]) for name in ("plain", "fitted")}
        return cls(**{**found, **errors, "layers": layers})


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read(value: float | None) -> float:
    return math.nan if value is None else value
