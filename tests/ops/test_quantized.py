"""Operators of networks that are quantized already, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.ops.agreement import check_against_onnxruntime

RNG = np.random.default_rng(0)


def _whole(dtype: type, *shape: int) -> np.ndarray:
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_matrices_of_whole_numbers_are_multiplied_exactly(dtype: type) -> None:
    inputs = [_whole(dtype, 2, 4, 9), _whole(dtype, 9, 5), np.asarray(3, dtype), _whole(dtype, 5)]
    check_against_onnxruntime("MatMulInteger", inputs, {}, opset=10)


@pytest.mark.parametrize("per_column", [False, True])
def test_quantized_matrices_agree(per_column: bool) -> None:
    scale = RNG.uniform(0.01, 0.02, 5 if per_column else ()).astype(np.float32)
    zero_point = np.zeros(5, np.int8) if per_column else np.asarray(-4, np.int8)
    inputs = [
        *(_whole(np.uint8, 4, 9), np.asarray(0.02, np.float32), np.asarray(130, np.uint8)),
        *(_whole(np.int8, 9, 5), scale, zero_point),
        *(np.asarray(0.13, np.float32), np.asarray(121, np.uint8)),
    ]
    check_against_onnxruntime("QLinearMatMul", inputs, {}, opset=10, atol=1)


CONVOLUTIONS: list[dict[str, Any]] = [
    {"pads": [1, 1, 1, 1]},
    {"strides": [2, 2], "group": 2, "auto_pad": "SAME_UPPER"},
]


@pytest.mark.parametrize("attributes", CONVOLUTIONS)
def test_convolutions_of_whole_numbers_are_exact(attributes: dict[str, Any]) -> None:
    channels = 4 // attributes.get("group", 1)
    inputs = [
        _whole(np.uint8, 1, 4, 5, 6),
        _whole(np.uint8, 6, channels, 3, 3),
        np.asarray(99, np.uint8),
    ]
    check_against_onnxruntime(
        "ConvInteger", [*inputs, np.asarray(7, np.uint8)], attributes, opset=10
    )


@pytest.mark.parametrize("attributes", CONVOLUTIONS)
def test_quantized_convolutions_agree(attributes: dict[str, Any]) -> None:
    channels = 4 // attributes.get("group", 1)
    inputs = [
        *(_whole(np.uint8, 1, 4, 5, 6), np.asarray(0.02, np.float32), np.asarray(130, np.uint8)),
        _whole(np.int8, 6, channels, 3, 3),
        RNG.uniform(0.01, 0.02, 6).astype(np.float32),
        np.zeros(6, np.int8),
        *(np.asarray(0.2, np.float32), np.asarray(121, np.uint8)),
        RNG.integers(-4000, 4000, 6).astype(np.int32),
    ]
    check_against_onnxruntime("QLinearConv", inputs, attributes, opset=10, atol=1)


@pytest.mark.parametrize("low", [-3.0, 0.0, 2.0])
def test_a_range_of_its_own_always_holds_zero(low: float) -> None:
    x = RNG.uniform(low, 5, (4, 7)).astype(np.float32)
    check_against_onnxruntime("DynamicQuantizeLinear", [x], {}, opset=11, n_outputs=3)
