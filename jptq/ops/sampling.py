"""Sampling at computed positions: GridSample, AffineGrid, RoiAlign, Col2Im."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jptq.errors import ShapeError, StaticInputError
from jptq.ops import cubic, windows
from jptq.ops.reach import sampled
from jptq.ops.registry import op
from jptq.ops.traits import Cost, Ints, Traits
from jptq.ops.words import choose

_IS_HALF_PIXEL = {"half_pixel": True, "output_half_pixel": False}
"""``coordinate_transformation_mode`` of RoiAlign: whether regions are moved by half a pixel."""

_FARTHEST = 2.0**30
"""Positions beyond this are treated as this one, so that they fit an int32."""


def _whole(x: Array) -> Array:
    """Turn whole floats into int32; NaN becomes 0, the far away stays far away."""
    return jnp.clip(jnp.nan_to_num(x), -_FARTHEST, _FARTHEST).astype(jnp.int32)


def _clamped(index: Array, length: int, align_corners: bool) -> Array:
    """Map positions to the nearest one of the input axis."""
    del align_corners  # has no meaning here
    return jnp.clip(index, 0, length - 1)


def _reflected(index: Array, length: int, align_corners: bool) -> Array:
    """Map positions to the input axis as if mirrors stood at its ends."""
    if align_corners:
        period = max(2 * (length - 1), 1)
        folded = index % period
        return jnp.minimum(folded, period - folded) if length > 1 else jnp.zeros_like(index)
    folded = index % (2 * length)
    return jnp.minimum(folded, 2 * length - 1 - folded)


_PADDINGS: Mapping[str, Callable[[Array, int, bool], Array]] = {
    "zeros": _clamped,
    "border": _clamped,
    "reflection": _reflected,
}
"""``padding_mode``: what is read outside; for ``zeros`` the weight there is zero."""


Taps = list[tuple[Array, Array]]
"""(whole position, weight) of each tap along one axis."""


def _nearest_tap(position: Array) -> Taps:
    return [(_whole(jnp.round(position)), jnp.ones_like(position))]


def _linear_taps(position: Array) -> Taps:
    base = jnp.floor(position)
    fraction = position - base
    return [(_whole(base), 1 - fraction), (_whole(base) + 1, fraction)]


def _cubic_taps(position: Array) -> Taps:
    base = jnp.floor(position)
    fraction = position - base
    weights = [
        cubic.far(fraction + 1),
        cubic.near(fraction),
        cubic.near(1 - fraction),
        cubic.far(2 - fraction),
    ]
    return [(_whole(base) - 1 + tap, weight) for tap, weight in enumerate(weights)]


_TAPS: Mapping[str, Callable[[Array], Taps]] = {
    "nearest": _nearest_tap,
    "linear": _linear_taps,
    "cubic": _cubic_taps,
    # Before opset 20 the modes had other names.
    "bilinear": _linear_taps,
    "bicubic": _cubic_taps,
}


def sample(
    x: Array,
    positions: Sequence[Array],
    *,
    mode: str = "linear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
) -> Array:
    """Interpolate at positions in units of the input's own indices.

    Args:
      x: ``[N, C, *spatial]``.
      positions: One ``[N, P]`` per spatial axis.
      mode: ``nearest``, ``linear`` or ``cubic``, of old also ``bilinear`` or ``bicubic``.
      padding_mode: ``zeros``, ``border`` or ``reflection``.
      align_corners: Whether reflection is about the outer positions or their outer edges.

    Returns:
      ``[N, C, P]``.

    Raises:
      ShapeError: A mode is unknown.
    """
    axis_taps = choose(_TAPS, mode, "mode")
    inside = choose(_PADDINGS, padding_mode, "padding_mode")
    lengths = x.shape[2:]
    flat = x.reshape(*x.shape[:2], -1)
    taps = [axis_taps(position) for position in positions]
    total = jnp.zeros((*x.shape[:2], positions[0].shape[1]), x.dtype)
    for corner in itertools.product(*taps):
        place = jnp.zeros(positions[0].shape, jnp.int32)
        weight = jnp.ones(positions[0].shape, x.dtype)
        for (index, share), length in zip(corner, lengths, strict=True):
            place = place * length + inside(index, length, align_corners)
            weight = weight * share.astype(x.dtype)
            if padding_mode == "zeros":
                weight = jnp.where((index >= 0) & (index < length), weight, 0)
        values = jnp.take_along_axis(flat, place[:, None], axis=2, mode="clip")
        total = total + values * weight[:, None]
    return total


_TAPS_PER_AXIS = {"nearest": 1, "linear": 2, "bilinear": 2, "cubic": 4, "bicubic": 4}
_GRID_SAMPLE = Traits.compute(features=(0, 1), reach=sampled(_TAPS_PER_AXIS))


def _grid_sample_cost(x: Ints, grid: Ints, y: Ints, *, mode: str = "linear", **_: object) -> Cost:
    """Count a product and a sum per output and tap."""
    return Cost(vector=2 * math.prod(y) * _TAPS_PER_AXIS[mode] ** (len(x) - 2))


@op("GridSample", since=(20, 22), traits=_GRID_SAMPLE, cost=_grid_sample_cost)
def grid_sample(
    x: Array,
    grid: Array,
    *,
    align_corners: int = 0,
    mode: str = "linear",
    padding_mode: str = "zeros",
) -> Array:
    """Interpolate at the positions of a grid.

    Args:
      x: ``[N, C, *spatial]`` with R spatial axes.
      grid: ``[N, *spatial_out, R]``, last axis first, -1 to 1 across the input.

    Returns:
      ``[N, C, *spatial_out]``.

    Raises:
      ShapeError: A mode is unknown.

    Source: ONNX operator specification, GridSample-22.
    """
    lengths = x.shape[2:]
    points = grid.reshape(grid.shape[0], -1, len(lengths))
    positions = []
    for axis, length in enumerate(lengths):
        share = points[..., len(lengths) - 1 - axis] + 1
        span = share / 2 * (length - 1) if align_corners else (share * length - 1) / 2
        positions.append(span)
    y = sample(
        x,
        positions,
        mode=mode,
        padding_mode=padding_mode,
        align_corners=bool(align_corners),
    )
    return y.reshape(*x.shape[:2], *grid.shape[1:-1])


@op("GridSample", since=(16,), traits=_GRID_SAMPLE, cost=_grid_sample_cost)
def grid_sample_16(
    x: Array,
    grid: Array,
    *,
    align_corners: int = 0,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
) -> Array:
    """Interpolate at the positions of a grid; before opset 20 the modes have other names."""
    return grid_sample(x, grid, align_corners=align_corners, mode=mode, padding_mode=padding_mode)


@op("AffineGrid", since=(20,), static=("size",), traits=Traits.compute(features=(0,)))
def affine_grid(theta: Array, size: np.ndarray, *, align_corners: int = 0) -> Array:
    """Return the grid that `grid_sample` needs for an affine map.

    Args:
      theta: ``[N, R, R + 1]``, R of 2 or 3.
      size: ``int64[R + 2]``: N, C and the spatial lengths of the output.

    Returns:
      ``[N, *spatial_out, R]``.

    Source: ONNX operator specification, AffineGrid-20.
    """
    axes = []
    for length in size[2:].tolist():
        steps = np.arange(length)
        spread = (
            steps / max(length - 1, 1) * 2 - 1 if align_corners else (2 * steps + 1) / length - 1
        )
        axes.append(spread)
    mesh = np.meshgrid(*axes, indexing="ij")
    base = np.stack([*reversed(mesh), np.ones_like(mesh[0])], axis=-1).astype(theta.dtype)
    return jnp.einsum("...k,nrk->n...r", base, theta)


@op("RoiAlign", since=(16, 22), traits=Traits.compute(features=(0,), exact=(1, 2)))
def roi_align(
    x: Array,
    rois: Array,
    batch_indices: Array,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Array:
    """Pool interpolated samples of each region of interest.

    Args:
      x: ``[N, C, H, W]``.
      rois: ``[R, 4]``: x1, y1, x2, y2, in pixels of the image before ``spatial_scale``.
      batch_indices: ``int64[R]``: the image of each region.

    Returns:
      ``[R, C, output_height, output_width]``.

    Raises:
      StaticInputError: The number of samples is to follow from the size of each region.
      ShapeError: A mode is unknown.

    Source: ONNX operator specification, RoiAlign-22.
    """
    if sampling_ratio <= 0:
        raise StaticInputError(
            "RoiAlign with sampling_ratio=0",
            why="the number of samples would depend on the size of each region",
            hint="export with a fixed sampling_ratio, such as 2",
        )
    half = choose(_IS_HALF_PIXEL, coordinate_transformation_mode, "coordinate_transformation_mode")
    averages = choose({"avg": True, "max": False}, mode, "mode")
    boxes = rois * spatial_scale - (0.5 if half else 0.0)

    def along(start: Array, end: Array, outputs: int) -> Array:
        extent = end - start if half else jnp.maximum(end - start, 1)
        count = outputs * sampling_ratio
        shares = ((np.arange(count) + 0.5) / count).astype(x.dtype)
        return start[:, None] + extent[:, None] * shares

    def one_axis(position: Array, length: int) -> tuple[Array, Array]:
        # Up to one position outside still reads the edge; farther out is zero.
        valid = (position >= -1) & (position <= length)
        return jnp.clip(position, 0, length - 1), valid

    height, width = x.shape[2:]
    y, y_valid = one_axis(along(boxes[:, 1], boxes[:, 3], output_height), height)
    z, z_valid = one_axis(along(boxes[:, 0], boxes[:, 2], output_width), width)
    shape = (y.shape[0], y.shape[1], z.shape[1])
    positions = [
        jnp.broadcast_to(y[:, :, None], shape).reshape(shape[0], -1),
        jnp.broadcast_to(z[:, None, :], shape).reshape(shape[0], -1),
    ]
    chosen = jnp.take(x, batch_indices, axis=0, mode="clip")
    valid = (y_valid[:, :, None] & z_valid[:, None, :])[:, None]
    blocks = (-1, x.shape[1], output_height, sampling_ratio, output_width, sampling_ratio)
    if averages:
        values = sample(chosen, positions, padding_mode="border").reshape(
            -1, x.shape[1], *shape[1:]
        )
        return jnp.where(valid, values, 0).reshape(blocks).mean(axis=(3, 5))
    values = _largest_corner(chosen, positions).reshape(-1, x.shape[1], *shape[1:])
    return jnp.where(valid, values, 0).reshape(blocks).max(axis=(3, 5))


def _largest_corner(x: Array, positions: Sequence[Array]) -> Array:
    """Return the largest weighted neighbour, which ONNX's ``mode="max"`` takes for the sample."""
    flat = x.reshape(*x.shape[:2], -1)
    lengths = x.shape[2:]
    corners = []
    for corner in itertools.product(*map(_linear_taps, positions)):
        place = jnp.zeros(positions[0].shape, jnp.int32)
        weight = jnp.ones(positions[0].shape, x.dtype)
        for (index, share), length in zip(corner, lengths, strict=True):
            place = place * length + jnp.clip(index, 0, length - 1)
            weight = weight * share.astype(x.dtype)
        corners.append(
            jnp.take_along_axis(flat, place[:, None], axis=2, mode="clip") * weight[:, None]
        )
    return jnp.stack(corners).max(axis=0)


