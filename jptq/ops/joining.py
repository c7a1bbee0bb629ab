"""Joining and parting tensors along an axis: Concat, Split, Pad, CenterCropPad."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jptq.errors import ShapeError
from jptq.ops import windows
from jptq.ops.reach import MOVES
from jptq.ops.registry import lowering, op
from jptq.ops.traits import Ints, Layout, Traits
from jptq.ops.words import choose

_JOIN = Traits.view(joins=True, layout=Layout.AXES, axes=("axis",))
_PART = Traits.view(look_through=True, layout=Layout.AXES, axes=("axis",))


@op("Concat", since=(4, 11, 13), traits=_JOIN)
def concat(*inputs: Array, axis: int) -> Array:
    """Put tensors behind each other along an axis."""
    return jnp.concatenate(inputs, axis)


@op("Concat", since=(1,), traits=_JOIN)
def concat_1(*inputs: Array, axis: int = 1) -> Array:
    """Put tensors behind each other; up to opset 3 along the channels unless said otherwise."""
    return jnp.concatenate(inputs, axis)


def parts(input: Array, lengths: Sequence[int], axis: int) -> tuple[Array, ...]:
    """Return consecutive parts of the given lengths."""
    if sum(lengths) != input.shape[axis]:
        raise ShapeError(
            f"Split of axis {axis} into {list(lengths)}",
            why=f"the axis has {input.shape[axis]} positions",
        )
    ends = np.cumsum(lengths).tolist()
    return tuple(
        lax.slice_in_dim(input, end - length, end, axis=axis)
        for end, length in zip(ends, lengths, strict=True)
    )


def _equal_lengths(length: int, parts: int) -> list[int]:
    """Return the lengths of equal parts; the last are smaller if need be."""
    most = -(-length // parts)
    return [min(most, max(0, length - i * most)) for i in range(parts)]


@op("Split", since=(18,), static=("split",), traits=_PART)
def split(
    input: Array,
    split: np.ndarray | None = None,
    *,
    axis: int = 0,
    num_outputs: int | None = None,
    n_outputs: int = 1,
) -> tuple[Array, ...]:
    """Part a tensor along an axis.

    Args:
      input: Any shape.
      split: ``int64[K]``: the length of each part; equal parts if absent.

    Raises:
      ShapeError: The lengths do not add up.

    Source: ONNX operator specification, Split-18.
    """
    if split is not None:
        return parts(input, split.tolist(), axis)
    return parts(input, _equal_lengths(input.shape[axis], num_outputs or n_outputs), axis)


@op("Split", since=(13,), static=("split",), traits=_PART)
def split_13(
    input: Array, split: np.ndarray | None = None, *, axis: int = 0, n_outputs: int = 1
) -> tuple[Array, ...]:
    """Part a tensor along an axis; before opset 18 the node's outputs say into how many."""
    lengths = _equal_lengths(input.shape[axis], n_outputs) if split is None else split.tolist()
    return parts(input, lengths, axis)


@op("Split", since=(2, 11), traits=_PART)
def split_2(
    input: Array, *, axis: int = 0, split: Ints | None = None, n_outputs: int = 1
) -> tuple[Array, ...]:
    """Part a tensor along an axis; up to opset 12 the lengths are an attribute."""
    return parts(input, split or _equal_lengths(input.shape[axis], n_outputs), axis)


_IS_FILLED = {"constant": True, "reflect": False, "edge": False, "wrap": False}
"""Modes of Pad: whether what is added is one value."""


def _pad(
    data: Array, ends: Sequence[tuple[int, int]], mode: str, value: Array | np.ndarray | None
) -> Array:
    """Pad every axis by ``(begin, end)``; negative numbers crop."""
    if choose(_IS_FILLED, mode, "mode"):
        fill = jnp.zeros((), data.dtype) if value is None else jnp.asarray(value, data.dtype)
        return lax.pad(data, fill.reshape(()), [(*pair, 0) for pair in ends])
    cropped = data[
        tuple(slice(max(0, -b), n - max(0, -e)) for (b, e), n in zip(ends, data.shape, strict=True))
    ]
    return jnp.pad(cropped, [(max(0, b), max(0, e)) for b, e in ends], mode=mode)


