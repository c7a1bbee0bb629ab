"""Fitted weights, as a plain calibration finds them again."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jptq.calibration.weights import weight_thresholds
from jptq.fitting.grid import Grid, grid_of, stored
from jptq.numerics.affine import affine
from jptq.numerics.fake_quant import on_grid
from jptq.numerics.qtypes import INT8
from tests.fitting.networks import images, layers, placed, thresholds
from tests.graphs import Graph

WEIGHTS = {
    "convolution": ("Conv", (1, 6, 5, 5), (8, 6, 3, 3), {}),
    "depthwise": ("Conv", (1, 6, 5, 5), (6, 1, 3, 3), {"group": 6}),
    "transposed": ("ConvTranspose", (1, 6, 5, 5), (6, 4, 2, 2), {"group": 2}),
    "product": ("MatMul", (1, 3, 6), (6, 50), {}),
    "products": ("MatMul", (2, 3, 6), (2, 6, 5), {}),
}


def _awkward(shape: tuple[int, ...], axis: int, seed: int) -> np.ndarray:
    """Return a weight with channels of very different sizes, some dead, some without a range."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal(shape)
    sizes = 10.0 ** rng.uniform(-20, 20, shape[axis])
    sizes[:4] = (0.0, 1e-42, 1e-36, 3e38 / 5)[: len(sizes[:4])]
    along = [1] * len(shape)
    along[axis] = -1
    return (np.clip(weight, -5, 5) * sizes.reshape(along)).astype(np.float32)


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("awkward", [False, True])
def test_any_integers_come_back_bit_for_bit_from_a_plain_calibration(
    name: str, awkward: bool
) -> None:
    op, x, shape, attributes = WEIGHTS[name]
    g = Graph(seed=len(name))
    g.output(g.add(op, g.input("x", x), g.random(*shape, name="w"), **attributes))
    runner = placed(g, images(1, x))
    (layer,) = layers(runner)
    axis = layer.calibration.axis
    assert axis is not None
    for seed in range(20):
        rng = np.random.default_rng(seed)
        weight = runner.model.initializers[layer.weight]
        weight = (rng.standard_normal(weight.shape) * 10.0 ** rng.uniform(-3, 3)).astype(np.float32)
        if awkward:
            weight = _awkward(weight.shape, axis, seed)
        held = {**runner.model.initializers, layer.weight: weight}
        model = dataclasses.replace(runner.model, initializers=held)
        before = thresholds(_Holding(runner, model))[layer.calibration.name]
        grid = grid_of(layer, weight, before)
        wild = rng.integers(-127, 128, grid.weight.shape).astype(np.float64)
        chosen = np.clip(wild, -grid.limit, grid.limit)
        chosen = np.where(grid.fixed, grid.nearest, chosen)
        found = stored(layer, weight, grid, chosen)
        assert found.dtype == np.float32
        assert found.shape == weight.shape
        again = dataclasses.replace(model, initializers={**held, layer.weight: found})
        np.testing.assert_array_equal(
            weight_thresholds(again)[layer.calibration.name],
            weight_thresholds(model)[layer.calibration.name],
        )
        after = thresholds(_Holding(runner, again))[layer.calibration.name]
        np.testing.assert_array_equal(affine(after, INT8).scale, affine(before, INT8).scale)
        integers = on_grid(found, affine(after, INT8), axis)
        np.testing.assert_array_equal(layer.form.arranged(integers), chosen)
        largest = np.abs(weight) == np.abs(weight).max(
            axis=tuple(i for i in range(weight.ndim) if i != axis), keepdims=True
        )
        np.testing.assert_array_equal(found[largest], weight[largest])


def test_what_is_zero_stays_zero() -> None:
    """A filter bank adds up powers: a logarithm behind it has no number for less than nothing."""
    g = Graph(seed=3)
    bank = np.maximum(0.0, 1.0 - np.abs(np.arange(32)[:, None] - 4.0 * np.arange(8)) / 4.0)
    power = g.add("Mul", g.input("x", (1, 6, 32)), g.constant(np.float32(1.0)))
    g.output(g.add("MatMul", power, g.constant(bank.astype(np.float32), name="bank")))
    rng = np.random.default_rng(0)
    samples = [
        {"x": (rng.standard_normal((1, 6, 1)) + 0.1 * rng.standard_normal((1, 6, 32))) ** 2}
        for _ in range(12)
    ]
    runner = placed(g, [{"x": one["x"].astype(np.float32)} for one in samples])
    (layer,) = layers(runner)
    weight = runner.model.initializers[layer.weight]
    grid = grid_of(layer, weight, thresholds(runner)[layer.calibration.name])
    wild = rng.integers(-127, 128, grid.weight.shape).astype(np.float64)
    found = stored(layer, weight, grid, np.where(grid.fixed, grid.nearest, wild))
    assert (weight == 0).sum() > 150
    np.testing.assert_array_equal(found[weight == 0], 0.0)


class _Holding:
    """A runner's plan with another model."""

    def __init__(self, runner: object, model: object) -> None:
        self.plan, self.model = runner.plan, model  # type: ignore[attr-defined]


def test_the_nearest_integers_are_those_of_the_engine() -> None:
    g = Graph(seed=2)
    g.output(g.conv(g.input("x", (1, 3, 5, 5)), 3, 4, 3))
    runner = placed(g, images(1, (1, 3, 5, 5)))
    (layer,) = layers(runner)
    weight = runner.model.initializers[layer.weight]
    found: Grid = grid_of(layer, weight, thresholds(runner)[layer.calibration.name])
    scale = np.abs(weight).max(axis=(1, 2, 3), keepdims=True) / np.float32(127)
    want = np.clip(np.rint(weight / scale), -128, 127)
    np.testing.assert_array_equal(found.nearest, layer.form.arranged(want))
    assert (np.abs(found.nearest[found.fixed]) == 127).all()
    assert found.fixed.sum() == 4
