"""Samples to fit to and samples to judge by."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from jptq.data import SampleSet

EVERY = 3
"""One sample of so many is held out, evenly spread over the set."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picked:
    """Some samples of a set, read when they are asked for."""

    whole: SampleSet
    numbers: tuple[int, ...]

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.numbers)

    def __getitem__(self, index: int, /) -> Mapping[str, np.ndarray]:
        """Return one sample."""
        return self.whole[self.numbers[index]]


def split(count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the numbers of the samples to fit to and of those that are held out.

    These are the second of every three: two samples are enough for one of each.
    """
    held = tuple(range(1, count, EVERY))
    return tuple(i for i in range(count) if i % EVERY != 1), held