@op("RoiAlign", since=(10,), traits=Traits.compute(features=(0,), exact=(1, 2)))
def roi_align_10(
    x: Array,
    rois: Array,
    batch_indices: Array,
    *,
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Array:
    """Pool interpolated samples of each region; before opset 16 without the half-pixel shift."""
    return roi_align(
        x,
        rois,
        batch_indices,
        coordinate_transformation_mode="output_half_pixel",
        mode=mode,
        output_height=output_height,
        output_width=output_width,
        sampling_ratio=sampling_ratio,
        spatial_scale=spatial_scale,
    )


@op(
    "Col2Im",
    since=(18,),
    static=("image_shape", "block_shape"),
    traits=Traits.compute(features=(0,)),
)
def col2im(
    input: Array,
    image_shape: np.ndarray,
    block_shape: np.ndarray,
    *,
    dilations: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Array:
    """Add up overlapping blocks: the transpose of cutting an image into them.

    Args:
      input: ``[N, C * taps, L]``: a column per window.
      image_shape: ``int64[R]``: spatial lengths of the output.
      block_shape: ``int64[R]``: taps per axis.

    Returns:
      ``[N, C, *image_shape]``.

    Raises:
      ShapeError: The number of columns is not the number of windows.

    Source: ONNX operator specification, Col2Im-18.
    """
    image, kernel = tuple(image_shape.tolist()), tuple(block_shape.tolist())
    ones = (1,) * len(image)
    steps, gaps = strides or ones, dilations or ones
    resolved = windows.resolve_pads("NOTSET", pads, image, kernel, steps, gaps)
    outputs = windows.output_lengths(image, kernel, steps, gaps, resolved)
    if math.prod(outputs) != input.shape[2]:
        raise ShapeError(
            f"Col2Im of {input.shape[2]} columns", why=f"the image has {math.prod(outputs)} windows"
        )
    channels = input.shape[1] // math.prod(kernel)
    shape = (input.shape[0], channels, *image)

    def to_columns(x: Array) -> Array:
        padded = jnp.pad(x, ((0, 0), (0, 0), *resolved))
        columns = [padded[(slice(None), slice(None), *at(tap))] for tap in np.ndindex(*kernel)]
        return jnp.stack(columns, axis=2).reshape(input.shape)

    def at(tap: Ints) -> list[slice]:
        return [
            slice(t * d, t * d + (n - 1) * s + 1, s)
            for t, d, n, s in zip(tap, gaps, outputs, steps, strict=True)
        ]

    pattern = jax.eval_shape(lambda: jnp.zeros(shape, input.dtype))
    (image_sum,) = jax.linear_transpose(to_columns, pattern)(input)
    return image_sum
