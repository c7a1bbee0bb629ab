"""Networks whose accuracy problem is of a known type by construction, and scores for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx

from jptq.tuning import Evaluator, Prepared, prepare
from jptq.user_code import UserFunction
from tests.graphs import Graph
from tests.oracles import run_onnx
from tests.tuning.networks import CONFIG

STRIDE = 64.0
SIZE = (1, 4, 8, 8)


def loud_conv(g: Graph, x: str, channels: int, factor: float, name: str) -> str:
    """Convolve what has one large channel that is not used: it eats the INT8 grid."""
    scale = np.ones((channels, 1, 1), np.float32)
    scale[1] = factor
    x = g.add("Mul", x, g.constant(scale), name=f"{name}_loud")
    y = g.conv(x, channels, channels, 3, name=name)
    weight = next(n for n in g.nodes if n.name == name).input[1]
    g.constants[weight][:, 1] = 0.0
    return g.add("Relu", y, name=f"{name}_relu")


def outlier() -> onnx.ModelProto:
    """Type 1: one place in a chain of ten loses the INT8 grid to a large channel."""
    g = Graph(seed=3)
    x = g.add("Relu", g.conv(g.input("x", SIZE), 4, 8, name="stem"))
    x = loud_conv(g, x, 8, 300.0, "outlier")
    for i in range(8):
        x = g.add("Relu", g.conv(x, 8, 8, name=f"body_{i}"))
    g.output(g.conv(x, 8, 3, 1, name="head"))
    return g.proto()


def detector() -> onnx.ModelProto:
    """Type 2: one output joins boxes in pixels with probabilities.

    The Concat puts both on one grid and the probabilities are lost on it; for the cosine they
    weigh nothing, and every node that moves pixels ranks before.
    """
    g = Graph(seed=5)
    x = g.add("Relu", g.conv(g.input("x", SIZE), 4, 8, name="stem"), name="stem_relu")
    for i in range(3):
        x = g.add("Relu", g.conv(x, 8, 8, name=f"body_{i}"), name=f"body_{i}_relu")
    joined = []
    for side in "ab":
        box = x
        for i in range(3):
            box = loud_conv(g, box, 8, 12.0, f"box_{side}{i}")
        box = g.add("Sigmoid", g.conv(box, 8, 4, 1, name=f"box_{side}"), name=f"unit_{side}")
        box = g.add("Mul", box, g.constant(STRIDE), name=f"pixels_{side}")
        grid = g.constant(np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8) * 8)
        box = g.add("Add", box, grid, name=f"place_{side}")
        score = g.add("Relu", g.conv(x, 8, 8, 3, name=f"feature_{side}"))
        score = g.add("Sigmoid", g.conv(score, 8, 2, 1, name=f"score_{side}"), name=f"p_{side}")
        both = g.add("Concat", box, score, axis=1, name=f"cat_{side}")
        joined.append(g.add("Reshape", both, g.constant([1, 6, 64]), name=f"flat_{side}"))
    g.output(g.add("Concat", *joined, axis=2, name="joined"))
    return g.proto()


def coarse_weight() -> onnx.ModelProto:
    """Type 3: a weight whose large column meets a silent channel; INT8 keeps only that column."""
    g = Graph(seed=7)
    x = g.add("Relu", g.conv(g.input("x", SIZE), 4, 8, name="stem"))
    quiet = np.ones((8, 1, 1), np.float32)
    quiet[2] = 1e-3
    x = g.add("Mul", x, g.constant(quiet), name="quiet")
    x = g.conv(x, 8, 8, 1, name="coarse")
    weight = next(n for n in g.nodes if n.name == "coarse").input[1]
    g.constants[weight][:, 2] = 200.0
    g.output(g.conv(g.add("Relu", x), 8, 3, 1, name="head"))
    return g.proto()


def coarse_resize() -> onnx.ModelProto:
    """Type 3: one loud channel takes the INT8 grid of what is enlarged, which has no other."""
    g = Graph(seed=5)
    x = g.add("Relu", g.conv(g.input("x", SIZE), 4, 8, name="stem"))
    loud = np.ones((8, 1, 1), np.float32)
    loud[2] = 300.0
    x = g.add("Mul", x, g.constant(loud), name="loud")
    scales = g.constant(np.array([1, 1, 2, 2], np.float32))
    x = g.add("Resize", x, "", scales, name="enlarge", mode="nearest")
    x = g.conv(x, 8, 8, name="outlier")
    weight = next(n for n in g.nodes if n.name == "outlier").input[1]
    g.constants[weight][:, 2] /= np.float32(300.0)
    g.output(g.conv(g.add("Relu", x), 8, 3, 1, name="head"))
    return g.proto()


def two_tasks() -> onnx.ModelProto:
    """Two outputs behind one stem; only what leads to the first one loses the INT8 grid."""
    g = Graph(seed=9)
    stem = g.add("Relu", g.conv(g.input("x", SIZE), 4, 8, name="stem"))
    bad = loud_conv(g, stem, 8, 400.0, "outlier")
    good = g.add("Relu", g.conv(stem, 8, 8, name="plain"))
    g.output(g.conv(bad, 8, 3, 1, name="detect"), g.conv(good, 8, 3, 1, name="segment"))
    return g.proto()


CALIBRATION = 4
"""Samples of a network. Evaluators feed as many at a time: one program serves both."""


def images(count: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(SIZE).astype(np.float32) for _ in range(count)]


def ready(model: onnx.ModelProto, folder: Path, config: Mapping[str, object] = CONFIG) -> Prepared:
    """Write a network with calibration samples, and calibrate it."""
    onnx.save(model, folder / "model.onnx")
    (folder / "data" / "x").mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images(CALIBRATION, seed=0)):
        np.save(folder / "data" / "x" / f"{i}.npy", image)
    return prepare(folder / "model.onnx", folder / "data", march="nash-e", quant_config=config)


def by_batches(
    forward: Callable[..., dict[str, np.ndarray]], samples: list[np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the outputs ``[S, *shape]`` of samples."""
    starts = range(0, len(samples), CALIBRATION)
    found = [forward({"x": np.concatenate(samples[i : i + CALIBRATION])}) for i in starts]
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def near(model: onnx.ModelProto) -> Evaluator:
    """Score ``1 - relative error`` of each output, named after the node that writes it."""
    held_out = images(2 * CALIBRATION, seed=1)
    names = {node.output[0]: node.name for node in model.graph.node}
    references = [run_onnx(model, {"x": x}) for x in held_out]

    def evaluate(forward: Callable[..., dict[str, np.ndarray]]) -> dict[str, float]:
        found = by_batches(forward, held_out)
        scores = {}
        for output, name in ((o.name, names[o.name]) for o in model.graph.output):
            a = np.concatenate([r[output] for r in references])
            b = found[output]
            scores[name] = float(1 - np.sqrt(np.mean((a - b) ** 2) / np.mean(a**2)))
        return scores

    return Evaluator(UserFunction(call=evaluate, where="test"))


def detections(model: onnx.ModelProto) -> Evaluator:
    """Score the detector: the share of places with the right probabilities and boxes."""
    held_out = images(2 * CALIBRATION, seed=1)
    references = [next(iter(run_onnx(model, {"x": x}).values())) for x in held_out]

    def evaluate(forward: Callable[..., dict[str, np.ndarray]]) -> float:
        (found,) = by_batches(forward, held_out).values()
        error = np.abs(found - np.concatenate(references))
        hits = (error[:, :4].max(1) < 4.0) & (error[:, 4:].max(1) < 0.05)
        return float(np.mean(hits))

    return Evaluator(UserFunction(call=evaluate, where="test"))
