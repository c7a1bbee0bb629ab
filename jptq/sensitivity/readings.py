"""Few numbers that tell a whole change of the outputs: their elements, or the odds of a softmax.

Random signs estimate a squared change without knowing the outputs. Two kinds of outputs are better
read directly. Outputs of few elements: one pull per element leaves nothing to chance.
Probabilities: behind a softmax or a sigmoid that is nearly certain a derivative is as good as zero
and misses that a larger change turns the decision, or it is far too large where the decision is
open. The log-odds of a decision stay linear, and what they do to the probabilities is known in
closed form.

A softmax is taken apart into decisions one class at a time, the most probable first: this class or
one of the remaining ones (the stick-breaking form of the categorical distribution; Khan et al.,
AISTATS 2012). With C classes, C - 1 decisions say everything, and few of them matter.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

from jptq.engine.program import Program

COVERED = 0.5
"""Least share of the outputs' gain that the decisions read have to hold: most of it."""

FAINTEST = 1e-30
"""Probability below which its inverse is of no use in float32."""


@dataclasses.dataclass(frozen=True)
class Effects:
    """What quantizing N rows under Q candidates does to O outputs, per sample.

    Attributes:
      squares: ``float64[S, O, N, Q]``, sum of squared changes.
      along: ``float64[S, O, N, Q]``, inner product of change and float output.
    """

    squares: np.ndarray
    along: np.ndarray


class Readings(Protocol):
    """R numbers per sample, linear in small changes of the outputs."""

    @property
    def count(self) -> int:
        """R."""

    @property
    def behind(self) -> Mapping[int, str]:
        """Quantizers between what is read and an output: what they do, readings do not tell."""

    def vectors(self, sample: int, which: range) -> dict[str, np.ndarray]:
        """Return the derivatives of some readings by each output: ``float32[V, *shape]``.

        Readings past the last are zero.
        """

    def effects(self, changes: np.ndarray) -> Effects:
        """Return what changes ``float64[S, R, N, Q]`` of the readings make of the outputs."""


