"""Samples side by side, along an axis of their own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from jptq.data.samples import Samples


def batches(samples: Samples, size: int) -> Iterator[tuple[dict[str, np.ndarray], int]]:
    """Yield the samples in order, ``size`` at a time, reading each when its batch is due.

    The last batch is filled up with its last sample, so that one program serves all batches.

    Args:
      samples: Any number of them.
      size: Samples per batch, at least 1; fewer if there are fewer in all.

    Yields:
      ``{input: [size, *shape]}`` and how many of the samples are real.
    """
    count = len(samples)
    size = min(size, count)
    for start in range(0, count, max(size, 1)):
        group = [samples[i] for i in range(start, min(start + size, count))]
        full = group + [group[-1]] * (size - len(group))
        yield {name: np.stack([sample[name] for sample in full]) for name in full[0]}, len(group)
