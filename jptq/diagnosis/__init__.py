"""Where in a network an error arises: numbers for a person to look at, without files or plots."""

from jptq.diagnosis.accumulate import Accumulated, accumulate, running_mean
from jptq.diagnosis.channels import (
    ChannelRanges,
    Channels,
    channel_axis,
    channel_ranges_of,
    channels_of,
)
from jptq.diagnosis.distribution import (
    Histogram,
    OutputDistribution,
    QuantizerDistribution,
    by_node,
    distributions_of,
    output_distributions_of,
)
from jptq.diagnosis.partial import NONE, OutputScores, output_scores, unquantized
from jptq.diagnosis.samples import RankedSamples, rank_samples
from jptq.diagnosis.statistics import PERCENTILES, TensorStatistics, statistics_of
from jptq.diagnosis.walk import Walk, as_float, off, only

__all__ = [
    "NONE",
    "PERCENTILES",
    "Accumulated",
    "ChannelRanges",
    "Channels",
    "Histogram",
    "OutputDistribution",
    "OutputScores",
    "QuantizerDistribution",
    "RankedSamples",
    "TensorStatistics",
    "Walk",
    "accumulate",
    "as_float",
    "by_node",
    "channel_axis",
    "channel_ranges_of",
    "channels_of",
    "distributions_of",
    "off",
    "only",
    "output_distributions_of",
    "output_scores",
    "rank_samples",
    "running_mean",
    "statistics_of",
    "unquantized",
]
