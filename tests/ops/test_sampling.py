from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jptq.errors import ShapeError, StaticInputError
from jptq.ops import sampling
from tests.ops.agreement import (
    One,
    check_against_onnxruntime,
    check_all_against_onnxruntime,
    normal,
)


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
def test_grid_sample_agrees_with_onnxruntime(mode: str) -> None:
    nodes = {
        f"{padding_mode} {align_corners}": One(
            inputs=[normal(2, 3, 5, 4), normal(2, 6, 3, 2, seed=1)],
            attributes={
                "mode": mode,
                "padding_mode": padding_mode,
                "align_corners": align_corners,
            },
        )
        for padding_mode in ("zeros", "border", "reflection")
        for align_corners in (0, 1)
    }
    # Rounding moves a place by 1e-6, and 16 weights of a cubic with it.
    atol = 4e-5 if mode == "cubic" else 1e-5
    check_all_against_onnxruntime("GridSample", nodes, opset=20, atol=atol)


def test_volumes_are_sampled_too() -> None:
    inputs = [normal(1, 2, 3, 5, 4), normal(1, 2, 3, 4, 3, seed=1)]
    check_against_onnxruntime("GridSample", inputs, opset=20)


def test_the_gradient_by_the_grid_is_the_finite_difference() -> None:
    x, grid = jnp.asarray(normal(1, 1, 5, 5)), jnp.full((1, 1, 1, 2), 0.13)

    @jax.jit
    def both(grid: jax.Array) -> tuple[jax.Array, jax.Array]:
        def value(grid: jax.Array) -> jax.Array:
            return sampling.grid_sample(x, grid).sum()

        step = jnp.zeros_like(grid).at[..., 0].set(1e-2)
        return jax.grad(value)(grid)[0, 0, 0, 0], (value(grid + step) - value(grid - step)) / 2e-2

    exact, numeric = both(grid)
    np.testing.assert_allclose(exact, numeric, rtol=1e-2)


def test_positions_that_are_not_numbers_stay_inside_memory() -> None:
    grid = jnp.array([np.nan, np.inf]).reshape(1, 1, 1, 2)
    sample = jax.jit(functools.partial(sampling.grid_sample, mode="nearest"))
    y = sample(jnp.ones((1, 1, 3, 3)), grid)
    assert np.isin(np.asarray(y), (0, 1)).all()


@pytest.mark.parametrize("align_corners", [0, 1])
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (1, 2, 3, 4, 5)])
def test_affine_grid_agrees_with_onnxruntime(size: tuple[int, ...], align_corners: int) -> None:
    rank = len(size) - 2
    inputs = [normal(size[0], rank, rank + 1), np.array(size, np.int64)]
    check_against_onnxruntime("AffineGrid", inputs, {"align_corners": align_corners}, opset=20)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("opset", [10, 16])
def test_roi_align_agrees_with_onnxruntime(mode: str, opset: int) -> None:
    rois = np.array([[0, 0, 9, 7], [3, 2, 3.5, 12], [-9, -9, 30, 30]], np.float32)
    inputs = [np.abs(normal(2, 3, 8, 9)), rois, np.array([0, 1, 1], np.int64)]
    attributes = {"mode": mode, "output_height": 3, "output_width": 2, "sampling_ratio": 2}
    check_against_onnxruntime("RoiAlign", inputs, attributes, opset=opset)


def test_a_number_of_samples_per_region_is_refused() -> None:
    with pytest.raises(StaticInputError, match="sampling_ratio"):
        sampling.roi_align(jnp.zeros((1, 1, 4, 4)), jnp.zeros((1, 4)), jnp.zeros(1, jnp.int32))


def test_columns_of_ones_count_the_windows_of_each_position() -> None:
    columns = jnp.ones((1, 4, 9))
    y = sampling.col2im(columns, np.array([4, 4]), np.array([2, 2]))
    np.testing.assert_array_equal(np.asarray(y)[0, 0, 0], [1, 2, 2, 1])


def test_a_wrong_number_of_columns_is_refused() -> None:
    with pytest.raises(ShapeError, match="9 windows"):
        sampling.col2im(jnp.ones((1, 4, 8)), np.array([4, 4]), np.array([2, 2]))
