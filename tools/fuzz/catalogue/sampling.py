"""Resize, GridSample and what samples boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tools.fuzz.builder import FLOAT, INT64, Builder, Rejected, Value
from tools.fuzz.catalogue.registry import operator

_WAYS = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")


@operator("Resize", "Upsample", ranks=(3, 4, 4, 4, 5), lengths=(1, 5), weight=3.0)
def resize(b: Builder, x: Value) -> Sequence[Value]:
    """Add a Resize by scales or sizes, or an Upsample in the opsets that have it."""
    draw = b.draw
    mode = draw.pick(["nearest", "nearest", "linear", "linear", "cubic"])
    lengths = list(x.shape)
    for axis in range(2, x.rank):
        lengths[axis] = draw.integer(1, 2 * lengths[axis] + 1)
    factors = [draw.pick([0.5, 1.0, 1.5, 2.0, 3.0]) for _ in x.shape[2:]]
    scales = np.asarray([1, 1, *factors], np.float32)
    if b.opset < 9:
        return b.node("Upsample", x, mode=_old(mode), scales=np.maximum(scales, 1).tolist())
    if b.opset == 9:
        return b.node("Upsample", x, b.constant(np.maximum(scales, 1)), mode=_old(mode))
    if b.opset == 10:
        return b.node("Resize", x, b.constant(scales), mode=_old(mode))
    if mode == "cubic" and x.rank != 4:
        mode = "linear"
    given: dict[str, Any] = {
        "mode": mode,
        "coordinate_transformation_mode": draw.pick([*_WAYS, None]),
        "cubic_coeff_a": draw.pick([None, -0.5]) if mode == "cubic" else None,
        "exclude_outside": draw.pick([None, 1]) if mode == "cubic" else None,
        "nearest_mode": draw.pick([None, "floor", "ceil", "round_prefer_floor",
                                   "round_prefer_ceil"]) if mode == "nearest" else None,
        "antialias": draw.pick([None, None, 1]) if mode != "nearest" else None,
    }  # fmt: skip
    if draw.chance(0.5):
        return b.node("Resize", x, _roi(b), b.constant(scales), **given)
    if b.opset >= 18 and draw.chance(0.5):
        axes = list(range(2, x.rank))
        policy = draw.pick([None, "stretch", "not_larger", "not_smaller"])
        return b.node("Resize", x, None, None, b.constant([lengths[a] for a in axes]),
                      axes=axes, keep_aspect_ratio_policy=policy, **given)  # fmt: skip
    none = b.constant(np.zeros(0, np.float32)) if b.opset < 13 else None
    return b.node("Resize", x, _roi(b), none, b.constant(lengths), **given)


def _old(mode: str) -> str:
    return "linear" if mode == "cubic" else mode


def _roi(b: Builder) -> Value | None:
    return b.constant(np.zeros(0, np.float32)) if b.opset < 13 or b.draw.chance(0.2) else None


@operator("GridSample", ranks=(4, 4, 5), lengths=(2, 5), weight=1.0)
def grid_sample(b: Builder, x: Value) -> Sequence[Value]:
    """Add sampling at places that a tensor says."""
    draw, spatial = b.draw, x.rank - 2
    modes = ["bilinear", "nearest", "bicubic"] if b.opset < 20 else ["linear", "nearest", "cubic"]
    if spatial == 3:
        modes = modes[:2]
    grid = b.operand((x.shape[0], *draw.ints(spatial, 1, 4), spatial), FLOAT, (-1.2, 1.2))
    return b.node(
        "GridSample", x, grid,
        mode=draw.pick([*modes, None]),
        padding_mode=draw.pick(["zeros", "border", "reflection", None]),
        align_corners=draw.pick([0, 1, None]),
    )  # fmt: skip


@operator("RoiAlign", ranks=(4,), lengths=(3, 6), weight=0.5)
def roi_align(b: Builder, x: Value) -> Sequence[Value]:
    """Add boxes sampled from an image."""
    draw = b.draw
    count = draw.integer(1, 3)
    corner = draw.array((count, 2), FLOAT, (0.0, 2.0))
    boxes = b.constant(
        np.concatenate([corner, corner + draw.array((count, 2), FLOAT, (0.5, 4.0))], 1)
    )
    batch = b.constant(draw.array((count,), INT64, (0, x.shape[0] - 1)))
    return b.node(
        "RoiAlign", x, boxes, batch,
        mode=draw.pick(["avg", "max", None]),
        output_height=draw.integer(1, 3),
        output_width=draw.integer(1, 3),
        sampling_ratio=draw.pick([None, 1, 2]),
        spatial_scale=draw.pick([None, 0.5]),
        coordinate_transformation_mode=draw.pick([None, "output_half_pixel", "half_pixel"]),
    )  # fmt: skip


@operator("AffineGrid", ranks=(2, 3), weight=0.3)
def affine_grid(b: Builder, x: Value) -> Sequence[Value]:
    """Add places that affine maps give."""
    if b.opset < 20:
        raise Rejected("came with opset 20")
    spatial = b.draw.integer(2, 3)
    theta = b.operand((x.shape[0], spatial, spatial + 1), FLOAT, (-1.0, 1.0))
    size = [x.shape[0], 2, *b.draw.ints(spatial, 1, 4)]
    return b.node("AffineGrid", theta, b.constant(size), align_corners=b.draw.pick([0, 1, None]))
