"""Placed graphs with their thresholds, made in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from jptq import ir
from jptq.calibration.weights import weight_thresholds
from jptq.engine import Batching, Runner, lower
from jptq.fitting.layers import Layer, layers_of
from jptq.numerics.affine import clean_thresholds
from jptq.quant.calibrated import plan_of
from jptq.quant.placement import place
from jptq.targets import load_target
from jptq.tuning.calibrating import observer
from tests.graphs import Graph

Feeds = Mapping[str, np.ndarray]


def placed(graph: Graph, samples: Sequence[Feeds], *, batch: int = 8) -> Runner:
    """Return the runner of a graph with quantizers."""
    shapes = {name: value.shape for name, value in samples[0].items()}
    model = ir.optimize(ir.from_bytes(graph.proto().SerializeToString()), input_shapes=shapes)
    program = lower(model, samples[0])
    floats = {n for n, dtype in program.dtypes.items() if dtype == np.float32}
    target = load_target("nash-e")
    quantized = place(model, target, floats=floats)
    return Runner(
        quantized,
        samples[0],
        plan=plan_of(quantized, target),
        batching=Batching(samples=batch),
    )


def thresholds(runner: Runner, samples: Sequence[Feeds] = ()) -> dict[str, np.ndarray]:
    """Return the largest magnitudes: of each weight's channels, and of features over samples."""
    plan, found = runner.plan, weight_thresholds(runner.model)
    assert plan is not None
    for sample in samples:
        tensors = observer(runner)({name: value[None] for name, value in sample.items()})
        for one in plan.calibrations:
            if not one.constant:
                largest = np.abs(np.asarray(tensors[one.tensor])).max().reshape(1)
                found[one.name] = np.maximum(found.get(one.name, 0.0), largest)
    return {name: clean_thresholds(value, where=name) for name, value in found.items()}


def int8(runner: Runner) -> dict[str, str]:
    """Return the assignment that makes everything INT8."""
    assert runner.plan is not None
    return {one.name: "int8" for one in runner.plan.calibrations}


def layers(runner: Runner) -> tuple[Layer, ...]:
    """Return the layers, all of them INT8."""
    return layers_of(runner, int8(runner))


def images(count: int, shape: Sequence[int], seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Return samples of an input ``x`` whose channels vary together and are not centred."""
    rng = np.random.default_rng(seed)
    channels = shape[1] if len(shape) > 1 else 1
    mix = rng.standard_normal((channels, channels)) / channels**0.5
    found = []
    for _ in range(count):
        x = rng.standard_normal(shape)
        if len(shape) > 1:
            x = np.moveaxis(np.tensordot(mix, x, (1, 1)), 0, 1)
            x = x + rng.standard_normal((shape[0], channels, *(1,) * (len(shape) - 2)))
        found.append({"x": (x * rng.uniform(0.5, 1.5) + 0.7).astype(np.float32)})
    return found
