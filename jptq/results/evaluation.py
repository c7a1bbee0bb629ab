"""What running a model really gave: output errors and the user's scores."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """Min, mean and max of a quantity over samples."""

    min: float
    mean: float
    max: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lost:
    """Channels of an output whose values quantization takes away, whatever the cosine of the whole.

    Attributes:
      axis: Of the output; channels are counted along it.
      channels: Their indices.
      correlation: Pearson's, of float and quantized values over all samples, the least of any of
        the channels; 0 if the quantized values are all the same.
      magnitude: Largest absolute float value in any of them.
    """

    axis: int
    channels: tuple[int, ...]
    correlation: float
    magnitude: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputError:
    """One output of a quantized model against the float model.

    Attributes:
      output: Its name.
      cosine: Cosine similarity.
      l1: Mean absolute difference, in the output's unit.
      l2: Mean squared difference (the vendor's "L2 Distance", no root).
      chebyshev: Largest absolute difference.
      sqnr: 10*log10(|a|/|a-b|), the vendor's halved one; a sample without error has an infinite
        one, which the mean leaves out.
      elements: Number of elements over all samples.
      broken: How many of these only quantization makes NaN or infinite; the output has no cosine
        and no distances then, they are NaN.
      undefined: How many are NaN in the float model.
      equal: For integers and truth values: share of equal elements; None for other outputs.
      magnitude: Largest absolute float value, NaN and infinities left out; 0 if it is not known.
      deviation: Standard deviation of the float values over their root mean square; where it is
        small any output near them has a high cosine. None if it is not known.
      lost: Channels that lose their values, by axis.
    """

    output: str
    cosine: Spread
    l1: Spread
    l2: Spread
    chebyshev: Spread
    sqnr: Spread
    elements: int = 0
    broken: int = 0
    undefined: int = 0
    equal: float | None = None
    magnitude: float = 0.0
    deviation: float | None = None
    lost: tuple[Lost, ...] = ()

    @property
    def broken_share(self) -> float:
        """Share of elements that only quantization makes NaN or infinite."""
        return self.broken / self.elements if self.broken else 0.0

    @property
    def quality(self) -> float:
        """What ``--min_cosine`` bounds.

        The mean cosine, or the share of equal elements of integers; not more than the correlation
        of a channel that is `lost`. Where elements are `broken`, their share below zero.
        """
        if self.broken:
            return -self.broken_share
        whole = self.cosine.mean if self.equal is None else self.equal
        return min([whole, *(one.correlation for one in self.lost)])


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
        """The least mean cosine of any output; NaN if one has none.

        Outputs of integers (an ArgMax) are only compared if there are no others.
        """
        found = [output.cosine.mean for output in self.outputs]
        return math.nan if any(map(math.isnan, found)) else min(found, default=1.0)

    @property
    def quality(self) -> float:
        """The least quality of any output (`OutputError.quality`)."""
        return min((output.quality for output in self.outputs), default=1.0)


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
        """What a goal bounds: the worst share of float, without scores that of the outputs."""
        share = self.worst_share
        if share is not None:
            return share
        return self.comparison.quality if self.comparison is not None else 1.0

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        content: dict[str, Any] = plain(dataclasses.asdict(self))
        return content


def plain(content: Any) -> Any:
    """Return what JSON can hold: it has no infinities, they are written as words.

    Example:
      >>> plain({"sqnr": [math.inf, 1.5]})
      {'sqnr': ['inf', 1.5]}
    """
    if isinstance(content, Mapping):
        return {key: plain(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [plain(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return str(content)
    return content