class Elements:
    """Every element of the outputs is a reading.

    Args:
      outputs: Float outputs ``[S, *shape]``.
    """

    def __init__(self, outputs: Mapping[str, np.ndarray]) -> None:
        self._outputs = outputs
        sizes = [math.prod(y.shape[1:]) for y in outputs.values()]
        self._ends = np.cumsum(sizes)[:-1]
        self.count = sum(sizes)
        self.behind: Mapping[int, str] = {}

    def vectors(self, sample: int, which: range) -> dict[str, np.ndarray]:
        """Return unit vectors."""
        hot = np.zeros((len(which), self.count), np.float32)
        rows = np.eye(self.count, dtype=np.float32)[which.start : which.stop]
        hot[: len(rows)] = rows
        parts = np.split(hot, self._ends, axis=1)
        return {
            name: part.reshape(len(which), *y.shape[1:])
            for (name, y), part in zip(self._outputs.items(), parts, strict=True)
        }

    def effects(self, changes: np.ndarray) -> Effects:
        """Add up squares and products: the readings are the change itself."""
        parts = np.split(changes, self._ends, axis=1)
        values = [y.reshape(len(y), math.prod(y.shape[1:]), 1, 1) for y in self._outputs.values()]
        return Effects(
            squares=np.stack([(e * e).sum(1) for e in parts], axis=1),
            along=np.stack([(y * e).sum(1) for y, e in zip(values, parts, strict=True)], axis=1),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _End:
    """Where the probabilities of one output come from.

    Attributes:
      shape: Of the output.
      axis: Of the classes; None for a sigmoid, each element of which is a decision of its own.
      behind: Quantizers between softmax and output.
    """

    shape: tuple[int, ...]
    axis: int | None
    behind: tuple[int, ...]

    def places(self, y: np.ndarray) -> np.ndarray:
        """Return probabilities ``float64[T, C]`` of T places; C is 1 for a sigmoid."""
        moved = y[..., None] if self.axis is None else np.moveaxis(y, self.axis, -1)
        return moved.reshape(-1, moved.shape[-1]).astype(np.float64)

    def whole(self, places: np.ndarray) -> np.ndarray:
        """Undo `places` on ``[V, T, C]``."""
        if self.axis is None:
            return places.reshape(-1, *self.shape)
        rest = [n for a, n in enumerate(self.shape) if a != self.axis]
        return np.moveaxis(places.reshape(-1, *rest, places.shape[-1]), -1, self.axis + 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Place:
    """The first D decisions of one distribution, the most probable class first.

    Attributes:
      output: Name.
      index: Among the places of the output.
      classes: ``int[D]``.
      p: ``float64[D]``, their probabilities.
      rest: ``float64[D]``, of all classes that are less probable.
      squares: ``float64[D]``, sum of squares of the same; 0 where they are no output.
    """

    output: str
    index: int
    classes: np.ndarray
    p: np.ndarray
    rest: np.ndarray
    squares: np.ndarray

    @property
    def gains(self) -> np.ndarray:
        """Squared change of the output by a change of 1 in each logit, per decision."""
        spread = 1.0 + self.squares / self.rest**2
        return np.asarray((self.p * self.rest / (self.p + self.rest) * spread) ** 2)

    def moved(self, changes: Mapping[int, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return squared change of the probabilities and its product with them.

        Args:
          changes: Of log-odds, by decision, all of one shape.
        """
        from scipy import special  # as long to load as all of NumPy, and rarely needed

        first = next(iter(changes.values()))
        # What is left of the classes that a decision leaves open, over what it was.
        kept = np.ones_like(first)
        square, product = np.zeros_like(first), np.zeros_like(first)
        last = max(changes)
        for k in range(last + 1):
            odds = np.log(self.p[k]) - np.log(self.rest[k])
            change = changes.get(k, np.zeros_like(first))
            now = kept * (self.p[k] + self.rest[k]) * special.expit(odds + change)
            # From the odds once more: next to certainty nothing would be left of a difference.
            kept = kept * special.expit(-odds - change) / special.expit(-odds)
            square += (now - self.p[k]) ** 2
            product += (now - self.p[k]) * self.p[k]
        tail = self.squares[last]
        return square + tail * (kept - 1.0) ** 2, product + tail * (kept - 1.0)


class LogOdds:
    """The most open decisions of every sample are read.

    Args:
      ends: How each output comes about: by a softmax or a sigmoid.
      count: Most decisions that are read.
    """

    def __init__(self, ends: Mapping[str, _End], count: int) -> None:
        self._ends = ends
        self._most = count
        self.behind: Mapping[int, str] = {i: name for name, e in ends.items() for i in e.behind}
        self._chosen: list[list[tuple[_Place, int]]] = []
        self._gain = self._whole = 0.0

    @property
    def count(self) -> int:
        """Decisions that are read, in the sample that has most."""
        return max((len(chosen) for chosen in self._chosen), default=0)

    @property
    def share(self) -> float:
        """What the decisions hold of the squared Jacobian of probabilities by logits."""
        return self._gain / self._whole if self._whole > 0 else 0.0

    def add(self, outputs: Mapping[str, np.ndarray]) -> None:
        """Choose the decisions of one more sample."""
        tables = {name: end.places(outputs[name]) for name, end in self._ends.items()}
        # Decisions below the first of a place are read where places are fewer than readings.
        depth = -(-self._most // sum(len(table) for table in tables.values()))
        found: list[tuple[float, _Place, int]] = []
        for name, table in tables.items():
            size = table.size
            first, whole = _gains(table)
            self._whole += float(whole.sum()) / size
            for index in np.argsort(-first, kind="stable")[: self._most]:
                place = _place(name, int(index), table[index], depth)
                found += [(gain / size, place, k) for k, gain in enumerate(place.gains)]
        found = sorted(found, key=lambda f: -f[0])[: self._most]
        self._gain += sum(gain for gain, _, _ in found)
        self._chosen.append([(place, k) for _, place, k in found])

    def vectors(self, sample: int, which: range) -> dict[str, np.ndarray]:
        """Return the derivatives of log-odds by the probabilities."""
        chosen = self._chosen[sample]
        out = {}
        for name, end in self._ends.items():
            classes = 1 if end.axis is None else end.shape[end.axis]
            hot = np.zeros((len(which), math.prod(end.shape) // classes, classes), np.float32)
            for v, r in enumerate(which):
                if r >= len(chosen) or chosen[r][0].output != name:
                    continue
                place, k = chosen[r]
                if end.axis is None:
                    hot[v, place.index] = 1.0 / (place.p[k] * place.rest[k])
                    continue
                hot[v, place.index] = -1.0 / place.rest[k]
                hot[v, place.index, place.classes[:k]] = 0.0
                hot[v, place.index, place.classes[k]] = 1.0 / place.p[k]
            out[name] = end.whole(hot)
        return out

    def effects(self, changes: np.ndarray) -> Effects:
        """Move the odds, not the probabilities, and see what becomes of these."""
        samples, _, *shape = changes.shape
        number = {name: o for o, name in enumerate(self._ends)}
        squares = np.zeros((samples, len(number), *shape))
        along = np.zeros_like(squares)
        for s, chosen in enumerate(self._chosen):
            moves: dict[tuple[str, int], tuple[_Place, dict[int, np.ndarray]]] = {}
            for r, (place, k) in enumerate(chosen):
                moves.setdefault((place.output, place.index), (place, {}))[1][k] = changes[s, r]
            for place, move in moves.values():
                square, product = place.moved(move)
                squares[s, number[place.output]] += square
                along[s, number[place.output]] += product
        return Effects(squares, along)


def choose(
    program: Program,
    outputs: Sequence[str],
    floats: Iterable[Mapping[str, np.ndarray]],
    count: int,
    few: int,
) -> Readings | None:
    """Return readings that tell most of the outputs' change, if there are such.

    Args:
      program: What makes the outputs.
      outputs: Names.
      floats: Float outputs of every sample; not looked at where the graph tells enough.
      count: Most readings of log-odds.
      few: Most elements that are read one by one.
    """
    small = sum(math.prod(program.shapes[name]) for name in outputs) <= few
    saturating = all(_source(program, name)[0] in ("Softmax", "Sigmoid") for name in outputs)
    if not small and not saturating:
        return None
    odds: LogOdds | None = None
    kept = []
    for s, found in enumerate(floats):
        if s == 0 and saturating:
            ends = _ends(program, found)
            odds = LogOdds(ends, count) if ends else None
        if odds is not None:
            odds.add(found)
        if small:
            kept.append(found)
    if odds is not None and odds.share >= COVERED:
        return odds
    return Elements({n: np.stack([y[n] for y in kept]) for n in outputs}) if small else None


def _source(program: Program, name: str) -> tuple[str, tuple[int, ...]]:
    """Return the operator that an output comes from, and the quantizers behind it."""
    plan = program.plan
    assert plan is not None
    quantizers = {c.output: (i, c.tensor) for i, c in enumerate(plan.calibrations)}
    behind = []
    while name in quantizers:
        index, name = quantizers[name]
        behind.append(index)
    op = next((step.op for step in program.steps if name in step.outputs), "")
    return op, tuple(behind)


def _ends(program: Program, outputs: Mapping[str, np.ndarray]) -> dict[str, _End] | None:
    """Return how each output of one sample saturates; None if one of them does not."""
    found = {}
    for name, y in outputs.items():
        op, behind = _source(program, name)
        axis: int | None = None
        if op == "Softmax":
            # Read off the values: up to opset 12 the attribute means something else.
            axes = [a for a in range(y.ndim) if np.allclose(y.sum(a), 1.0, atol=1e-3)]
            if not axes:
                return None
            axis = axes[-1]
        found[name] = _End(shape=y.shape, axis=axis, behind=behind)
    return found


def _gains(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the gain of the first decision of each place, and the squared Jacobian of each."""
    if table.shape[1] == 1:
        gain = (table * (1.0 - table))[:, 0] ** 2
        return gain, gain
    top = np.argmax(table, -1)[:, None]
    first = np.take_along_axis(table, top, -1)[:, 0]
    others = table.copy()
    # Not 1 - p: next to certainty nothing would be left of it.
    np.put_along_axis(others, top, 0.0, -1)
    rest, squares = others.sum(-1), (others * others).sum(-1)
    diagonal = (first * rest) ** 2 + ((others * (1.0 - others)) ** 2).sum(-1)
    across = 2.0 * first**2 * squares + squares**2 - (others**4).sum(-1)
    spread = np.divide(squares, rest**2, out=np.zeros_like(rest), where=rest > FAINTEST)
    return (first * rest * (1.0 + spread)) ** 2, diagonal + across


def _place(output: str, index: int, p: np.ndarray, depth: int) -> _Place:
    """Return the decisions of one place that can be read."""
    if len(p) == 1:
        order, rest, squares = np.zeros(1, int), 1.0 - p, np.zeros(1)
    else:
        order = np.argsort(-p, kind="stable")
        p = p[order]
        rest, squares = (np.append(np.cumsum(v[::-1])[::-1][1:], 0.0) for v in (p, p * p))
    read = (np.arange(len(p)) < depth) & (p > FAINTEST) & (rest > FAINTEST)
    return _Place(
        output=output,
        index=index,
        classes=order[read],
        p=p[read],
        rest=rest[read],
        squares=squares[read],
    )
