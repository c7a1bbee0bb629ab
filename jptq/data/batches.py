"""Samples side by side, along an axis of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from jptq.data.samples import SampleSet


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
    """
    count = len(samples)
    size = -(-count // -(-count // size)) if count else 1
    for start in range(0, count, size):
        group = [samples[i] for i in range(start, min(start + size, count))]
        full = group + [group[-1]] * (size - len(group))
        names = group[0] if inputs is None else inputs
        yield {name: np.stack([sample[name] for sample in full]) for name in names}, len(group)
