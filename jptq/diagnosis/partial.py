"""Networks with ever fewer quantizers, and what the outputs gain: a score per table and output."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jptq.diagnosis.walk import as_float
from jptq.engine.runner import Runner, SampleSet
from jptq.metrics import similarity
from jptq.quant.assign import Assignment, Table
from jptq.registry import lookup

Progress = Callable[[int, int], None]
"""``progress(done, total)``."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class OutputScores:
    """A metric at the graph outputs.

    Attributes:
      labels: T tables.
      outputs: O graph outputs; those of whole numbers are left out if there are others.
      metric: Its name.
      scores: ``float64[T, O]``, mean over the samples.
      per_sample: ``float64[T, S]``, mean over the outputs.
    """

    labels: tuple[str, ...]
    outputs: tuple[str, ...]
    metric: str
    scores: np.ndarray
    per_sample: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """``float64[T]``: mean over the outputs (hmct-spec 2.5)."""
        return similarity.mean(self.scores, 1)


def unquantized(
    assignment: Assignment, steps: Mapping[str, Sequence[str]], qtype: str = "float32"
) -> dict[str, Assignment]:
    """Return assignments that take one group of quantizers after another away.

    Args:
      assignment: What to start from.
      steps: ``{label: calibrations}`` in the order of their turn.
      qtype: What they get; ``float32`` passes the tensor.

    Returns:
      ``{"none": the start, label: it and all before it are taken away}``.
    """
    current = dict(assignment)
    found: dict[str, Assignment] = {NONE: dict(current)}
    for label, calibrations in steps.items():
        current.update(dict.fromkeys(calibrations, qtype))
        found[label] = dict(current)
    return found


NONE = "none"
"""Label of the network before anything is taken away."""


def output_scores(
    runner: Runner,
    tables: Mapping[str, Table],
    samples: SampleSet,
    *,
    metric: str = "cosine-similarity",
    progress: Progress = lambda done, total: None,
) -> OutputScores:
    """Compare the outputs under each table with the float network's.

    Args:
      runner: Of a calibrated graph; one program serves all tables.
      tables: ``{label: table}``, at least one.
      samples: To run.
      metric: Key of `similarity.METRICS`.
      progress: Called after every table and batch.

    Raises:
      UnknownNameError: The metric does not exist.
    """
    lookup(similarity.METRICS, metric, "metric")
    program = runner.program
    floats = [n for n in program.outputs if np.issubdtype(program.dtypes[n], np.floating)]
    outputs = tuple(floats or program.outputs)
    reference = as_float(runner, next(iter(tables.values())))
    values = np.full((len(tables), len(samples), len(outputs)), np.nan)
    start = done = 0
    batches = -(-len(samples) // runner.batch)
    for feeds, count in runner.batches(samples):
        wanted = runner.run(reference, feeds)
        for row, table in enumerate(tables.values()):
            # Weights are packed again for every batch: those of all tables would not fit.
            found = runner.run(runner.pack(table), feeds)
            for column, name in enumerate(outputs):
                moments = np.asarray(similarity.compare(wanted[name], found[name]))[:count]
                scores = similarity.evaluate((metric,), moments, math.prod(program.shapes[name]))
                values[row, start : start + count, column] = scores[:, 0]
            done += 1
            progress(done, len(tables) * batches)
        start += count
    return OutputScores(
        labels=tuple(tables),
        outputs=outputs,
        metric=metric,
        scores=similarity.mean(values, 1),
        per_sample=similarity.mean(values, 2),
    )
