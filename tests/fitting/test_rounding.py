"""Rounding that keeps a layer's output, against every assignment of small problems."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from jptq.fitting import rounding
from jptq.fitting.grid import Grid


def _grid(weight: np.ndarray, scale: np.ndarray, limit: float) -> Grid:
    scale = np.broadcast_to(scale, weight.shape).astype(np.float64)
    nearest = np.clip(np.rint(weight / scale), -limit, limit)
    return Grid(
        weight=weight,
        scale=scale,
        nearest=nearest,
        limit=np.full(weight.shape, limit),
        largest=limit * scale,
        fixed=np.abs(weight) >= limit * scale,
    )


def _problem(seed: int, inputs: int, outputs: int, groups: int = 1) -> tuple[Grid, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((groups, 40, inputs)) @ rng.standard_normal((groups, inputs, inputs))
    scale = rng.uniform(0.2, 2.0, (groups, 1, outputs))
    weight = scale * rng.uniform(-2.0, 2.0, (groups, inputs, outputs))
    return _grid(weight, scale, 2.0), rounding.damped(rows.transpose(0, 2, 1) @ rows)


def _best(grid: Grid, hessian: np.ndarray) -> np.ndarray:
    """Return the least error of each output over all integers."""
    inputs = grid.weight.shape[1]
    every = np.asarray(list(itertools.product(range(-2, 3), repeat=inputs)), np.float64)
    found = np.empty((grid.weight.shape[0], grid.weight.shape[2]))
    for g, m in np.ndindex(found.shape):
        d = every * grid.scale[g, :, m] - grid.weight[g, :, m]
        found[g, m] = np.einsum("nk,kl,nl->n", d, hessian[g], d).min()
    return found


@pytest.mark.parametrize("inputs", [2, 3, 4])
def test_small_problems_are_solved_never_worse_than_by_the_nearest_and_mostly_best(
    inputs: int,
) -> None:
    optimal = total = 0
    for seed in range(30):
        grid, hessian = _problem(seed, inputs, 8)
        q = rounding.fitted(grid, hessian)
        assert np.array_equal(q, np.rint(q))
        assert np.abs(q).max() <= 2.0
        found = rounding.error(hessian, grid.scale * q - grid.weight)
        near = rounding.error(hessian, grid.scale * grid.nearest - grid.weight)
        best = _best(grid, hessian)
        assert (found <= near * (1 + 1e-12)).all()
        assert (found >= best * (1 - 1e-9)).all()
        optimal += int(np.sum(found <= best * (1 + 1e-9)))
        total += found.size
    assert optimal >= 0.8 * total


def test_no_single_integer_could_be_better() -> None:
    grid, hessian = _problem(5, 150, 3)
    q = rounding.fitted(grid, hessian)
    base = rounding.error(hessian, grid.scale * q - grid.weight)[0]
    for k, step in itertools.product(range(150), (-1.0, 1.0)):
        other = q.copy()
        other[0, k] += step
        error = rounding.error(hessian, grid.scale * other - grid.weight)[0]
        allowed = np.abs(other[0, k]) <= 2.0
        # The last round may leave a column that another one has just made wrong.
        assert (error >= base * 0.999)[allowed].all()


def test_more_columns_than_a_block_gain_much_over_the_nearest() -> None:
    grid, hessian = _problem(7, 200, 16)
    found = rounding.error(hessian, grid.scale * rounding.fitted(grid, hessian) - grid.weight)
    near = rounding.error(hessian, grid.scale * grid.nearest - grid.weight)
    assert found.sum() < 0.3 * near.sum()


def test_groups_are_problems_of_their_own() -> None:
    grid, hessian = _problem(3, 20, 4, groups=3)
    together = rounding.fitted(grid, hessian)
    for g in range(3):
        one = Grid(**{name: getattr(grid, name)[g : g + 1] for name in Grid.__dataclass_fields__})
        alone = rounding.fitted(one, hessian[g : g + 1])
        np.testing.assert_array_equal(together[g], alone[0])


def test_fixed_elements_stay_and_others_make_up_for_them() -> None:
    grid, hessian = _problem(11, 12, 6)
    assert not grid.fixed.any()
    fixed = np.zeros_like(grid.fixed)
    fixed[0, 4] = True
    held = Grid(**{**grid.__dict__, "fixed": fixed})
    q = rounding.fitted(held, hessian)
    np.testing.assert_array_equal(q[0, 4], grid.nearest[0, 4])
    found = rounding.error(hessian, grid.scale * q - grid.weight)
    near = rounding.error(hessian, grid.scale * grid.nearest - grid.weight)
    assert found.sum() < near.sum()


def test_inputs_that_never_change_are_rounded_to_the_nearest() -> None:
    rng = np.random.default_rng(0)
    weight = rng.uniform(-1.5, 1.5, (2, 5, 4))
    grid = _grid(weight, np.asarray(0.7), 2.0)
    scatter = np.zeros((2, 5, 5))
    scatter[0, 0, 0] = 3.0  # one input of the first group lives
    q = rounding.fitted(grid, rounding.damped(scatter))
    np.testing.assert_array_equal(q, grid.nearest)
