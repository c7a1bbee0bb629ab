from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jptq.errors import ShapeError
from jptq.ops import Cost, maxima, windows
from tests.ops.agreement import (
    One,
    check_against_onnxruntime,
    check_all_against_onnxruntime,
    check_lowering,
    check_lowerings,
    entry_of,
    normal,
)

WINDOWS: dict[str, dict[str, Any]] = {
    "strided": {"kernel_shape": [2, 2], "strides": [2, 2]},
    "padded": {"kernel_shape": [3, 3], "pads": [1, 0, 0, 1]},
    "same": {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    "ceiled": {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    "ceiled, padded": {
        "kernel_shape": [3, 3],
        "strides": [2, 3],
        "pads": [1, 1, 1, 1],
        "ceil_mode": 1,
    },
    "ceiled, valid": {
        "kernel_shape": [3, 2],
        "strides": [2, 2],
        "auto_pad": "VALID",
        "ceil_mode": 1,
    },
    "dilated": {"kernel_shape": [2, 3], "dilations": [2, 1], "pads": [1, 1, 0, 1]},
    "last window past the input": {"kernel_shape": [1, 1], "strides": [3, 3], "ceil_mode": 1},
    "less than a stride too long": {"kernel_shape": [2, 5], "strides": [2, 3], "dilations": [1, 2]},
    "one stride too long": {"kernel_shape": [4, 2], "strides": [2, 1], "dilations": [3, 1]},
}


def _nodes(*, n_outputs: int = 1, **more: int) -> dict[str, One]:
    """Return a node for each kind of window, with more attributes."""
    return {
        label: One(
            inputs=[normal(2, 3, 8, 7)],
            attributes={**attributes, **more},
            n_outputs=n_outputs,
            lowering="channels last",
        )
        for label, attributes in WINDOWS.items()
    }


def test_max_pool_agrees_with_onnxruntime() -> None:
    check_all_against_onnxruntime("MaxPool", _nodes(), opset=19)


@pytest.mark.parametrize("storage_order", [0, 1])
def test_max_pool_finds_the_places_that_onnxruntime_finds(storage_order: int) -> None:
    nodes = _nodes(n_outputs=2, storage_order=storage_order)
    check_all_against_onnxruntime("MaxPool", nodes, opset=19)


def test_the_places_of_low_integers_are_never_on_a_pad() -> None:
    x = jnp.full((1, 1, 3, 3), -128, jnp.int8)
    _, places = maxima.max_pool(x, kernel_shape=(3, 3), pads=(1, 1, 1, 1), n_outputs=2)
    np.testing.assert_array_equal(np.asarray(places)[0, 0], [[0, 0, 1], [0, 0, 1], [3, 3, 4]])


@pytest.mark.parametrize("count_include_pad", [0, 1])
def test_average_pool_agrees_with_onnxruntime(count_include_pad: int) -> None:
    nodes = _nodes(count_include_pad=count_include_pad)
    check_all_against_onnxruntime("AveragePool", nodes, opset=19)


def test_lp_pool_agrees_with_onnxruntime() -> None:
    check_all_against_onnxruntime("LpPool", _nodes(p=3), opset=18, atol=1e-4)


@pytest.mark.parametrize("name", ["MaxPool", "AveragePool"])
def test_channels_last_pooling_equals_the_default(name: str) -> None:
    nodes = _nodes()
    del nodes["one stride too long"]
    check_lowerings(name, nodes, opset=19)


@pytest.mark.parametrize("name", ["GlobalAveragePool", "GlobalMaxPool"])
def test_channels_last_global_pooling_equals_the_default(name: str) -> None:
    check_lowering(name, [normal(2, 3, 4, 5)], opset=13, expected="channels last")


@pytest.mark.parametrize("name", ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
def test_global_pooling_agrees_with_onnxruntime(name: str) -> None:
    check_against_onnxruntime(name, [normal(2, 3, 4, 5)], opset=13)


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("AveragePool", {"kernel_shape": [50]}),
        ("LpPool", {"kernel_shape": [50]}),
        ("GlobalAveragePool", {}),
        ("GlobalLpPool", {}),
    ],
)
def test_windows_of_halves_are_summed_without_overflow(
    name: str, attributes: dict[str, Any]
) -> None:
    x = (np.abs(normal(1, 2, 50)) * 4000).astype(np.float16)
    check_against_onnxruntime(name, [x], attributes, opset=18, rtol=1e-3)


@pytest.mark.parametrize("name", ["MaxPool", "AveragePool"])
def test_no_window_starts_past_the_input(name: str) -> None:
    attributes = {"kernel_shape": [1], "strides": [4], "pads": [0, 0], "ceil_mode": 1}
    check_against_onnxruntime(name, [normal(1, 2, 4)], attributes, opset=19)


@pytest.mark.parametrize("name", ["MaxPool", "AveragePool", "LpPool"])
@pytest.mark.parametrize(("dilation", "ceil_mode"), [(10, 0), (12, 1), (20, 1)])
def test_a_window_more_than_a_stride_too_long_is_refused(
    name: str, dilation: int, ceil_mode: int
) -> None:
    attributes = {"kernel_shape": (2,), "strides": (3,), "dilations": (dilation,)}
    with pytest.raises(ShapeError, match="over an axis of 7"):
        entry_of(name, 22).function(jnp.zeros((1, 1, 7)), **attributes, ceil_mode=ceil_mode)


def test_the_gradient_of_a_maximum_goes_to_its_place() -> None:
    x = jnp.arange(16.0).reshape(1, 1, 4, 4)
    gradient = jax.grad(lambda x: maxima.max_pool(x, kernel_shape=(2, 2), strides=(2, 2)).sum())(x)
    assert np.flatnonzero(np.asarray(gradient)).tolist() == [5, 7, 13, 15]


def test_unpooling_puts_maxima_back() -> None:
    @jax.jit
    def there_and_back(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        y, places = maxima.max_pool(x, kernel_shape=(2, 2), strides=(2, 2), n_outputs=2)
        return y, maxima.max_unpool(y, places, kernel_shape=(2, 2), strides=(2, 2))

    x = normal(1, 2, 4, 4)
    y, back = there_and_back(x)
    kept = np.asarray(back) != 0
    assert kept.sum() == y.size
    np.testing.assert_array_equal(np.asarray(back)[kept], np.asarray(x)[kept])


def test_pooling_counts_an_operation_per_output_and_tap() -> None:
    cost = windows.window_cost((1, 3, 8, 8), (1, 3, 4, 4), kernel_shape=(2, 2))
    assert cost == Cost(vector=3 * 16 * 4)
