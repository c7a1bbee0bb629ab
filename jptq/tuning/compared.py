"""Outputs of a quantized network against those of the float one, taken in batch by batch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jax import Array

from jptq.ir.model import Model, Node
from jptq.metrics import channels, similarity
from jptq.results import Comparison, Lost, OutputError, Spread

_COLUMNS = ("cosine-similarity", "mae", "mse", "chebyshev", "sqnr")

LOST = 0.9
"""Correlation of float and quantized values below which a channel has lost them. A score that INT8
cuts down to yes or no correlates at 0.87, one of four levels at 0.97."""

VISIBLE = 1e-4
"""Range of a channel, over the output's largest value, from which on it counts: a probability
beside boxes in pixels of a large image."""

VARIES = 0.05
"""Deviation of a channel, over its root mean square, from which on it counts: one that is constant
in float has no values to lose."""

MANY = 64
"""Elements of a channel from which on its correlation counts: of few it is chance."""

FEW = 8
"""Elements from which on it counts that all of them become the same."""

ALONE = 16
"""Channels of an output for each of which one may be lost, if they are no operand of a Concat: of
many channels some hold hardly more than noise."""

_MOST_CHANNELS = 256
_LONGEST = 1 << 16


@dataclasses.dataclass(frozen=True)
class Parts:
    """How an output came about.

    Attributes:
      whole: Whether it is one distribution, without channels of their own.
      node: Name of the Concat that gives it out, directly or through operators that only move
        values; empty if there is none.
      axis: Of the output along which its operands lie; None if that is not an axis any more.
      stops: Where each operand ends.
    """

    whole: bool = False
    node: str = ""
    axis: int | None = None
    stops: tuple[int, ...] = ()

    @property
    def ranges(self) -> tuple[range, ...]:
        """Where each operand lies."""
        return tuple(range(a, b) for a, b in zip((0, *self.stops), self.stops, strict=False))


class Compared:
    """Errors of outputs over samples; nothing grows with their number but a row per sample.

    Args:
      shapes: Of one sample's outputs.
      parts: How outputs were joined, where they were (`parts_of`).
      channelwise: Whether to look for channels that are lost.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        parts: Mapping[str, Parts] | None = None,
        *,
        channelwise: bool = True,
    ) -> None:
        self._channelwise = channelwise
        self._shapes = shapes
        self._parts = parts or {}
        self._sums: dict[str, list[np.ndarray]] = {}
        self._channels: dict[tuple[str, int], np.ndarray] = {}
        self._integer: set[str] = set()

    def add(
        self, name: str, floating: Array | np.ndarray, quantized: Array | np.ndarray, count: int
    ) -> None:
        """Take in one output of a batch ``[S, *shape]``, of which the first ``count`` are real."""
        sums = np.asarray(similarity.compare(floating, quantized))
        self._sums.setdefault(name, []).append(sums[:count])
        if not np.issubdtype(floating.dtype, np.floating):
            self._integer.add(name)
        for axis in self._axes(name):
            rows = np.asarray(channels.compare(floating, quantized, axis))[:count]
            known = self._channels.get((name, axis))
            rows = rows if known is None else np.concatenate([known[np.newaxis], rows])
            self._channels[name, axis] = channels.merged(rows)

    def _axes(self, name: str) -> tuple[int, ...]:
        """Return the axes along which channels or operands of a Concat lie."""
        parts = self._parts.get(name, Parts())
        if not self._channelwise or name in self._integer or parts.whole:
            return ()
        shape = self._shapes[name]
        found = [] if (axis := channel_axis(shape)) is None else [axis]
        joined = parts.axis
        if joined is not None and shape[joined] <= _LONGEST and min(shape) > 0:
            found.append(joined)
        return tuple(dict.fromkeys(found))

    def comparison(self, order: Sequence[str] | None = None) -> Comparison:
        """Return what was found, in the order given, else in that in which it was taken in."""
        outputs, samples = [], 0
        for name in self._sums if order is None else order:
            joined = np.concatenate(self._sums[name])
            samples = len(joined)
            outputs.append(self._output(name, joined))
        return Comparison(outputs=tuple(outputs), samples=samples)

    def _output(self, name: str, sums: np.ndarray) -> OutputError:
        size = math.prod(self._shapes[name])
        values = similarity.evaluate(_COLUMNS, sums, size)
        total = {
            field: int(sums[:, similarity.FIELDS.index(field)].sum())
            for field in ("broken", "undefined", "different")
        }
        if total["broken"]:  # what stands for the errors of such elements is made up
            values = np.full_like(values, np.nan)
        cosine, l1, l2, chebyshev, sqnr = (_spread(column) for column in values.T)
        elements = size * len(sums)
        deviation = None
        if axes := self._axes(name):
            pooled = channels.merged(self._channels[name, axes[0]], axis=1)
            deviation = float(_deviation(pooled[:, np.newaxis])[0])
        magnitude, lost = self._lost(name)
        return OutputError(
            output=name,
            cosine=cosine,
            l1=l1,
            l2=l2,
            chebyshev=chebyshev,
            sqnr=sqnr,
            elements=elements,
            broken=total["broken"],
            undefined=total["undefined"],
            equal=1 - total["different"] / max(elements, 1) if name in self._integer else None,
            magnitude=magnitude,
            deviation=deviation,
            lost=lost,
        )

    def _lost(self, name: str) -> tuple[float, tuple[Lost, ...]]:
        """Return the largest float value of an output, and what it loses."""
        found: dict[int, Lost] = {}
        magnitude = 0.0
        parts = self._parts.get(name, Parts())
        for axis in self._axes(name):
            rows = self._channels[name, axis]
            magnitude = float(rows[_MAGNITUDE].max(initial=0.0))
            gone: list[tuple[range, np.ndarray]] = []
            if axis == channel_axis(self._shapes[name]):
                lost = np.flatnonzero(_is_lost(rows, magnitude))
                if len(lost) >= math.ceil(rows.shape[1] / ALONE):
                    gone += [(range(c, c + 1), rows[:, c]) for c in lost.tolist()]
            if axis == parts.axis:
                for one in parts.ranges:
                    whole = channels.merged(rows[:, one.start : one.stop], axis=1)
                    if _is_lost(whole[:, np.newaxis], magnitude)[0]:
                        gone.append((one, whole))
            if gone:
                columns = np.stack([column for _, column in gone], axis=1)
                found[axis] = Lost(
                    axis=axis,
                    channels=tuple(sorted({index for one, _ in gone for index in one})),
                    correlation=float(channels.correlation(columns).min()),
                    magnitude=float(columns[_MAGNITUDE].max()),
                )
        return magnitude, tuple(found.values())


