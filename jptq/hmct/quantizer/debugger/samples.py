"""``select_sensitive_samples``: where the quantized model departs most from the float one."""

from __future__ import annotations

import dataclasses
from functools import cached_property

import numpy as np

from jptq import files
from jptq.data import Samples
from jptq.diagnosis.samples import rank_samples
from jptq.hmct.quantizer.debugger import arguments, loading
from jptq.hmct.quantizer.debugger.loading import ArgumentError, Data, ModelOrFile


@dataclasses.dataclass(frozen=True, kw_only=True)
class SensitiveSamples:
    """Some samples of a set, worst first: calibration data for any function of the debugger.

    Attributes:
      whole: The set that they were chosen from.
      indices: Their positions in it.
      scores: Of each, by the metric.
      metric: What was measured.
    """

    whole: Samples
    indices: tuple[int, ...]
    scores: tuple[float, ...]
    metric: str

    @cached_property
    def digest(self) -> str:
        """Hex digest of the content."""
        return files.digest(self.whole.digest, repr(self.indices))

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Return one sample."""
        return self.whole[self.indices[index]]


def select_sensitive_samples(
    calibrated_model: ModelOrFile,
    calibration_data: Data,
    metric: str = "cosine-similarity",
    num_sample: int = 1,
) -> SensitiveSamples:
    """Return the samples that suffer most from quantization.

    Args:
      calibrated_model: As it stands: all of its calibrations that are switched on are at work.
      calibration_data: Samples to choose from.
      metric: One of `arguments.METRICS`, per sample the mean over the outputs.
      num_sample: How many.

    Raises:
      ArgumentError: The metric does not exist, or there are fewer samples.
      JptqError: The model or the data cannot be used.
    """
    (name,) = arguments.metrics_of(metric)
    network = loading.loaded(calibrated_model, calibration_data)
    available = len(network.samples)
    if not 1 <= num_sample <= available:
        raise ArgumentError(
            f"There are only {available} data, but num_sample is set to {num_sample}!"
            if num_sample > available
            else f"num_sample is set to {num_sample}",
            hint=f"1 to {available}",
        )
    ranked = rank_samples(
        network.runner, network.table(network.configured), network.samples, metric=name
    )
    chosen = tuple(int(i) for i in ranked.order[:num_sample])
    return SensitiveSamples(
        whole=network.samples,
        indices=chosen,
        scores=tuple(float(ranked.scores[i]) for i in chosen),
        metric=name,
    )
