"""Samples on which a quantized network departs most from the float one."""

from __future__ import annotations

import dataclasses

import numpy as np

from jptq.diagnosis.partial import output_scores
from jptq.engine.runner import Runner, SampleSet
from jptq.metrics import similarity
from jptq.quant.assign import Table


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RankedSamples:
    """S samples.

    Attributes:
      order: ``int64[S]``: indices, worst first; ties in the order of the set, NaN last.
      scores: ``float64[S]`` by index, not by order: mean over the outputs.
      metric: Its name.
    """

    order: np.ndarray
    scores: np.ndarray
    metric: str


def rank_samples(
    runner: Runner, table: Table, samples: SampleSet, *, metric: str = "cosine-similarity"
) -> RankedSamples:
    """Score every sample by the error of the outputs under a table.

    Args:
      runner: Of a calibrated graph.
      table: What is quantized and how.
      samples: To run.
      metric: Key of `similarity.METRICS` that is taken per sample; pooled ones are one number
        for the whole set and leave the order as it is.

    Raises:
      UnknownNameError: The metric does not exist.
    """
    scores = output_scores(runner, {"": table}, samples, metric=metric).per_sample[0]
    better = similarity.METRICS[metric].better
    order = np.argsort(scores if better == "higher" else -scores, kind="stable")
    return RankedSamples(order=order, scores=scores, metric=metric)
