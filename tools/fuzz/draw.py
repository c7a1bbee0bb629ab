"""Choices that a seed decides."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Draw:
    """A source of random choices; the same seed makes the same ones.

    Attributes:
      rng: Gives the numbers of tensors.
    """

    def __init__(self, *seed: int) -> None:
        self._random = random.Random(repr(seed))
        self.rng = np.random.default_rng([abs(part) for part in seed])

    def chance(self, probability: float) -> bool:
        """Return true that often."""
        return self._random.random() < probability

    def integer(self, low: int, high: int) -> int:
        """Return an integer between two bounds, both included."""
        return self._random.randint(low, high)

    def number(self, low: float, high: float) -> float:
        """Return a number that float32 holds."""
        return float(np.float32(self._random.uniform(low, high)))

    def pick(self, options: Sequence[T]) -> T:
        """Return one of some options."""
        return self._random.choice(options)

    def weighted(self, options: Sequence[T], weights: Sequence[float]) -> T:
        """Return one of some options, each as often as its weight says."""
        return self._random.choices(options, weights)[0]

    def some(self, options: Sequence[T], least: int = 0) -> list[T]:
        """Return a random part of some options, in their order."""
        count = self.integer(least, len(options))
        chosen = sorted(self._random.sample(range(len(options)), count))
        return [options[i] for i in chosen]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """Return some options in random order."""
        return self._random.sample(list(options), len(options))

    def ints(self, count: int, low: int, high: int) -> list[int]:
        """Return integers between two bounds."""
        return [self.integer(low, high) for _ in range(count)]

    def shape(self, rank: int, *, low: int = 1, high: int = 5, size: int = 400) -> tuple[int, ...]:
        """Return lengths; their product is bounded."""
        lengths = self.ints(rank, low, high)
        while int(np.prod(lengths)) > size:
            lengths[lengths.index(max(lengths))] -= 1
        return tuple(lengths)

    def signed_axis(self, axis: int, rank: int) -> int:
        """Return an axis as ONNX may write it: from the front or from the end."""
        return axis - rank if self.chance(0.5) else axis

    def array(
        self, shape: Sequence[int], dtype: np.dtype, domain: tuple[float, float] = (-3.0, 3.0)
    ) -> np.ndarray:
        """Return numbers within a domain, some of them equal, some of them zero."""
        shape = tuple(shape)
        low, high = domain
        if dtype == np.bool_:
            return np.asarray(self.rng.random(shape) < 0.5)
        if dtype.kind in "iu":
            least = max(int(np.ceil(low)), np.iinfo(dtype).min)
            most = min(int(np.floor(high)), np.iinfo(dtype).max)
            return np.asarray(self.rng.integers(least, most, shape, endpoint=True), dtype)
        style = self.integer(0, 9)
        if style == 0:  # ties and exact zeros
            values = np.round(self.rng.uniform(low, high, shape) * 2) / 2
        elif style == 1 and low < 0 < high:  # mostly zero
            values = self.rng.uniform(low, high, shape) * (self.rng.random(shape) < 0.3)
        elif style <= 5:
            values = self.rng.uniform(low, high, shape)
        else:
            middle, spread = (low + high) / 2, (high - low) / 6
            values = self.rng.normal(middle, spread, shape)
        return np.asarray(np.clip(values, low, high), dtype)
