"""Distances between float and quantized outputs, one function each."""

from jptq.metrics.similarity import METRICS, Metric, Moments, evaluate, moments

__all__ = ["METRICS", "Metric", "Moments", "evaluate", "moments"]
