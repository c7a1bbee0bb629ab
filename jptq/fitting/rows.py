"""The rows that a matrix product multiplies by its weight: where each lies in the features.

Every product with a constant weight is ``y[g, r, m] = sum over k of rows[g, r, k] w[g, k, m]``: of
a convolution a row is what one position of the output sees, of a transposed one likewise, taps and
channels side by side. Which features those are is a table of positions, and the operator itself is
asked for it, so that pads, strides and dilations mean here what they mean there.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jptq.ir.model import Node
from jptq.ops import Op

_DIGIT = 4096
"""Positions are written with two digits of this base: float32 adds zeros to such exactly."""

Jit = Callable[..., Callable[..., Any]]
"""``jit(name, function)``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Form:
    """How an initializer becomes matrices.

    Attributes:
      groups: Of a convolution.
      taps: Of a kernel, whose axes they are the product of; 0 for a matrix.
      transposed: The kernel's first axis holds the input channels; the matrix has ``[M, K]``.
    """

    groups: int = 1
    taps: int = 0
    transposed: bool = False

    def arranged(self, values: np.ndarray) -> np.ndarray:
        """Return the elements of an initializer as ``[G, K, M]``."""
        if not self.taps:
            matrices = values.reshape(-1, 1) if values.ndim == 1 else values
            matrices = matrices.reshape(-1, *matrices.shape[-2:])
            return matrices.transpose(0, 2, 1) if self.transposed else matrices
        first, second = values.shape[:2]
        apart = values.reshape(self.groups, first // self.groups, second, self.taps)
        # Taps before channels: these lie side by side in memory.
        ordered = apart.transpose((0, 3, 1, 2) if self.transposed else (0, 3, 2, 1))
        return ordered.reshape(self.groups, -1, ordered.shape[3])


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """How features become rows.

    Attributes:
      tensor: The features.
      axis: Their axis of channels, which is brought to the end; S positions are left.
      table: ``int32[H, P, T]``: which position of the features is tap T of row P; S stands for a
        zero. H groups of rows, each with another weight (products of many matrices).
      form: How the weight is arranged to match.
    """

    tensor: str
    axis: int
    table: np.ndarray
    form: Form

    @property
    def count(self) -> int:
        """Rows of one sample."""
        return int(self.table.shape[1])


def of_convolution(
    node: Node,
    entry: Op,
    features: tuple[int, ...],
    kernel: tuple[int, ...],
    jit: Jit,
    known: dict[Any, np.ndarray],
) -> Rows:
    """Return the rows of a convolution, transposed or not.

    Args:
      node: The convolution.
      entry: Its operator.
      features: Shape, ``[N, C, *spatial]``.
      kernel: Shape, ``[M, C / G, *taps]``, transposed ``[C, M / G, *taps]``.
      jit: Compiles.
      known: Tables of convolutions of the same kind; they are added to.
    """
    given = {k: v for k, v in node.attributes.items() if k in entry.attributes}
    groups = given.pop("group", 1)
    assert isinstance(groups, int)
    transposed = entry.traits.weights[1] == 1
    key = (entry.name, features[2:], kernel[2:], repr(sorted(given.items())))
    if key not in known:
        known[key] = _taps(entry, given, features[2:], kernel[2:], jit, transposed=transposed)
    one, size = known[key], math.prod(features[2:])
    # Images of a batch that is one sample lie one behind the other.
    images = [np.where(one < size, one + n * size, features[0] * size) for n in range(features[0])]
    return Rows(
        tensor=node.inputs[0],
        axis=1,
        table=np.concatenate(images)[np.newaxis].astype(np.int32),
        form=Form(groups=groups, taps=math.prod(kernel[2:]), transposed=transposed),
    )


def of_product(node: Node, features: tuple[int, ...], weight: tuple[int, ...]) -> Rows:
    """Return the rows of a matrix product, of one matrix or of many.

    Args:
      node: MatMul or Gemm with a constant second operand.
      features: Shape of the first, ``[..., P, K]``.
      weight: Shape of the second, ``[..., K, M]`` or ``[K]``.
    """
    axis = 0 if node.attributes.get("transA", 0) else len(features) - 1
    lead = tuple(length for i, length in enumerate(features) if i != axis)
    table = np.arange(math.prod(lead)).reshape(1, -1, 1)
    if len(weight) > 2:
        # Which matrix each matrix of the features meets; a vector is a matrix of one row.
        rows = table.reshape(*lead[:-1], -1)
        batch = np.broadcast_shapes(rows.shape[:-1], weight[:-2])
        matrices = math.prod(weight[:-2])
        met = np.broadcast_to(np.arange(matrices).reshape(weight[:-2]), batch).reshape(-1)
        spread = np.broadcast_to(rows, (*batch, rows.shape[-1])).reshape(len(met), -1)
        table = np.stack([spread[met == g].reshape(-1, 1) for g in range(matrices)])
    return Rows(
        tensor=node.inputs[0],
        axis=axis,
        table=table.astype(np.int32),
        form=Form(transposed=bool(node.attributes.get("transB", 0))),
    )


def _taps(
    entry: Op,
    attributes: Mapping[str, Any],
    spatial: tuple[int, ...],
    kernel: tuple[int, ...],
    jit: Jit,
    *,
    transposed: bool,
) -> np.ndarray:
    """Return ``[P, T]``: the position that each tap of each output sees, their number for a pad.

    The operator convolves an image of positions with kernels of a single one.
    """
    taps, size = math.prod(kernel), math.prod(spatial)
    positions = np.arange(size)
    digits = np.stack([positions % _DIGIT + 1, positions // _DIGIT])
    image = digits.astype(np.float32).reshape(2, 1, *spatial)
    each = np.eye(taps, dtype=np.float32)
    single = each.reshape((1, taps, *kernel) if transposed else (taps, 1, *kernel))
    run = jit("fit taps", functools.partial(entry.function, **attributes))
    low, high = np.rint(np.asarray(run(image, single))).astype(np.int64).reshape(2, taps, -1)
    return np.where(low > 0, high * _DIGIT + low - 1, size).T
