"""The INT8 grid of a weight, and values on it that a plain calibration finds again."""

from __future__ import annotations

import dataclasses

import numpy as np

from jptq.fitting.layers import Layer
from jptq.numerics.affine import affine
from jptq.numerics.fake_quant import on_grid
from jptq.numerics.qtypes import INT8


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """A weight as the quantizer sees it; arrays ``float64[G, K, M]``.

    Attributes:
      weight: What it is in float.
      scale: Width of a step, of each element.
      nearest: Integers by plain rounding, as the engine rounds.
      limit: Largest magnitude of an integer whose value does not widen the range of its channel.
      largest: Largest magnitude in the element's channel.
      fixed: Elements that stay: those that have it define the range, and those that are 0 say that
        two values have nothing to do with each other (a filter bank, a mask, pruned weights).
    """

    weight: np.ndarray
    scale: np.ndarray
    nearest: np.ndarray
    limit: np.ndarray
    largest: np.ndarray
    fixed: np.ndarray


def grid_of(layer: Layer, weight: np.ndarray, thresholds: np.ndarray) -> Grid:
    """Return the grid of a layer's weight.

    Args:
      layer: Its readers say how elements are arranged.
      weight: The initializer, float32.
      thresholds: Of its quantizer, of every channel or one for all.
    """
    axis = layer.calibration.axis if thresholds.size > 1 else None
    found = affine(thresholds, INT8)
    shape = [1] * weight.ndim
    if axis is not None:
        shape[axis] = -1
    # As a calibration looks for it, also where one threshold stands for all channels.
    largest = _largest(weight, layer.calibration.axis)
    integers = on_grid(weight, found, axis)
    limit = np.abs(on_grid(np.broadcast_to(largest, weight.shape), found, axis))

    def arranged(values: np.ndarray) -> np.ndarray:
        return layer.form.arranged(np.broadcast_to(values, weight.shape)).astype(np.float64)

    return Grid(
        weight=arranged(weight),
        scale=arranged(found.scale.reshape(shape)),
        nearest=arranged(integers),
        limit=arranged(np.maximum(np.minimum(limit, INT8.upper), np.abs(integers))),
        largest=arranged(largest),
        fixed=arranged((np.abs(weight) == largest) | (weight == 0)) > 0,
    )


def stored(layer: Layer, weight: np.ndarray, grid: Grid, integers: np.ndarray) -> np.ndarray:
    """Return the float32 weight whose integers these are.

    Its range is the old one to the last bit: the largest elements stay what they were, and no
    product of integer and scale is let round beyond them. Zeros stay too.

    Args:
      layer: Says how elements are arranged.
      weight: The initializer.
      grid: Of it.
      integers: ``float64[G, K, M]``; those of `Grid.fixed` are the nearest.
    """
    values = integers.astype(np.float32) * grid.scale.astype(np.float32)
    inside = np.clip(values, -grid.largest, grid.largest).astype(np.float32)
    found = np.empty(weight.size, np.float32)
    place = layer.form.arranged(np.arange(weight.size).reshape(weight.shape))
    found[place] = np.where(grid.fixed, grid.weight.astype(np.float32), inside)
    return found.reshape(weight.shape)


def _largest(weight: np.ndarray, axis: int | None) -> np.ndarray:
    """Return the largest magnitude of each channel, to broadcast with the weight."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    return np.abs(weight).max(axis=others, keepdims=True, initial=0.0)
