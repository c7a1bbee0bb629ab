from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jptq.errors import ShapeError
from jptq.ops import Cost, convolution, deconvolution
from tests.ops.agreement import (
    One,
    check_against_onnxruntime,
    check_all_against_onnxruntime,
    check_lowering,
    check_lowerings,
    entry_of,
    normal,
)

CONVOLUTIONS: dict[str, tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "1x1": ("pointwise", (2, 3, 5, 4), (6, 3, 1, 1), {}),
    "1x1, strided": ("pointwise", (2, 3, 5, 4), (6, 3, 1, 1), {"strides": [2, 3]}),
    "1x1, same": (
        "pointwise",
        (1, 3, 5, 4),
        (6, 3, 1, 1),
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
    ),
    "1x1, padded": ("dense", (1, 3, 5, 4), (6, 3, 1, 1), {"pads": [1, 0, 0, 2]}),
    "3x3": ("dense", (2, 3, 6, 5), (4, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
    "3x3, uneven": (
        "dense",
        (1, 3, 9, 8),
        (4, 3, 3, 2),
        {"pads": [0, 1, 2, 0], "strides": [2, 1], "dilations": [1, 2]},
    ),
    "same lower": ("dense", (1, 3, 6, 5), (4, 3, 2, 3), {"auto_pad": "SAME_LOWER"}),
    "one axis": ("dense", (2, 3, 9), (4, 3, 3), {"pads": [1, 1]}),
    "three axes": ("dense", (1, 2, 4, 5, 3), (3, 2, 2, 2, 2), {}),
    "groups": ("dense", (1, 6, 5, 5), (4, 3, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
    "depthwise": ("depthwise", (2, 4, 6, 5), (4, 1, 3, 3), {"group": 4, "pads": [1, 1, 1, 1]}),
    "depthwise, strided": (
        "depthwise",
        (1, 4, 9, 8),
        (4, 1, 5, 3),
        {"group": 4, "strides": [2, 3], "dilations": [2, 1], "pads": [1, 0, 2, 1]},
    ),
    "depthwise, multiplier": ("depthwise", (1, 3, 6, 5), (6, 1, 3, 3), {"group": 3}),
    "depthwise, one axis": ("depthwise", (1, 3, 8), (3, 1, 3), {"group": 3}),
    # XLA ended the process when it compiled the derivative (`jptq.ops.sliding`).
    "longer than the input, strided": (
        "dense",
        (1, 2, 1, 8),
        (3, 2, 3, 2),
        {"strides": [1, 2], "pads": [1, 1, 1, 1]},
    ),
}

TRANSPOSED: dict[str, tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "tiling": ("tiling", (2, 3, 4, 5), (3, 4, 2, 3), {"strides": [2, 3]}),
    "overlapping": (
        "dense",
        (1, 3, 4, 5),
        (3, 4, 3, 3),
        {"strides": [2, 2], "pads": [1, 0, 0, 1], "output_padding": [1, 0]},
    ),
    "dilated": ("dense", (1, 3, 4, 5), (3, 2, 2, 3), {"dilations": [2, 1]}),
    "given shape": (
        "dense",
        (1, 2, 4, 4),
        (2, 3, 3, 3),
        {"strides": [2, 2], "output_shape": [8, 8]},
    ),
    "given shape beyond the kernels": (
        "dense",
        (1, 2, 4, 4),
        (2, 3, 3, 3),
        {"strides": [2, 2], "output_shape": [10, 8], "auto_pad": "SAME_UPPER"},
    ),
    "same upper, gaps": (
        "dense",
        (1, 2, 4, 4),
        (2, 3, 1, 2),
        {"strides": [2, 5], "auto_pad": "SAME_UPPER"},
    ),
    "same lower, gaps": (
        "depthwise",
        (1, 2, 4, 4),
        (2, 1, 1, 2),
        {"strides": [2, 3], "auto_pad": "SAME_LOWER", "group": 2},
    ),
    "depthwise": (
        "depthwise",
        (1, 4, 4, 5),
        (4, 1, 4, 4),
        {"group": 4, "strides": [2, 2], "pads": [1, 1, 1, 1]},
    ),
    "one axis": ("tiling", (1, 3, 5), (3, 2, 2), {"strides": [2]}),
    # XLA ended the process when it compiled these (`jptq.ops.sliding`).
    "longer than the input": (
        "dense",
        (1, 2, 1, 5),
        (2, 3, 3, 2),
        {"strides": [1, 2], "pads": [1, 1, 1, 1]},
    ),
    "longer than the input, three axes": (
        "dense",
        (1, 2, 1, 5, 3),
        (2, 3, 3, 2, 2),
        {"strides": [1, 2, 3], "pads": [1, 1, 1, 0, 1, 2]},
    ),
}


def _nodes(
    table: Mapping[str, Any], channels: Callable[[tuple[int, ...], int], int]
) -> dict[str, One]:
    """Return nodes with a bias of so many channels."""
    nodes = {}
    for label, (lowering, x, w, attributes) in table.items():
        bias = normal(channels(w, attributes.get("group", 1)), seed=2)
        inputs = [normal(*x), normal(*w, seed=1), bias]
        nodes[label] = One(inputs=inputs, attributes=attributes, lowering=lowering)
    return nodes


CONV = _nodes(CONVOLUTIONS, lambda w, group: w[0])
CONV_TRANSPOSE = _nodes(TRANSPOSED, lambda w, group: w[1] * group)


def test_conv_agrees_with_onnxruntime() -> None:
    check_all_against_onnxruntime("Conv", CONV, opset=13)


def test_conv_lowerings_equal_the_default() -> None:
    check_lowerings("Conv", CONV, opset=13)


def test_a_lowering_without_bias_equals_the_default() -> None:
    inputs = [normal(1, 3, 4, 4), normal(2, 3, 1, 1, seed=1)]
    check_lowering("Conv", inputs, opset=13, expected="pointwise")


def test_conv_transpose_agrees_with_onnxruntime() -> None:
    check_all_against_onnxruntime("ConvTranspose", CONV_TRANSPOSE, opset=13)


def test_conv_transpose_lowerings_equal_the_default() -> None:
    check_lowerings("ConvTranspose", CONV_TRANSPOSE, opset=13)


def test_grouped_conv_transpose_agrees_with_onnxruntime() -> None:
    inputs = [normal(1, 4, 3, 3), normal(4, 3, 2, 2, seed=1)]
    check_against_onnxruntime("ConvTranspose", inputs, {"group": 2, "strides": [2, 2]}, opset=13)


@pytest.mark.parametrize("name", ["Conv", "ConvTranspose", "DeformConv"])
def test_a_kernel_shape_that_contradicts_the_weight_is_refused(name: str) -> None:
    inputs = [normal(1, 1, 6, 6), normal(1, 1, 3, 3), *([normal(1, 18, 4, 4)] * (name[0] == "D"))]
    with pytest.raises(ShapeError, match=r"kernel_shape is \[5, 5\](.|\n)*taps \[3, 3\]"):
        entry_of(name, 22).function(*inputs, kernel_shape=(5, 5))


def test_conv_counts_a_product_per_output_and_tap() -> None:
    cost = convolution._conv_cost((1, 6, 8, 8), (4, 3, 3, 3), (1, 4, 6, 6), group=2)
    assert cost == Cost(macs=4 * 36 * 27)


def test_conv_transpose_counts_a_product_per_input_and_tap() -> None:
    cost = deconvolution._conv_transpose_cost((1, 6, 8, 8), (6, 4, 2, 2), (1, 4, 16, 16))
    assert cost == Cost(macs=6 * 64 * 16)


def test_packing_keeps_the_order_of_output_channels() -> None:
    w = normal(4, 3, 2, 2)
    packed = np.asarray(convolution.to_taps_in_out(w))
    np.testing.assert_array_equal(packed[1, 0, 2], w[:, 2, 1, 0])


def test_a_kernel_longer_than_its_input_is_refused_and_transposed_runs() -> None:
    x, w = normal(1, 2, 2), normal(2, 2, 3)
    with pytest.raises(ShapeError, match="a window of 3 positions over an axis of 2"):
        convolution.conv(jnp.asarray(x), jnp.asarray(w))
    check_against_onnxruntime("ConvTranspose", [x, w], {"strides": [2]}, opset=11)
