"""Views: operators that move or repeat values without changing any."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jax import Array

from jptq.errors import ShapeError
from jptq.ops.registry import lowering, op
from jptq.ops.traits import Ints, Layout, Traits
from jptq.ops.words import choose

_CHANNEL_IS_LAST = {"DCR": True, "CRD": False}
"""Modes of DepthToSpace and SpaceToDepth: where in the deep axis the channel stands."""

_RESHAPE = Traits.view(look_through=True)


@op("Reshape", since=(1,), traits=_RESHAPE)
def reshape_1(data: Array, *, consumed_inputs: Ints | None = None, shape: Ints = ()) -> Array:
    """Give a tensor another shape; up to opset 4 it is an attribute."""
    del consumed_inputs
    return reshape(data, np.array(shape, np.int64))


@op("Reshape", since=(5, 13, 14, 19, 21, 23, 24, 25), static=("shape",), traits=_RESHAPE)
def reshape(data: Array, shape: np.ndarray, *, allowzero: int = 0) -> Array:
    """Give a tensor another shape.

    Args:
      data: Any shape.
      shape: ``int64[rank]``; -1 takes what is left, 0 copies the length unless ``allowzero``.

    Raises:
      ShapeError: The numbers of elements differ.

    Source: ONNX operator specification, Reshape-25.
    """
    wanted = [int(length) for length in shape]
    if not allowzero:
        wanted = [data.shape[i] if length == 0 else length for i, length in enumerate(wanted)]
    known = math.prod(length for length in wanted if length != -1)
    fits = data.size % known == 0 if -1 in wanted and known else data.size == known
    if not fits:
        raise ShapeError(
            f"Reshape of {list(data.shape)} to {shape.tolist()}",
            why=f"{data.size} elements do not fit",
            hint="is the batch written into the shape? it must be 0 or -1, or 1 for single samples",
        )
    return jnp.reshape(data, wanted)


@op("Flatten", since=(1, 9, 11, 13, 21, 23, 24, 25), traits=Traits.view())
def flatten(input: Array, *, axis: int = 1) -> Array:
    """Merge the axes before ``axis`` into one and the others into a second."""
    first = axis + input.ndim if axis < 0 else axis
    return input.reshape(math.prod(input.shape[:first]), math.prod(input.shape[first:]))


@op("Squeeze", since=(1, 11), traits=Traits.view())
def squeeze_1(data: Array, *, axes: Ints | None = None) -> Array:
    """Remove axes of length one; up to opset 12 the axes are an attribute."""
    return jnp.squeeze(data, axes)


@op("Squeeze", since=(13, 21, 23, 24, 25), static=("axes",), traits=Traits.view())
def squeeze(data: Array, axes: np.ndarray | None = None) -> Array:
    """Remove axes of length one: ``axes`` is ``int64[K]``; all of them if absent."""
    return jnp.squeeze(data, None if axes is None else tuple(axes.tolist()))


@op("Unsqueeze", since=(1, 11), traits=Traits.view())
def unsqueeze_1(data: Array, *, axes: Ints) -> Array:
    """Insert axes of length one; up to opset 12 the axes are an attribute."""
    return jnp.expand_dims(data, axes)


@op("Unsqueeze", since=(13, 21, 23, 24, 25), static=("axes",), traits=Traits.view())
def unsqueeze(data: Array, axes: np.ndarray) -> Array:
    """Insert axes of length one: ``axes`` is ``int64[K]``, positions in the output."""
    return jnp.expand_dims(data, tuple(axes.reshape(-1).tolist()))


@op(
    "Transpose",
    since=(1, 13, 21, 23, 24, 25),
    traits=Traits.view(look_through=True, layout=Layout.PERMUTE),
)
def transpose(data: Array, *, perm: Ints | None = None) -> Array:
    """Reorder the axes; reverse them if ``perm`` is absent."""
    return jnp.transpose(data, perm)


@op("Expand", since=(8, 13), static=("shape",), traits=Traits.view())
def expand(input: Array, shape: np.ndarray) -> Array:
    """Broadcast a tensor and ``shape``, ``int64[rank]``, against each other."""
    return jnp.broadcast_to(input, np.broadcast_shapes(input.shape, tuple(shape.tolist())))


@op("Tile", since=(6, 13), static=("repeats",), traits=Traits.view())
def tile(input: Array, repeats: np.ndarray) -> Array:
    """Repeat a tensor along each axis: ``repeats`` is ``int64[rank]``."""
    if repeats.shape != (input.ndim,) or (repeats < 0).any():
        raise ShapeError(f"Tile of {list(input.shape)} by {repeats.tolist()}")
    return jnp.tile(input, tuple(repeats.tolist()))


@op("Tile", since=(1,), static=("tiles", "axis"), traits=Traits.view())
def tile_1(input: Array, tiles: np.ndarray, axis: np.ndarray) -> Array:
    """Repeat a tensor along one axis; up to opset 5 two scalars say how often and which."""
    repeats = np.ones(input.ndim, int)
    repeats[int(axis.item())] = int(tiles.item())
    return tile(input, repeats)


@op("DepthToSpace", since=(1, 11, 13, 28), traits=Traits.view())
def depth_to_space(input: Array, *, blocksize: int, mode: str = "DCR") -> Array:
    """Lay channels out as blocks of positions.

    Args:
      input: ``[N, C, H, W]``, ``C = b * b * C'``.

    Returns:
      ``[N, C', H * b, W * b]``. With ``mode="DCR"`` the channel is the last part of C, with
      ``"CRD"`` the first.

    Source: ONNX operator specification, DepthToSpace-13.
    """
    n, c, h, w = input.shape
    b = blocksize
    if choose(_CHANNEL_IS_LAST, mode, "mode"):
        blocks = input.reshape(n, b, b, c // (b * b), h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        blocks = input.reshape(n, c // (b * b), b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return blocks.reshape(n, c // (b * b), h * b, w * b)


@lowering(depth_to_space, "channels last", channels_last=True)
def depth_to_space_last(input: Array, *, blocksize: int, mode: str = "DCR") -> Array:
    """Lay channels of ``[N, H, W, C]`` out as blocks of positions."""
    n, h, w, c = input.shape
    b = blocksize
    if choose(_CHANNEL_IS_LAST, mode, "mode"):
        blocks = input.reshape(n, h, w, b, b, c // (b * b)).transpose(0, 1, 3, 2, 4, 5)
    else:
        blocks = input.reshape(n, h, w, c // (b * b), b, b).transpose(0, 1, 4, 2, 5, 3)
    return blocks.reshape(n, h * b, w * b, c // (b * b))


@op("SpaceToDepth", since=(1, 13, 28), traits=Traits.view())
def space_to_depth(input: Array, *, blocksize: int, mode: str = "DCR") -> Array:
    """Stack blocks of positions as channels: the inverse of `depth_to_space`.

    Args:
      input: ``[N, C, H * b, W * b]``.

    Returns:
      ``[N, b * b * C, H, W]``.

    Source: ONNX operator specification, SpaceToDepth-28.
    """
    n, c, h, w = input.shape
    b = blocksize
    blocks = input.reshape(n, c, h // b, b, w // b, b)
    last = choose(_CHANNEL_IS_LAST, mode, "mode")
    order = (0, 3, 5, 1, 2, 4) if last else (0, 1, 3, 5, 2, 4)
    return blocks.transpose(order).reshape(n, c * b * b, h // b, w // b)


@lowering(space_to_depth, "channels last", channels_last=True)
def space_to_depth_last(input: Array, *, blocksize: int, mode: str = "DCR") -> Array:
    """Stack blocks of positions of ``[N, H, W, C]`` as channels."""
    n, h, w, c = input.shape
    b = blocksize
    blocks = input.reshape(n, h // b, b, w // b, b, c)
    last = choose(_CHANNEL_IS_LAST, mode, "mode")
    order = (0, 1, 3, 2, 4, 5) if last else (0, 1, 3, 5, 2, 4)
    return blocks.transpose(order).reshape(n, h // b, w // b, c * b * b)
