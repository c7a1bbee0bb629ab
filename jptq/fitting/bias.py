"""Biases in closed form, and what a layer's output loses with and without them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jptq.fitting.capture import Moments
from jptq.fitting.layers import Layer


def shifts(layer: Layer, d: np.ndarray, fit: Moments) -> list[np.ndarray]:
    """Return what a bias has to add to each output to make up for the mean error.

    Args:
      layer: A layer.
      d: What quantization adds to the weight, ``float64[G, K, M]``.
      fit: Sums over the rows that the mean is of.

    Returns:
      ``float64[G, M]`` of each reader; zero where it has no bias.
    """
    return [
        -np.einsum("gk,gkm->gm", mean, d) if reader.bias else np.zeros((len(d), d.shape[2]))
        for reader, mean in zip(layer.readers, fit.mean, strict=True)
    ]


def error(d: np.ndarray, added: list[np.ndarray], seen: Moments) -> float:
    """Return the sum of squared errors of a layer's output.

    Args:
      d: What quantization adds to the weight, ``float64[G, K, M]``.
      added: What biases add, of each reader.
      seen: Sums over the rows that it is of.
    """
    found = float(np.sum(d * (seen.scatter @ d)))
    for count, mean, shift in zip(seen.count, seen.mean, added, strict=True):
        found += count * float(np.sum((np.einsum("gk,gkm->gm", mean, d) + shift) ** 2))
    return max(found, 0.0)


def hessian(layer: Layer, fit: Moments) -> np.ndarray:
    """Return the Hessian of the error that a layer's biases leave: ``float64[G, K, K]``.

    A bias takes up what the mean of the rows makes of a rounding; where there is none, that counts.
    """
    found = fit.scatter
    for reader, count, mean in zip(layer.readers, fit.count, fit.mean, strict=True):
        if not reader.bias:
            found = found + count * mean[:, :, np.newaxis] * mean[:, np.newaxis, :]
    return found


def corrected(
    layer: Layer, shift: list[np.ndarray], constants: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the biases of a layer that add a shift.

    Args:
      layer: A layer.
      shift: Of each reader, ``float64[G, M]``.
      constants: Initializers that hold the biases.
    """
    found = {}
    for reader, one in zip(layer.readers, shift, strict=True):
        if reader.bias:
            old = constants[reader.bias]
            change = (one / reader.bias_factor).reshape(old.shape)
            found[reader.bias] = (old.astype(np.float64) + change).astype(np.float32)
    return found
