from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jptq.errors import ShapeError
from jptq.ops import shape
from tests.ops.agreement import check_against_onnxruntime, check_lowering, normal


def _ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@pytest.mark.parametrize("wanted", [(4, 6), (-1, 3), (0, -1), (2, 0, 2, 2)])
def test_reshape_agrees_with_onnxruntime(wanted: tuple[int, ...]) -> None:
    check_against_onnxruntime("Reshape", [normal(2, 3, 4), _ints(*wanted)], opset=14)


def test_allowzero_makes_an_axis_empty() -> None:
    assert shape.reshape(jnp.zeros((0, 3)), _ints(3, 0), allowzero=1).shape == (3, 0)


def test_a_shape_that_does_not_fit_is_refused_with_a_hint_on_the_batch() -> None:
    with pytest.raises(ShapeError, match="batch"):
        shape.reshape(jnp.zeros((2, 3)), _ints(1, 3))


@pytest.mark.parametrize("axis", [0, 1, 3, -1])
def test_flatten_agrees_with_onnxruntime(axis: int) -> None:
    check_against_onnxruntime("Flatten", [normal(2, 3, 4)], {"axis": axis}, opset=13)


def test_squeeze_and_unsqueeze_are_inverse_in_both_forms() -> None:
    x = jnp.asarray(normal(2, 3))
    for wide in (shape.unsqueeze(x, _ints(0, -1)), shape.unsqueeze_1(x, axes=(0, 3))):
        assert wide.shape == (1, 2, 3, 1)
        assert shape.squeeze(wide).shape == x.shape
        assert shape.squeeze_1(wide, axes=(0,)).shape == (2, 3, 1)
        np.testing.assert_array_equal(np.asarray(shape.squeeze(wide, _ints(0, 3))), np.asarray(x))


@pytest.mark.parametrize("wanted", [(2, 3, 4), (3, 1), (1, 1, 1)])
def test_expand_agrees_with_onnxruntime(wanted: tuple[int, ...]) -> None:
    check_against_onnxruntime("Expand", [normal(3, 1), _ints(*wanted)], opset=13)


def test_tile_agrees_with_onnxruntime() -> None:
    check_against_onnxruntime("Tile", [normal(2, 3), _ints(2, 1)], opset=13)


def test_tile_of_opset_1_repeats_one_axis() -> None:
    x = jnp.asarray(normal(2, 3))
    y = shape.tile_1(x, np.array([2]), np.array([1]))
    np.testing.assert_array_equal(np.asarray(y), np.tile(np.asarray(x), (1, 2)))


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_agrees_with_onnxruntime(mode: str) -> None:
    attributes = {"blocksize": 2, "mode": mode}
    check_against_onnxruntime("DepthToSpace", [normal(2, 8, 3, 2)], attributes, opset=13)


def test_space_to_depth_agrees_with_onnxruntime() -> None:
    check_against_onnxruntime("SpaceToDepth", [normal(2, 3, 4, 6)], {"blocksize": 2}, opset=13)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_space_to_depth_undoes_depth_to_space(mode: str) -> None:
    x = jnp.asarray(normal(1, 8, 3, 2))
    wide = shape.depth_to_space(x, blocksize=2, mode=mode)
    back = shape.space_to_depth(wide, blocksize=2, mode=mode)
    np.testing.assert_array_equal(np.asarray(back), np.asarray(x))


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
@pytest.mark.parametrize(
    ("name", "x"), [("DepthToSpace", (2, 8, 3, 2)), ("SpaceToDepth", (2, 2, 4, 6))]
)
def test_channels_last_block_views_equal_the_default(
    name: str, x: tuple[int, ...], mode: str
) -> None:
    attributes = {"blocksize": 2, "mode": mode}
    check_lowering(name, [normal(*x)], attributes, opset=28, expected="channels last")
