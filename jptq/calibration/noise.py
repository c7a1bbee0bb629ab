"""Samples that nobody has to give."""

from __future__ import annotations

import numpy as np

from jptq import prng
from jptq.data import MemorySamples, SampleSet

COUNT = 8


def random_samples(like: SampleSet) -> MemorySamples:
    """Return standard normal samples of the shapes of given ones; the same in every run.

    What is no float (an index, a mask) is taken from the given ones: any other value might be
    one that the network cannot take.
    """
    normal = prng.generator(0, "calibration", "skip")
    feeds = []
    for i in range(COUNT):
        sample = like[i % len(like)]
        feeds.append(
            {
                name: normal.standard_normal(value.shape).astype(value.dtype)
                if np.issubdtype(value.dtype, np.floating)
                else value
                for name, value in sample.items()
            }
        )
    return MemorySamples(feeds=tuple(feeds))
