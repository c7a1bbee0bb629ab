"""A calibrated network with every operator that error compensation is about."""

from __future__ import annotations

import numpy as np

from jptq import ir
from jptq.calibration.weights import weight_thresholds
from jptq.ir.model import Model
from jptq.quant.assign import uniform
from jptq.quant.calibrated import plan_of, with_assignment, with_thresholds
from jptq.quant.placement import place
from tests.graphs import Graph
from tests.quant.networks import TARGET, float_model, floats_of

Feeds = dict[str, np.ndarray]

STEM = "ReduceMax_1317"
"""Tensor behind the first convolution, named as a tensor of the document is."""


def graph() -> Graph:
    """Return convolutions, Resize and GridSample in two modes each, and products of both kinds."""
    g = Graph(seed=3)
    x = g.input("x", (1, 4, 8, 8))
    grid = g.input("grid", (1, 8, 8, 2))
    stem = g.add("Relu", g.conv(x, 4, 4, name="Conv_0"), name="Relu_1")
    weight = g.random(4, 4, 2, 2, scale=0.3)
    large = g.add("ConvTranspose", stem, weight, name="ConvTranspose_2", strides=[2, 2])
    half = g.constant(np.array([1, 1, 0.5, 0.5], np.float32))
    small = g.add("Resize", large, "", half, mode="nearest", name="Resize_3")
    smooth = g.add("Resize", large, "", half, mode="linear", name="Resize_4")
    picked = g.add("GridSample", small, grid, mode="nearest", name="GridSample_5")
    mixed = g.add("GridSample", smooth, grid, name="GridSample_6")
    joined = g.add("Add", picked, mixed, name="Add_7")
    body = g.conv(joined, 4, 4, 1, name="Conv_8")
    flat = g.add("Reshape", body, g.constant([1, 4, 64]), name="Reshape_9")
    product = g.add("MatMul", flat, g.random(64, 16, scale=0.2), name="MatMul_10")
    turned = g.add("Transpose", product, perm=[0, 2, 1], name="Transpose_11")
    attention = g.add("MatMul", product, turned, name="MatMul_12")
    g.output(body, attention)
    return g


def small_graph() -> Graph:
    """Return two convolutions with two views of one tensor between them, on ``x`` [1, 4, 8, 8]."""
    g = Graph(seed=5)
    stem = g.add("Sigmoid", g.conv(g.input("x", (1, 4, 8, 8)), 4, 4, name="Conv_0"), name="act")
    pooled = g.add("MaxPool", stem, kernel_shape=[2, 2], strides=[2, 2], name="MaxPool_1")
    ends = [g.constant(v) for v in ([0, 0], [4, 4], [2, 3])]
    cut = g.add("Slice", stem, *ends, name="Slice_2")
    total = g.add("Add", g.add("Tanh", pooled, name="Tanh_3"), g.add("Exp", cut, name="Exp_4"))
    g.output(g.conv(total, 4, 4, 1, name="Conv_6"))
    return g


def feeds(count: int = 1, *, seed: int = 0) -> list[Feeds]:
    """Return samples."""
    rng = np.random.default_rng(seed)
    return [
        {
            "x": rng.standard_normal((1, 4, 8, 8)).astype(np.float32),
            "grid": rng.uniform(-1, 1, (1, 8, 8, 2)).astype(np.float32),
        }
        for _ in range(count)
    ]


def floating() -> Model:
    """Return the float network."""
    return ir.rename(float_model(graph()), {"Relu_1:0": STEM})


def small(qtype: str = "int8") -> Model:
    """Return the small network with one type wherever the target accepts it."""
    return _calibrated(float_model(small_graph()), qtype)


def calibrated(qtype: str = "int8") -> Model:
    """Return the network with one type wherever the target accepts it."""
    return _calibrated(floating(), qtype)


def _calibrated(plain: Model, qtype: str) -> Model:
    model = place(plain, TARGET, floats=floats_of(ir.to_proto(plain)))
    plan = plan_of(model, TARGET)
    ranges = {c.name: np.asarray([8.0], np.float32) for c in plan.calibrations if not c.constant}
    ranges |= {n: np.ones(1, np.float32) for n in ranges if n == "grid_HzCalibration"}
    model = with_thresholds(model, {**weight_thresholds(model), **ranges})
    return with_assignment(model, uniform(plan_of(model, TARGET), qtype))
