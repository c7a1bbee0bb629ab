"""The passes over the samples in which the statistics of every feature are gathered."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeAlias

import jax
import numpy as np
from jax import Array

from jptq.calibration import statistics
from jptq.calibration.method import Method
from jptq.calibration.statistics import Statistics
from jptq.data import SampleSet, batches
from jptq.numerics.affine import refuse_nan
from jptq.quant.plan import FEATURE, Calibration, Plan

Run: TypeAlias = Callable[[Mapping[str, np.ndarray]], Mapping[str, Array | np.ndarray]]
"""``{input: [S, *shape]} -> {tensor: [S, *shape]}``: float values of the observed tensors, axes in
ONNX's order behind the sample axis."""

BATCH = 8
"""Samples per run, as the vendor's (hmct-spec 2.2)."""


def observed(plan: Plan) -> tuple[Calibration, ...]:
    """Return the quantizers whose thresholds depend on samples."""
    return tuple(c for c in plan.calibrations if c.kind == FEATURE and not c.constant)


def collect(
    run: Run,
    plan: Plan,
    samples: SampleSet,
    methods: Sequence[Method],
    *,
    apart: Collection[str] = (),
    batch_size: int = BATCH,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Statistics]:
    """Return what the methods need to know of every feature.

    The samples are run twice if a method needs histograms, else once; memory does not grow with
    their number.

    Args:
      run: The float network.
      plan: Its quantizers.
      samples: At least one.
      methods: Those that will be asked for thresholds.
      apart: Quantizers whose channels (axis 1) are kept apart.
      batch_size: Samples per run; the result does not depend on it.
      progress: Called with the samples done and their number, over both passes.

    Returns:
      ``{calibration: statistics}``.

    Raises:
      DataError: A feature holds NaN.
    """
    wanted = observed(plan)
    bins = {m.num_bin: m.max_num_bin for m in sorted(methods, key=_max_num_bin) if m.counts}
    total, done = len(samples) * (2 if bins else 1), 0
    found = {calibration.name: statistics.init() for calibration in wanted}
    for feeds, real in batches(samples, batch_size):
        tensors = run(feeds)
        measured = {
            c.name: statistics.measure(_near(tensors[c.tensor]), 1 if c.name in apart else None)
            for c in wanted
        }
        for name, batch in jax.device_get(measured).items():
            found[name] = statistics.update(found[name], batch)
        done += real
        if progress is not None:
            progress(done, total)
    for name, known in found.items():
        refuse_nan(np.asarray(known.largest), where=name)
    if not bins:
        return found
    histograms = {
        name: {few: statistics.empty_histogram(known, few, many) for few, many in bins.items()}
        for name, known in found.items()
    }
    for feeds, real in batches(samples, batch_size):
        tensors = run(feeds)
        counted = {
            (c.name, few): statistics.count(_near(tensors[c.tensor]), before, real)
            for c in wanted
            for few, before in histograms[c.name].items()
        }
        for (name, few), batch in jax.device_get(counted).items():
            histograms[name][few] = statistics.update_histogram(histograms[name][few], batch)
        done += real
        if progress is not None:
            progress(done, total)
    return {
        name: dataclasses.replace(known, histograms=histograms[name])
        for name, known in found.items()
    }


def _near(x: Array | np.ndarray) -> Array | np.ndarray:
    """Return a tensor where its statistics are cheapest: on the host only if it lies there.

    A program per shape would take longer to compile than NumPy takes to count.
    """
    on_host = isinstance(x, np.ndarray) or all(d.platform == "cpu" for d in x.devices())
    return np.asarray(x) if on_host else x


def channelwise(plan: Plan) -> frozenset[str]:
    """Return the features that may have a threshold per channel (axis 1)."""
    return frozenset(c.name for c in observed(plan) if c.channels > 1)


def _max_num_bin(method: Method) -> int:
    return method.max_num_bin
