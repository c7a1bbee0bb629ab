"""A small calibrated network with the node names of the tuning chapter, and its oracle."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jptq import ir
from jptq.engine import lower
from jptq.ir.model import Model
from jptq.quant.assign import uniform
from jptq.quant.calibrated import plan_of, with_assignment, with_thresholds
from jptq.quant.compensate import compensate
from jptq.quant.export import to_qdq
from jptq.quant.placement import place
from tests.agreements import ORACLES, max_thresholds, run
from tests.graphs import Graph
from tests.quant.networks import TARGET, float_model

SAMPLES = 3
DET, SEG = "Concat_1003", "Conv_404"
"""The nodes of the two outputs."""

Feeds = dict[str, np.ndarray]


def graph() -> Graph:
    """Return a detector: space to depth, a trunk, a head in pixels and a head of its own."""
    g = Graph(seed=5)
    x = g.input("images", (1, 3, 16, 16))

    def rows(first: int, name: str) -> str:
        lists = (g.constant([value]) for value in (first, 16, 2, 2))
        return g.add("Slice", x, *lists, name=name)

    joined = g.add("Concat", rows(0, "Slice_4"), rows(1, "Slice_9"), axis=1, name="Concat_40")
    trunk = g.swish(g.conv(joined, 6, 8, name="Conv_41"), name="/encoder/_swish/Mul")
    pooled = g.add("GlobalAveragePool", trunk, name="/encoder/_blocks.0/GlobalAveragePool")
    trunk = g.add("Mul", trunk, g.add("Sigmoid", pooled), name="/encoder/_blocks.0/Mul")
    trunk = g.batch_norm(trunk, 8, name="BatchNormalization_141")
    head = g.conv(trunk, 8, 4, 1, name="Conv_559")
    boxes = g.add("Mul", g.add("Sigmoid", head), g.constant(64.0), name="Mul_943")
    near = g.add("Concat", boxes, g.conv(head, 4, 2, 1, name="Conv_707"), axis=1, name=DET)
    g.output(near, g.conv(trunk, 8, 3, name=SEG))
    return g


def samples(count: int = SAMPLES) -> list[Feeds]:
    """Return images."""
    rng = np.random.default_rng(1)
    return [
        {"images": rng.standard_normal((1, 3, 16, 16)).astype(np.float32)} for _ in range(count)
    ]


@functools.cache
def calibrated(qtype: str = "int8", *compensated: str) -> Model:
    """Return the optimized network with one type wherever the target accepts it.

    Args:
      qtype: The type.
      compensated: Nodes whose weight gets a second operator.
    """
    floating = ir.optimize(float_model(graph()), input_shapes={})
    floating = compensate(floating, dict.fromkeys(compensated, 1), TARGET)
    dtypes = lower(floating, samples(1)[0]).dtypes
    floats = {name for name, dtype in dtypes.items() if dtype == np.float32}
    model = place(floating, TARGET, floats=floats)
    model = with_thresholds(model, max_thresholds(model, plan_of(model, TARGET), samples()))
    return with_assignment(model, uniform(plan_of(model, TARGET), qtype))


def save(folder: Path, *names: str, model: Model | None = None) -> None:
    """Write ``calibration_data/images/NN.npy`` and the model under each name."""
    data = folder / "calibration_data" / "images"
    data.mkdir(parents=True, exist_ok=True)
    for index, feeds in enumerate(samples()):
        np.save(data / f"{index:02}.npy", feeds["images"])
    for name in names:
        ir.save(model or calibrated(), folder / name)


def by_onnxruntime(
    model: Model, members: Sequence[str], outputs: Sequence[str], feeds: Sequence[Feeds]
) -> dict[str, float]:
    """Return ``{metric: score}`` of an export in which only some quantizers are left."""
    part = ir.extract(model, outputs)
    off = {node.name: "float32" for node in part.nodes if node.is_calibration}
    types = {n.name: str(n.attributes["qtype"]) for n in part.nodes if n.name in set(members)}
    floating, quantized = (to_qdq(with_assignment(part, {**off, **on})) for on in ({}, types))
    pairs = list(zip(run(floating, feeds), run(quantized, feeds), strict=True))
    return {
        name: float(np.mean([np.mean([of(f[n], q[n]) for f, q in pairs]) for n in outputs]))
        for name, of in ORACLES.items()
    }
