"""Calibration data: one sample at a time, checked when it is read."""

from jptq.data.batches import batches
from jptq.data.check import Expected
from jptq.data.samples import FolderSamples, MemorySamples, Samples, SampleSet, load_samples

__all__ = [
    "Expected",
    "FolderSamples",
    "MemorySamples",
    "SampleSet",
    "Samples",
    "batches",
    "load_samples",
]
