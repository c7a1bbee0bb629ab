"""How an error grows along the graph: a metric at every node's output against float."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jax import Array

from jptq.diagnosis.walk import Walk, as_float
from jptq.engine.runner import Runner, SampleSet
from jptq.metrics import similarity
from jptq.quant.assign import Table
from jptq.registry import lookup


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Accumulated:
    """Metrics at N node outputs.

    Attributes:
      nodes: Operators in graph order; one with several float outputs stands here as often.
      tensors: Its output.
      metrics: M names.
      curves: ``{label: float64[N, M]}``, mean over the samples.
      samples: How many.
    """

    nodes: tuple[str, ...]
    tensors: tuple[str, ...]
    metrics: tuple[str, ...]
    curves: Mapping[str, np.ndarray]
    samples: int

    def curve(self, label: str, metric: str | None = None) -> np.ndarray:
        """Return ``float64[N]``: one metric, the first if None, of one table."""
        column = 0 if metric is None else self.metrics.index(metric)
        found: np.ndarray = self.curves[label][:, column]
        return found


def accumulate(
    runner: Runner,
    tables: Mapping[str, Table],
    samples: SampleSet,
    *,
    metrics: Sequence[str] = ("cosine-similarity",),
) -> Accumulated:
    """Compare every node's output under each table with its float value.

    Args:
      runner: Of a calibrated graph.
      tables: ``{label: table}``; quantizers whose gate is 0 pass their tensor.
      samples: To run; metrics are taken per sample, then averaged.
      metrics: Keys of `similarity.METRICS`; ``channel-nsr`` takes a tensor as one channel.

    Raises:
      UnknownNameError: A metric does not exist.
    """
    for name in metrics:
        lookup(similarity.METRICS, name, "metric")
    walk = Walk.of(runner)
    packed = [runner.pack(table) for table in tables.values()]
    first = next(iter(tables.values()))
    reference = as_float(runner, first)
    found: list[dict[str, list[np.ndarray]]] = [{} for _ in packed]
    for feeds, count in runner.batches(samples, walk.batch(len(packed) + 1)):
        floats: dict[str, Array] = {}
        for index, values in walk([reference, *packed], feeds):
            if index == 0:
                floats = values
                continue
            for name, sums in _compared(floats, values).items():
                found[index - 1].setdefault(name, []).append(sums[:count])
    return Accumulated(
        nodes=walk.nodes,
        tensors=walk.tensors,
        metrics=tuple(metrics),
        curves={
            label: _evaluated(sums, walk.tensors, runner, metrics)
            for label, sums in zip(tables, found, strict=True)
        },
        samples=len(samples),
    )


def running_mean(values: np.ndarray) -> np.ndarray:
    """Return the mean of each value with all before it.

    >>> running_mean(np.asarray([1.0, 0.9, 0.9, 0.8])).round(3).tolist()
    [1.0, 0.95, 0.933, 0.9]
    """
    return np.asarray(np.cumsum(values) / np.arange(1, len(values) + 1))


_LEAST = 1 << 12


def _compared(a: Mapping[str, Array], b: Mapping[str, Array]) -> dict[str, np.ndarray]:
    """Return the moments of tensors ``[S, *shape]``, a row per sample.

    Tensors are compared as vectors, filled up with zeros, which no sum sees: a network has a
    hundred shapes but few powers of two, and every size is a compilation and a call.
    """
    groups: dict[int, list[str]] = {}
    for name, value in a.items():
        size = math.prod(value.shape[1:])
        groups.setdefault(max(_LEAST, 1 << max(size - 1, 0).bit_length()), []).append(name)
    found: dict[str, np.ndarray] = {}
    for full, names in groups.items():
        samples = len(a[names[0]])
        pair = np.zeros((2, len(names), samples, 1, full), np.float32)
        for row, name in enumerate(names):
            for side, values in zip(pair, (a, b), strict=True):
                flat = np.asarray(values[name]).reshape(samples, -1)
                side[row, :, 0, : flat.shape[1]] = flat
        sums = similarity.compare(pair[0], pair[1], axes=2)
        found.update(zip(names, np.asarray(sums), strict=True))
    return found


def _evaluated(
    sums: Mapping[str, Sequence[np.ndarray]],
    tensors: Sequence[str],
    runner: Runner,
    metrics: Sequence[str],
) -> np.ndarray:
    """Return ``float64[N, M]``: metrics per sample, their mean (`similarity.mean`)."""
    rows = np.full((len(tensors), len(metrics)), np.nan)
    for row, name in enumerate(tensors):
        size = math.prod(runner.program.shapes[name])
        values = similarity.evaluate(metrics, np.concatenate(sums[name]), size)
        rows[row] = similarity.mean(values)
    return rows
