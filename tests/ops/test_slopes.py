"""Derivatives are finite wherever values are, and right wherever they are smooth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jptq.ops import find
from tests.ops.agreement import together

Function = Callable[..., Any]


def _operator(name: str, opset: int = 22, **attributes: Any) -> Function:
    entry = find("", name, opset)
    assert entry is not None
    return lambda *inputs: entry.function(*inputs, **attributes)


UNARY: dict[str, tuple[Function, tuple[float, ...]]] = {
    "Acos": (np.arccos, (-0.9, 0.0, 0.4)),
    "Acosh": (np.arccosh, (1.1, 2.0, 30.0)),
    "Asin": (np.arcsin, (-0.9, 0.0, 0.4)),
    "Atanh": (np.arctanh, (-0.9, 0.0, 0.4)),
    "Cosh": (np.cosh, (-2.0, 0.0, 3.0)),
    "Exp": (np.exp, (-2.0, 0.0, 3.0)),
    "Log": (np.log, (1e-2, 1.0, 40.0)),
    "Reciprocal": (np.reciprocal, (-2.0, 1e-2, 30.0)),
    "Sinh": (np.sinh, (-2.0, 0.0, 3.0)),
    "Sqrt": (np.sqrt, (1e-2, 1.0, 40.0)),
    "Tan": (np.tan, (-1.0, 0.0, 1.4)),
}
"""Operators whose slope is infinite somewhere, with NumPy's function and smooth points."""

ANYWHERE = np.array(
    [-1e30, -100, -2, -1, -0.5, -1e-30, 0, 1e-42, 1e-30, 0.5, 1, 2, 89, 100, 1e30], np.float32
)


def test_slopes_are_differences_in_float64() -> None:
    h = 1e-6
    with jax.enable_x64(True):
        slopes = together(
            {
                name: lambda name=name, points=points: jax.vmap(jax.grad(_operator(name)))(
                    jnp.asarray(points)
                )
                for name, (_, points) in UNARY.items()
            }
        )
    for name, (function, points) in UNARY.items():
        x = np.array(points)
        differences = (function(x + h) - function(x - h)) / (2 * h)
        np.testing.assert_allclose(slopes[name], differences, rtol=1e-6, atol=1e-8, err_msg=name)


def test_no_finite_number_has_a_slope_that_is_not() -> None:
    def slopes(function: Function) -> Function:
        def all_of(x: jax.Array) -> tuple[jax.Array, ...]:
            forward = jax.jvp(function, (x,), (jnp.ones_like(x),))[1]
            return jax.grad(function)(x), forward, jax.grad(jax.grad(function))(x)

        return jax.vmap(all_of)

    for name, found in together({n: slopes(_operator(n)) for n in UNARY}, ANYWHERE).items():
        assert np.isfinite(found).all(), name


def test_values_are_those_of_numpy_everywhere() -> None:
    moderate = np.abs(ANYWHERE) > 1e-37  # XLA flushes what is subnormal
    for name, got in together({name: _operator(name) for name in UNARY}, ANYWHERE).items():
        with np.errstate(all="ignore"):
            expected = UNARY[name][0](ANYWHERE)
        np.testing.assert_allclose(
            got[moderate], expected[moderate], rtol=1e-5, atol=1e-37, err_msg=name
        )


@pytest.mark.parametrize(
    ("name", "smooth", "singular"),
    [
        ("Div", (3.0, 0.5), [(1.0, 0.0), (0.0, 0.0), (1e30, 1e-30)]),
        ("Pow", (3.0, 2.5), [(0.0, 0.5), (0.0, 0.0), (-2.0, 2.0), (0.0, -1.0), (1e30, 2.0)]),
    ],
)
def test_both_operands_have_a_finite_slope(
    name: str, smooth: tuple[float, float], singular: list[tuple[float, float]]
) -> None:
    slopes = jax.jit(jax.grad(_operator(name), (0, 1)))
    for point in singular:
        assert np.isfinite(slopes(*map(np.float32, point))).all(), point
    by_numpy = {"Div": np.divide, "Pow": np.power}[name]
    (x, y), h = smooth, 1e-6
    expected = [
        (by_numpy(x + h, y) - by_numpy(x - h, y)) / (2 * h),
        (by_numpy(x, y + h) - by_numpy(x, y - h)) / (2 * h),
    ]
    np.testing.assert_allclose(slopes(np.float32(x), np.float32(y)), expected, rtol=1e-5)


def test_a_constant_power_of_zero_has_the_slope_that_it_has() -> None:
    slope = jax.grad(_operator("Pow"))
    assert [float(slope(np.float32(0), np.float32(y))) for y in (0, 1, 2)] == [0, 1, 0]


def _norm(x: Any) -> Any:
    return _operator("Sqrt")(_operator("ReduceSum", 12, axes=(2, 3))(x * x))


def _log_where_positive(x: Any) -> Any:
    return _operator("Where")(x > 0, _operator("Log")(x), jnp.zeros_like(x))


def _reciprocal_where_positive(x: Any) -> Any:
    return _operator("Where")(x > 0, _operator("Reciprocal")(x), jnp.zeros_like(x))


def _softplus_where_small(x: Any) -> Any:
    spelled = _operator("Log")(1 + _operator("Exp")(500 * x))
    return _operator("Where")(x < 0.04, spelled, 500 * x)


ON_ZEROS: dict[str, Function] = {
    "GlobalLpPool": _operator("GlobalLpPool"),
    "LpNormalization": _operator("LpNormalization"),
    "LpPool": _operator("LpPool", kernel_shape=(2, 2)),
    "LpPool, p=3": _operator("LpPool", kernel_shape=(2, 2), p=3),
    "MeanVarianceNormalization": _operator("MeanVarianceNormalization", axes=(2, 3)),
    "ReduceL2": _operator("ReduceL2", 12, axes=(2, 3)),
    "ReduceProd": _operator("ReduceProd", 12, axes=(2, 3)),
    "a logarithm that is not taken": _log_where_positive,
    "a reciprocal that is not taken": _reciprocal_where_positive,
    "a softplus beyond its range": _softplus_where_small,
    "the root of a sum of squares": _norm,
}
"""Of ``[1, 3, 4, 4]`` with a channel that a Relu has switched off."""


def test_a_channel_of_zeros_has_a_finite_gradient_and_the_others_theirs() -> None:
    rng = np.random.default_rng(0)
    x = np.abs(rng.normal(size=(1, 3, 4, 4))) + 0.05
    x[0, 1] = 0
    direction, h = rng.normal(size=x.shape), 1e-6
    direction[0, 1] = 0

    def all_of(function: Function) -> Function:
        def total(at: Any) -> Any:
            return jnp.sum(jnp.sin(function(at)))

        return lambda x, step: (jax.grad(total)(x), total(x + step), total(x - step))

    with jax.enable_x64(True):
        found = together({n: all_of(f) for n, f in ON_ZEROS.items()}, x, h * direction)
    for name, (gradient, ahead, behind) in found.items():
        assert np.isfinite(gradient).all(), name
        slope = (gradient * direction).sum()
        assert slope == pytest.approx((ahead - behind) / (2 * h), rel=1e-5), name
