"""Resize and its forerunner Upsample.

Every axis is resized by itself: each output position reads a few input positions with weights.
Both depend on shapes and constants only, so they are computed on the host while tracing, in
float32 as runtimes do, because rounding decides which neighbour ``nearest`` takes.

Over 400 lines: one operator in all its coordinate, rounding and interpolation modes.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jptq.errors import ShapeError
from jptq.ops import cubic, windows
from jptq.ops.registry import lowering, op
from jptq.ops.traits import Cost, Ints, Traits
from jptq.ops.words import choose

_MOST_GATHERED = 4
"""Taps per output that are gathered one by one; more of them are a matrix product."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Axis:
    """One resized axis: ``scale`` is the nominal ratio of lengths, ``roi`` its (start, end)."""

    length: int
    output: int
    scale: float
    roi: tuple[float, float] = (0.0, 1.0)


_F = np.float32


def _half_pixel(axis: _Axis, x: np.ndarray) -> np.ndarray:
    return (x + _F(0.5)) / _F(axis.scale) - _F(0.5)


def _pytorch_half_pixel(axis: _Axis, x: np.ndarray) -> np.ndarray:
    return _half_pixel(axis, x) if axis.output > 1 else np.zeros_like(x)


def _half_pixel_symmetric(axis: _Axis, x: np.ndarray) -> np.ndarray:
    adjustment = _F(axis.output) / (_F(axis.scale) * _F(axis.length))
    offset = _F(axis.length / 2) * (_F(1) - adjustment)
    return offset + (x + _F(0.5)) / _F(axis.scale) - _F(0.5)


def _tf_half_pixel(axis: _Axis, x: np.ndarray) -> np.ndarray:
    return (x + _F(0.5)) / _F(axis.scale)


def _asymmetric(axis: _Axis, x: np.ndarray) -> np.ndarray:
    return x / _F(axis.scale)


def _align_corners(axis: _Axis, x: np.ndarray) -> np.ndarray:
    return x * _F(axis.length - 1) / _F(max(axis.output - 1, 1))


def _crop_and_resize(axis: _Axis, x: np.ndarray) -> np.ndarray:
    start, end, last = _F(axis.roi[0]), _F(axis.roi[1]), _F(axis.length - 1)
    if axis.output == 1:
        return _F(0.5) * (start + end) * last + x
    return start * last + x * (end - start) * last / _F(axis.output - 1)


_COORDINATES: Mapping[str, Callable[[_Axis, np.ndarray], np.ndarray]] = {
    "half_pixel": _half_pixel,
    "pytorch_half_pixel": _pytorch_half_pixel,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "tf_half_pixel_for_nn": _tf_half_pixel,
    "asymmetric": _asymmetric,
    "align_corners": _align_corners,
    "tf_crop_and_resize": _crop_and_resize,
}
"""``coordinate_transformation_mode``: where an output position lies on the input axis, float32.

Source: ONNX operator specification, Resize-19.
"""

_ROUNDINGS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "round_prefer_floor": lambda x: np.ceil(x - _F(0.5)),
    "round_prefer_ceil": lambda x: np.floor(x + _F(0.5)),
    "floor": np.floor,
    "ceil": np.ceil,
}
"""``nearest_mode``: coordinates rounded to whole positions."""

_REACHES = {"nearest": 0, "linear": 1, "cubic": 2}
"""``mode``: how far from an output the input positions lie that it reads."""

