"""Thresholds to scales: the one place that knows the formula.

A symmetric quantizer holds one threshold T per tensor or channel; an asymmetric one holds the pair
[min, max] of the tensor. Source: hmct-spec 2.1.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jptq.errors import DataError
from jptq.numerics.qtypes import QType


@dataclasses.dataclass(frozen=True, kw_only=True)
class Affine:
    """``x ~ (q - offset) * scale`` with q in [lower, upper].

    Attributes:
      scale: ``float32[C]``, in the tensor's unit.
      offset: ``float32[C]``, integers.
      lower: Least integer.
      upper: Largest integer.
    """

    scale: np.ndarray
    offset: np.ndarray
    lower: int
    upper: int


def affine(thresholds: np.ndarray, qtype: QType, *, asymmetric: bool = False) -> Affine:
    """Return the grid that thresholds and a type define.

    Args:
      thresholds: ``float32[C]``; ``[min, max]`` if asymmetric.
      qtype: The grid's type. Types finer than 8 bits stay symmetric, as on the device.
      asymmetric: Whether ``thresholds`` is a range instead of absolute maxima.

    Returns:
      Scale and offset of every channel; scale 1 for types without a grid.
    """
    if not qtype.quantizes:
        channels = 1 if asymmetric else thresholds.size
        return Affine(
            scale=np.ones(channels, np.float32),
            offset=np.zeros(channels, np.float32),
            lower=0,
            upper=0,
        )
    if asymmetric and qtype.bits == 8:
        # In float64: the width of a range of float32 numbers may not be one.
        low, high = min(float(thresholds[0]), 0.0), max(float(thresholds[1]), 0.0)
        tiny = float(np.finfo(np.float32).tiny)
        step = np.float32(max((high - low) / (qtype.upper - qtype.lower), tiny))
        zero = qtype.upper - np.round(high / float(step))
        return Affine(
            scale=np.asarray([step], np.float32),
            offset=np.clip(np.asarray([zero], np.float32), qtype.lower, qtype.upper),
            lower=qtype.lower,
            upper=qtype.upper,
        )
    if asymmetric:
        thresholds = np.asarray([np.max(np.abs(thresholds))], np.float32)
    scale = thresholds.astype(np.float32) / np.float32(qtype.upper)
    return Affine(scale=scale, offset=np.zeros_like(scale), lower=qtype.lower, upper=qtype.upper)


def clean_thresholds(thresholds: np.ndarray, *, where: str) -> np.ndarray:
    """Return usable symmetric thresholds: infinite ones become the largest float, empty ranges 1.

    Raises:
      DataError: A threshold is NaN.
    """
    refuse_nan(thresholds, where=where)
    out = np.minimum(np.abs(thresholds).astype(np.float32), np.finfo(np.float32).max)
    # A scale below the smallest normal number would be flushed to zero on some devices.
    smallest = np.float32(np.finfo(np.float32).tiny * 32768.0)
    return np.where(out < smallest, np.float32(1.0), out)


def refuse_nan(thresholds: np.ndarray, *, where: str) -> None:
    """Refuse thresholds that say nothing.

    Raises:
      DataError: A threshold is NaN.
    """
    if np.isnan(thresholds).any():
        raise DataError(
            "a threshold is NaN",
            where=where,
            why="the tensor holds NaN, in the file or for a calibration sample",
            hint="run the float model over the samples in onnxruntime: it has to give numbers",
        )