_MAGNITUDE = channels.FIELDS.index("magnitude")


def _deviation(rows: np.ndarray) -> np.ndarray:
    """Return each channel's standard deviation over its root mean square; 0 for one of zeros."""
    count = np.maximum(rows[channels.FIELDS.index("count")], 1)
    variance = rows[channels.FIELDS.index("spread")] / count
    power = variance + rows[channels.FIELDS.index("mean")] ** 2
    return np.asarray(
        np.sqrt(np.divide(variance, power, out=np.zeros_like(power), where=power > 0))
    )


def _is_lost(rows: np.ndarray, magnitude: float) -> np.ndarray:
    """Tell which channels of ``float64[11, C]`` have lost their values, ``bool[C]``."""
    field = {name: rows[i] for i, name in enumerate(channels.FIELDS)}
    with np.errstate(invalid="ignore"):
        wide = field["high"] - field["low"] >= VISIBLE * magnitude
    counts = wide & (_deviation(rows) >= VARIES)
    constant = (field["low_quantized"] == field["high_quantized"]) & (field["count"] >= FEW)
    apart = (channels.correlation(rows) < LOST) & (field["count"] >= MANY)
    return np.asarray(counts & (constant | apart))


def _spread(values: np.ndarray) -> Spread:
    if np.isnan(values).any():
        return Spread(min=math.nan, mean=math.nan, max=math.nan)
    return Spread(
        min=float(values.min()), mean=float(similarity.mean(values)), max=float(values.max())
    )


def comparable(outputs: Mapping[str, Array]) -> list[str]:
    """Return the outputs to compare: all floats, or all outputs if there are none.

    Indices say little about an error: they are compared only if there is nothing else.
    """
    return [n for n, v in outputs.items() if np.issubdtype(v.dtype, np.floating)] or list(outputs)


def channel_axis(shape: Sequence[int]) -> int | None:
    """Return the axis of an output that counts channels, the batch axis being 0.

    That is the last one where it is shorter than all between it and the batch, else the second.
    None if there are none, or too many to be told apart.
    """
    if len(shape) < 2 or not math.prod(shape):
        return None
    last = len(shape) - 1
    axis = last if last > 1 and shape[last] < min(shape[1:last]) else 1
    return axis if shape[axis] <= _MOST_CHANNELS else None


_ENDS = ("Softmax", "LogSoftmax", "HzSoftmax")
"""Operators whose outputs are one distribution: its channels rise and fall together, and what is
hardly probable says nothing."""

_JOINS = ("Concat",)
_TURNS = ("Transpose",)
_COPIES = ("Identity",)
_MOVES = (*_TURNS, *_COPIES, "Reshape", "Flatten", "Squeeze", "Unsqueeze")
"""Operators that only move values: the grid that they are on is that of what they read."""


def parts_of(
    model: Model, outputs: Sequence[str], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Parts]:
    """Return how outputs of a graph came about, where that matters.

    Args:
      model: The graph.
      outputs: Of it.
      shapes: Of every tensor of one sample.
    """
    found = {}
    for name in outputs:
        node, moves = model.producers.get(name), list[Node]()
        while node is not None and (node.is_calibration or node.op in _MOVES):
            if not node.is_calibration:
                moves.append(node)
            node = model.producers.get(node.inputs[0])
        if node is not None and node.op in _ENDS:
            found[name] = Parts(whole=True)
        elif node is not None and node.op in _JOINS and not node.domain:
            found[name] = _parts(node, moves, len(shapes[name]), shapes)
    return found


def _parts(
    node: Node, moves: Sequence[Node], rank: int, shapes: Mapping[str, tuple[int, ...]]
) -> Parts:
    """Return where the operands of a Concat lie behind operators that move values, last first."""
    given = node.attributes.get("axis", 1)
    assert isinstance(given, int)
    axis: int | None = given % max(len(shapes[node.outputs[0]]), 1)
    for move in reversed(moves):
        if move.op in _TURNS and axis is not None:
            order = move.attributes.get("perm", tuple(reversed(range(rank))))
            assert isinstance(order, tuple)
            axis = list(order).index(axis)
        elif move.op not in _COPIES:
            axis = None
    if axis is None:
        return Parts(node=node.name)
    widths = [shapes[name][given] for name in node.inputs if name]
    return Parts(node=node.name, axis=axis, stops=tuple(np.cumsum(widths).tolist()))
