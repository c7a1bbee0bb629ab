"""The passes over the samples in which the statistics of every feature are gathered."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jptq.calibration import statistics
from jptq.calibration.method import Method
from jptq.calibration.statistics import Statistics
from jptq.data import Samples, batches
from jptq.ir.model import Model, Node
from jptq.quant.plan import FEATURE, Calibration, Plan
from jptq.quant.structure import Structure, structure_of

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
    samples: Samples,
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
    """
    wanted = observed(plan)
    bins = {m.num_bin: m.max_num_bin for m in sorted(methods, key=_max_num_bin) if m.counts}
    total, done = len(samples) * (2 if bins else 1), 0
    found = {calibration.name: statistics.init() for calibration in wanted}
    for feeds, real in batches(samples, batch_size):
        tensors = run(feeds)
        measured = {
            c.name: statistics.measure(
                jnp.asarray(tensors[c.tensor]), 1 if c.name in apart else None
            )
            for c in wanted
        }
        for name, batch in jax.device_get(measured).items():
            found[name] = statistics.update(found[name], batch)
        done += real
        if progress is not None:
            progress(done, total)
    if not bins:
        return found
    histograms = {
        name: {few: statistics.empty_histogram(known, few, many) for few, many in bins.items()}
        for name, known in found.items()
    }
    for feeds, real in batches(samples, batch_size):
        tensors = run(feeds)
        counted = {
            (c.name, few): statistics.count(jnp.asarray(tensors[c.tensor]), before, real)
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


def channelwise(model: Model, plan: Plan) -> frozenset[str]:
    """Return the features that may have a threshold per channel (axis 1).

    The scales of a feature's channels can be folded into a weight if that is all they meet: every
    reader is a convolution with one group or a depthwise one (hmct-spec 2.2).
    """
    structure = structure_of(model)
    return frozenset(
        calibration.name
        for calibration in observed(plan)
        if calibration.output not in model.output_names
        and model.consumers.get(calibration.output)
        and all(
            index == 0 and _absorbs(structure, reader)
            for reader, index in model.consumers[calibration.output]
        )
    )


def _absorbs(structure: Structure, node: Node) -> bool:
    if node.is_calibration:
        return False
    # Output channels first, then input channels, behind them the taps: a convolution's kernel.
    if structure.traits(node).weights.get(1) != 0:
        return False
    quantizer = structure.calibration(node, 1)
    name = node.inputs[1] if quantizer is None else quantizer.inputs[0]
    kernel = structure.model.initializers.get(name)
    if kernel is None:
        return False
    group = node.attributes.get("group", 1)
    return group == 1 or (group == kernel.shape[0] and kernel.shape[1] == 1)


def _max_num_bin(method: Method) -> int:
    return method.max_num_bin
