"""What running a model really gave: output errors and the user's scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """Min, mean and max of a quantity over samples."""

    min: float
    mean: float
    max: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputError:
    """One output of a quantized model against the float model.

    Attributes:
      output: Its name.
      cosine: Cosine similarity.
      l1: Mean absolute difference, in the output's unit.
      l2: Mean squared difference (the vendor's "L2 Distance", no root).
      chebyshev: Largest absolute difference.
      sqnr: 10*log10(|a|/|a-b|), the vendor's halved one.
    """

    output: str
    cosine: Spread
    l1: Spread
    l2: Spread
    chebyshev: Spread
    sqnr: Spread


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """A quantized model against the float model over the calibration samples.

    Attributes:
      outputs: One entry per graph output.
      samples: Number of samples.
    """

    outputs: tuple[OutputError, ...]
    samples: int

    @property
    def min_cosine(self) -> float:
        """The least mean cosine of any output: what ``--min_cosine`` bounds.

        Outputs of integers (an ArgMax) are only compared if there are no others.
        """
        return min((output.cosine.mean for output in self.outputs), default=1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A model that was really run.

    Attributes:
      name: ``float``, ``int8``, ``int16``, ``final`` or a step's name.
      scores: The user's scores; empty without an evaluator.
      shares: Each score as a share of its float value.
      comparison: Against float; None for the float model itself.
      time_us: Latency; None for float.
      time_is: Where that is from, as `LatencyTable.origin` says it.
      macs_int16: Share of multiply-accumulates with an int16 operand.
      raised: Nodes that differ from all-INT8.
      predicted_error: Mean squared error as the sum of what each group causes alone; None where
        the search looks at errors of another kind.
      noise: Of each score of the float model: relative difference of two scorings; empty for
        all others.
    """

    name: str
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    shares: Mapping[str, float] = dataclasses.field(default_factory=dict)
    comparison: Comparison | None = None
    time_us: float | None = None
    time_is: str = "modelled"
    macs_int16: float = 0.0
    raised: int = 0
    predicted_error: float | None = None
    noise: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def worst_share(self) -> float | None:
        """The least share of float of any score: what ``--min_score`` bounds."""
        return min(self.shares.values()) if self.shares else None

    @property
    def quality(self) -> float:
        """What a goal bounds: the worst share of float, without scores the least mean cosine."""
        share = self.worst_share
        if share is not None:
            return share
        return self.comparison.min_cosine if self.comparison is not None else 1.0

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return dataclasses.asdict(self)