def _ends(pads: Sequence[int], axes: Sequence[int], rank: int) -> list[tuple[int, int]]:
    """Pair all begins and all ends, given for ``axes``, per axis."""
    ends = [(0, 0)] * rank
    for i, axis in enumerate(axes):
        ends[axis] = (int(pads[i]), int(pads[len(axes) + i]))
    return ends


def _rolled(ends: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Move the channels' entry from second to last."""
    return [ends[0], *ends[2:], ends[1]]


@op("Pad", since=(1,), traits=Traits.view())
def pad_1(data: Array, *, paddings: Ints, mode: str = "constant", value: float = 0.0) -> Array:
    """Add positions around a tensor; at opset 1 the attribute has another name."""
    return pad_2(data, pads=paddings, mode=mode, value=value)


@op("Pad", since=(2,), traits=Traits.view())
def pad_2(data: Array, *, pads: Ints, mode: str = "constant", value: float = 0.0) -> Array:
    """Add positions around a tensor; up to opset 10 the pads are an attribute."""
    return _pad(data, _ends(pads, range(data.ndim), data.ndim), mode, np.asarray(value, data.dtype))


@lowering(pad_2, "channels last", when=windows.has_positions, channels_last=True)
def pad_2_last(data: Array, *, pads: Ints, mode: str = "constant", value: float = 0.0) -> Array:
    """Add positions around ``[N, *spatial, C]``; the pads are in canonical order."""
    ends = _rolled(_ends(pads, range(data.ndim), data.ndim))
    return _pad(data, ends, mode, np.asarray(value, data.dtype))


@op(
    "Pad",
    since=(11, 13, 18, 19, 21, 23, 24, 25),
    static=("pads", "axes"),
    traits=Traits.view(reach=dataclasses.replace(MOVES, inputs=(0, 2))),
)
def pad(
    data: Array,
    pads: np.ndarray,
    constant_value: Array | None = None,
    axes: np.ndarray | None = None,
    *,
    mode: str = "constant",
) -> Array:
    """Add positions around a tensor, or crop where pads are negative.

    Args:
      data: Any shape.
      pads: ``int64[2 * K]``: all begins, then all ends.
      constant_value: One value; zero if absent.
      axes: ``int64[K]``: the padded axes; all if absent.

    Source: ONNX operator specification, Pad-25.
    """
    chosen = range(data.ndim) if axes is None else axes.tolist()
    return _pad(data, _ends(pads.tolist(), chosen, data.ndim), mode, constant_value)


@lowering(pad, "channels last", when=windows.has_positions, channels_last=True)
def pad_last(
    data: Array,
    pads: np.ndarray,
    constant_value: Array | None = None,
    axes: np.ndarray | None = None,
    *,
    mode: str = "constant",
) -> Array:
    """Add positions around ``[N, *spatial, C]``; pads and axes are in canonical order."""
    chosen = range(data.ndim) if axes is None else axes.tolist()
    return _pad(data, _rolled(_ends(pads.tolist(), chosen, data.ndim)), mode, constant_value)


@op("CenterCropPad", since=(18,), static=("shape",), traits=Traits.view())
def center_crop_pad(input_data: Array, shape: np.ndarray, *, axes: Ints | None = None) -> Array:
    """Crop or pad each axis about its centre to a length of ``shape``, ``int64[K]``.

    Source: ONNX operator specification, CenterCropPad-18.
    """
    rank = input_data.ndim
    ends = [(0, 0)] * rank
    for axis, length in zip(range(rank) if axes is None else axes, shape.tolist(), strict=True):
        more = length - input_data.shape[axis]
        # An odd position is added or cut at the end.
        begin = more // 2 if more >= 0 else -(-more // 2)
        ends[axis] = (begin, more - begin)
    return _pad(input_data, ends, "constant", None)
