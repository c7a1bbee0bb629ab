"""Samples side by side, along an axis of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from jptq.data.samples import SampleSet
from jptq.errors import DataError


def batches(
    samples: SampleSet, size: int, inputs: Sequence[str] | None = None
) -> Iterator[tuple[dict[str, np.ndarray], int]]:
    """Yield the samples in order, reading each when its batch is due.

    All batches have the same size, so that one program serves them; the last one is filled up
    with its last sample. A nearly empty one would cost as much as the others, so the samples are
    spread over as few batches as they need.

    Args:
      samples: Any number of them.
      size: Most samples of a batch, at least 1.
      inputs: Names of the arrays to take; all that the first sample of a batch has if None.

    Yields:
      ``{input: [S, *shape]}`` and how many of the S samples are real.

    Raises:
      DataError: Samples differ in shape or dtype.
    """
    count, size = len(samples), even(len(samples), size)
    for start in range(0, count, size):
        group = [samples[i] for i in range(start, min(start + size, count))]
        full = group + [group[-1]] * (size - len(group))
        names = group[0] if inputs is None else inputs
        joined = {name: _joined(name, [sample[name] for sample in full], start) for name in names}
        yield joined, len(group)


def even(count: int, most: int) -> int:
    """Return the size of the batches that `batches` makes of some samples."""
    return -(-count // -(-count // most)) if count else 1


def _joined(name: str, arrays: Sequence[np.ndarray], start: int) -> np.ndarray:
    """Return the arrays of an input side by side; `start` is the first one's number."""
    first = arrays[0]
    for number, array in enumerate(arrays, start):
        if array.shape != first.shape or array.dtype != first.dtype:
            raise DataError(
                f"input {name!r} is {array.dtype} of shape {array.shape}",
                where=f"sample {number}",
                why=f"sample {start} is {first.dtype} of shape {first.shape}: one program runs all",
            )
    return np.stack(arrays)