_POLICIES: Mapping[str, Callable[[Sequence[float]], float] | None] = {
    "stretch": None,
    "not_larger": min,
    "not_smaller": max,
}
"""``keep_aspect_ratio_policy``: which ratio all axes take; each its own if None."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Method:
    """The attributes that say how to interpolate, looked up.

    Attributes:
      reach: See `_REACHES`.
      coordinates: See `_COORDINATES`.
      rounding: See `_ROUNDINGS`.
    """

    reach: int
    coordinates: Callable[[_Axis, np.ndarray], np.ndarray]
    rounding: Callable[[np.ndarray], np.ndarray]
    cubic_a: float
    antialias: bool
    exclude_outside: bool
    extrapolation: float

    def places(self, axis: _Axis) -> np.ndarray:
        """Return where each output position lies on the input axis, ``float32[output]``."""
        return self.coordinates(axis, np.arange(axis.output, dtype=np.float32))


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    d = np.abs(distance)
    return np.where(d <= 1, cubic.near(d, a), np.where(d < 2, cubic.far(d, a), 0.0))


def _taps(axis: _Axis, method: _Method) -> tuple[np.ndarray, np.ndarray]:
    """Return input positions and weights of each output: ``int[output, T]``, ``float``."""
    x = method.places(axis)
    last = axis.length - 1
    if method.reach == 0:
        index = np.clip(method.rounding(x), 0, last).astype(int)[:, None]
        return index, np.ones_like(index, float)
    shrink = min(axis.scale, 1.0) if method.antialias else 1.0
    left = math.floor(-method.reach / shrink) + 1
    offsets = np.arange(left, 2 - left if method.antialias else method.reach + 1)
    base = np.floor(x).astype(int)
    distance = (offsets - (x - base)[:, None]) * shrink
    if method.reach == 1:
        weights = np.clip(1 - np.abs(distance), 0, 1)
    else:
        weights = _cubic(distance, method.cubic_a)
    index = base[:, None] + offsets
    if method.exclude_outside:
        weights = np.where((index >= 0) & (index <= last), weights, 0.0)
    if method.exclude_outside or method.antialias:
        weights = weights / weights.sum(axis=1, keepdims=True)
    return np.clip(index, 0, last), weights


def _take(x: Array, index: np.ndarray, axis: int) -> Array:
    """Take positions of an axis; repeats and even strides need no gather."""
    length = x.shape[axis]
    times = len(index) // length
    if times and np.array_equal(index, np.repeat(np.arange(length), times)):
        shape = list(x.shape)
        wide = lax.broadcast_in_dim(
            x,
            (*shape[: axis + 1], times, *shape[axis + 1 :]),
            [i if i <= axis else i + 1 for i in range(x.ndim)],
        )
        shape[axis] *= times
        return wide.reshape(shape)
    steps = np.unique(np.diff(index))
    if len(steps) == 1 and steps[0] > 0:
        return lax.slice_in_dim(x, int(index[0]), int(index[-1]) + 1, int(steps[0]), axis)
    return jnp.take(x, index, axis=axis)


def _resize_axis(x: Array, axis: int, index: np.ndarray, weights: np.ndarray) -> Array:
    """Replace an axis by weighted sums of its positions."""
    if weights.shape[1] == 1:
        return _take(x, index[:, 0], axis)
    if weights.shape[1] > _MOST_GATHERED:
        matrix = np.zeros((x.shape[axis], len(index)))
        np.add.at(matrix, (index, np.arange(len(index))[:, None]), weights)
        return jnp.moveaxis(jnp.tensordot(x, matrix.astype(x.dtype), ((axis,), (0,))), -1, axis)
    shape = np.ones(x.ndim, int)
    shape[axis] = -1
    terms = [
        _take(x, index[:, tap], axis) * weights[:, tap].astype(x.dtype).reshape(shape)
        for tap in range(weights.shape[1])
    ]
    return functools.reduce(jnp.add, terms)


def _interpolate(x: Array, resized: Sequence[tuple[int, _Axis]], method: _Method) -> Array:
    """Resize the given array axes one after the other."""
    cropping = method.coordinates is _crop_and_resize
    integral = jnp.issubdtype(x.dtype, jnp.integer) and method.reach > 0
    y = x.astype(jnp.float32) if integral else x
    inside = np.ones((1,) * x.ndim, bool)
    for place, axis in resized:
        if axis.output == axis.length and axis.scale == 1 and not cropping:
            continue
        y = _resize_axis(y, place, *_taps(axis, method))
        if cropping:
            at = method.places(axis)
            shape = np.ones(x.ndim, int)
            shape[place] = -1
            inside = inside & ((at >= 0) & (at <= axis.length - 1)).reshape(shape)
    if not inside.all():
        y = jnp.where(inside, y, np.asarray(method.extrapolation, y.dtype))
    return y.astype(x.dtype)


def _plan(
    shape: Ints,
    roi: np.ndarray | None,
    scales: np.ndarray | None,
    sizes: np.ndarray | None,
    axes: Sequence[int],
    policy: Callable[[Sequence[float]], float] | None,
) -> list[_Axis]:
    """Return the resized axes in the order of ``axes``."""
    lengths = [shape[axis] for axis in axes]
    if sizes is not None and sizes.size:
        ratios = [int(size) / length for size, length in zip(sizes, lengths, strict=True)]
        outputs = [int(size) for size in sizes]
        if policy is not None:
            ratio = policy(ratios)
            ratios = [ratio] * len(ratios)
            outputs = [math.floor(ratio * length + 0.5) for length in lengths]
    elif scales is not None and scales.size:
        ratios = [float(scale) for scale in scales]
        outputs = [
            int(np.floor(np.float32(scale) * np.float32(length)))
            for scale, length in zip(ratios, lengths, strict=True)
        ]
    else:
        raise ShapeError("Resize has neither scales nor sizes")
    rois = [(0.0, 1.0)] * len(lengths)
    if roi is not None and roi.size:
        starts, ends = np.split(roi.astype(float), 2)
        rois = list(zip(starts.tolist(), ends.tolist(), strict=True))
    return [
        _Axis(length=length, output=output, scale=ratio, roi=span)
        for length, output, ratio, span in zip(lengths, outputs, ratios, rois, strict=True)
    ]


def _places(rank: int, axes: Sequence[int], *, channels_last: bool) -> list[int]:
    """Return which axes of the array the canonical axes are."""
    order = [0, rank - 1, *range(1, rank - 1)] if channels_last and rank > 1 else range(rank)
    return [order[axis] for axis in axes]


def _canonical_shape(x: Array, *, channels_last: bool) -> Ints:
    return (x.shape[0], x.shape[-1], *x.shape[1:-1]) if channels_last else x.shape


def _resize_cost(x: Ints, *rest: Ints, mode: str = "nearest", **_: object) -> Cost:
    """Count the taps of each output, axis by axis."""
    taps = {"nearest": 1, "linear": 2, "cubic": 4}.get(mode, 2)
    return Cost(vector=math.prod(rest[-1]) * taps * 2)


def _resize(
    x: Array,
    roi: np.ndarray | None,
    scales: np.ndarray | None,
    sizes: np.ndarray | None,
    *,
    channels_last: bool,
    antialias: int = 0,
    axes: Ints | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = cubic.COEFFICIENT,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Array:
    chosen = [axis % x.ndim for axis in (range(x.ndim) if axes is None else axes)]
    shape = _canonical_shape(x, channels_last=channels_last)
    policy = choose(_POLICIES, keep_aspect_ratio_policy, "keep_aspect_ratio_policy")
    plan = _plan(shape, roi, scales, sizes, chosen, policy)
    method = _Method(
        reach=choose(_REACHES, mode, "mode"),
        coordinates=choose(
            _COORDINATES, coordinate_transformation_mode, "coordinate_transformation_mode"
        ),
        rounding=choose(_ROUNDINGS, nearest_mode, "nearest_mode"),
        cubic_a=cubic_coeff_a,
        antialias=bool(antialias),
        exclude_outside=bool(exclude_outside),
        extrapolation=extrapolation_value,
    )
    places = _places(x.ndim, chosen, channels_last=channels_last)
    return _interpolate(x, list(zip(places, plan, strict=True)), method)


_RESIZE = Traits.compute(features=(0,), exact=(1, 2, 3))
_STATIC = ("roi", "scales", "sizes")


@op("Resize", since=(18, 19), static=_STATIC, traits=_RESIZE, cost=_resize_cost)
def resize(
    x: Array,
    roi: np.ndarray | None = None,
    scales: np.ndarray | None = None,
    sizes: np.ndarray | None = None,
    *,
    antialias: int = 0,
    axes: Ints | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = cubic.COEFFICIENT,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Array:
    """Interpolate along the axes.

    Args:
      x: Any shape.
      roi: ``float[2 * K]``, all starts, then all ends, as shares of the axes; read by
        ``tf_crop_and_resize`` only.
      scales: ``float[K]``, output lengths over input lengths; or
      sizes: ``int64[K]``, output lengths.

    Returns:
      In the dtype of ``x``.

    Raises:
      ShapeError: Neither scales nor sizes, or an unknown mode.

    Source: ONNX operator specification, Resize-19.
    """
    return _resize(
        x,
        roi,
        scales,
        sizes,
        channels_last=False,
        antialias=antialias,
        axes=axes,
        coordinate_transformation_mode=coordinate_transformation_mode,
        cubic_coeff_a=cubic_coeff_a,
        exclude_outside=exclude_outside,
        extrapolation_value=extrapolation_value,
        keep_aspect_ratio_policy=keep_aspect_ratio_policy,
        mode=mode,
        nearest_mode=nearest_mode,
    )


@op("Resize", since=(11, 13), static=_STATIC, traits=_RESIZE, cost=_resize_cost)
def resize_11(
    x: Array,
    roi: np.ndarray | None = None,
    scales: np.ndarray | None = None,
    sizes: np.ndarray | None = None,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = cubic.COEFFICIENT,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Array:
    """Interpolate along all axes; before opset 18 without choice of axes or antialiasing."""
    return resize(
        x,
        roi,
        scales,
        sizes,
        coordinate_transformation_mode=coordinate_transformation_mode,
        cubic_coeff_a=cubic_coeff_a,
        exclude_outside=exclude_outside,
        extrapolation_value=extrapolation_value,
        mode=mode,
        nearest_mode=nearest_mode,
    )


def _scaled(x: Array, scales: np.ndarray, mode: str, *, channels_last: bool) -> Array:
    """Interpolate as the operators before Resize-11 do: positions count from the corner.

    The nearest value is the one below where an axis grows and the one above where it shrinks.
    """
    shrinking, growing = np.minimum(scales, 1), np.maximum(scales, 1)
    steps = [(scales, "floor")] if mode != "nearest" else [(shrinking, "ceil"), (growing, "floor")]
    for step, nearest_mode in steps:
        if (step != 1).any():
            x = _resize(
                x,
                None,
                step,
                None,
                channels_last=channels_last,
                mode="linear" if mode == "bilinear" else mode,
                coordinate_transformation_mode="asymmetric",
                nearest_mode=nearest_mode,
            )
    return x


@op("Upsample", since=(9, 10), static=("scales",), traits=_RESIZE, cost=_resize_cost)
@op("Resize", since=(10,), static=("scales",), traits=_RESIZE, cost=_resize_cost)
def resize_10(x: Array, scales: np.ndarray, *, mode: str = "nearest") -> Array:
    """Interpolate by ``scales``, ``float[rank]``; up to opset 10 positions count from the corner.

    Source: ONNX operator specification, Resize-10 and Upsample-9.
    """
    return _scaled(x, scales, mode, channels_last=False)


@op("Upsample", since=(7,), traits=_RESIZE, cost=_resize_cost)
def upsample_7(x: Array, *, scales: tuple[float, ...], mode: str = "nearest") -> Array:
    """Interpolate; at opset 7 the scales are an attribute."""
    return resize_10(x, np.array(scales, np.float32), mode=mode)


@op("Upsample", since=(1,), traits=_RESIZE, cost=_resize_cost)
def upsample_1(
    x: Array, *, height_scale: float, width_scale: float, mode: str = "nearest"
) -> Array:
    """Interpolate; before opset 7 only height and width have a scale."""
    return upsample_7(x, scales=(1.0, 1.0, height_scale, width_scale), mode=mode)


@lowering(resize, "channels last", when=windows.has_positions, channels_last=True)
@lowering(resize_11, "channels last", when=windows.has_positions, channels_last=True)
def resize_last(
    x: Array,
    roi: np.ndarray | None = None,
    scales: np.ndarray | None = None,
    sizes: np.ndarray | None = None,
    *,
    antialias: int = 0,
    axes: Ints | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = cubic.COEFFICIENT,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Array:
    """Interpolate ``[N, *spatial, C]``; all other inputs are in canonical order."""
    return _resize(
        x,
        roi,
        scales,
        sizes,
        channels_last=True,
        antialias=antialias,
        axes=axes,
        coordinate_transformation_mode=coordinate_transformation_mode,
        cubic_coeff_a=cubic_coeff_a,
        exclude_outside=exclude_outside,
        extrapolation_value=extrapolation_value,
        keep_aspect_ratio_policy=keep_aspect_ratio_policy,
        mode=mode,
        nearest_mode=nearest_mode,
    )


@lowering(resize_10, "channels last", when=windows.has_positions, channels_last=True)
def resize_10_last(x: Array, scales: np.ndarray, *, mode: str = "nearest") -> Array:
    """Interpolate ``[N, *spatial, C]``; the scales are in canonical order."""
    return _scaled(x, scales, mode, channels_last=True)
