from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from jptq.errors import ShapeError
from jptq.ops import resize
from tests.ops.agreement import (
    One,
    check_against_onnxruntime,
    check_all_against_onnxruntime,
    check_lowerings,
    normal,
)

COORDINATES = (
    "half_pixel",
    "pytorch_half_pixel",
    "asymmetric",
    "align_corners",
    "half_pixel_symmetric",
)


def _scales(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_scaling_agrees_with_onnxruntime(mode: str) -> None:
    nodes = {
        f"{coordinates} {scales}": One(
            inputs=[normal(1, 2, 7, 6), None, _scales(1, 1, *scales)],
            attributes={"mode": mode, "coordinate_transformation_mode": coordinates},
        )
        for coordinates in COORDINATES
        for scales in [(2.0, 3.0), (0.55, 0.5), (1.3, 0.8)]
    }
    check_all_against_onnxruntime("Resize", nodes, opset=19, atol=1e-4)


def test_nearest_modes_agree_with_onnxruntime() -> None:
    nodes = {
        f"{nearest} {sizes}": One(
            inputs=[normal(1, 2, 7, 6), None, None, np.array([1, 2, *sizes], np.int64)],
            attributes={"nearest_mode": nearest},
        )
        for nearest in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
        for sizes in [(14, 12), (3, 4), (10, 5)]
    }
    check_all_against_onnxruntime("Resize", nodes, opset=19)


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
def test_aspect_policies_agree_with_onnxruntime(policy: str) -> None:
    inputs = [normal(1, 2, 7, 6), None, None, np.array([9, 11], np.int64)]
    attributes = {"keep_aspect_ratio_policy": policy, "axes": [2, 3], "mode": "linear"}
    check_against_onnxruntime("Resize", inputs, attributes, opset=19)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_cropping_agrees_with_onnxruntime(mode: str) -> None:
    roi = np.array([0, 0, 0.2, -0.3, 1, 1, 0.9, 1.2], np.float32)
    inputs = [normal(1, 2, 7, 6), roi, None, np.array([1, 2, 5, 8], np.int64)]
    attributes = {
        "mode": mode,
        "coordinate_transformation_mode": "tf_crop_and_resize",
        "extrapolation_value": 9.0,
    }
    check_against_onnxruntime("Resize", inputs, attributes, opset=19)


def test_cubic_that_excludes_the_outside_agrees_with_onnxruntime() -> None:
    inputs = [normal(1, 2, 7, 6), None, _scales(1, 1, 1.7, 2.2)]
    attributes = {"mode": "cubic", "exclude_outside": 1, "cubic_coeff_a": -0.5}
    check_against_onnxruntime("Resize", inputs, attributes, opset=19, atol=1e-4)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(("name", "opset"), [("Upsample", 9), ("Resize", 10)])
def test_older_operators_agree_with_onnxruntime(name: str, opset: int, mode: str) -> None:
    inputs = [normal(1, 2, 5, 6), _scales(1, 1, 2, 3)]
    check_against_onnxruntime(name, inputs, {"mode": mode}, opset=opset)


LOWERED: dict[str, tuple[tuple[float, float], dict[str, Any]]] = {
    "repeat": ((2.0, 2.0), {"coordinate_transformation_mode": "asymmetric"}),
    "linear": ((2.0, 1.5), {"mode": "linear"}),
    "antialias": ((0.3, 0.4), {"mode": "linear", "antialias": 1}),
}


def test_channels_last_resize_equals_the_default() -> None:
    nodes = {
        label: One(
            inputs=[normal(1, 2, 8, 10), None, _scales(1, 1, *scales)],
            attributes=attributes,
            lowering="channels last",
        )
        for label, (scales, attributes) in LOWERED.items()
    }
    check_lowerings("Resize", nodes, opset=19)


def test_whole_factors_need_no_gather() -> None:
    def twice(x: jax.Array) -> jax.Array:
        return resize.resize_10(x, _scales(1, 1, 2, 2))

    assert "gather" not in str(jax.make_jaxpr(twice)(normal(1, 2, 5, 6)))


def test_neither_scales_nor_sizes_is_refused() -> None:
    with pytest.raises(ShapeError, match="neither"):
        resize.resize(normal(1, 1, 2, 2))
