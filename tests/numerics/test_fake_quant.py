from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jptq.numerics.affine import affine
from jptq.numerics.fake_quant import fake_quant, on_grid, quantize
from jptq.numerics.qtypes import INT8, INT16, QType

KINDS = [INT8, INT16]

compiled = jax.jit(fake_quant)


def naive(x: np.ndarray, scale: np.float32, offset: int, kind: QType) -> np.ndarray:
    """Quantize one number after the other, as ONNX words QuantizeLinear and DequantizeLinear."""
    out = np.empty_like(x)
    for i, value in np.ndenumerate(x):
        step = round(float(value / scale)) + offset  # round() is half to even
        out[i] = np.float32(min(max(step, kind.lower), kind.upper) - offset) * scale
    return out


def grid(
    threshold: float, kind: QType, *, gate: float = 1.0, offset: float = 0.0
) -> tuple[jax.Array, ...]:
    """Return the arguments after ``x``."""
    scale = affine(np.array([threshold], np.float32), kind).scale[0]
    return tuple(jnp.asarray(v, jnp.float32) for v in (scale, offset, kind.lower, kind.upper, gate))


def normal(size: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(size) * scale).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_those_of_a_naive_quantizer(kind: QType) -> None:
    x = normal(500, scale=1.5)
    arguments = grid(2.0, kind)
    scale = np.float32(arguments[0])
    found = np.asarray(compiled(x, *arguments))
    np.testing.assert_array_equal(found, naive(x, scale, 0, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_ties_of_real_scales_round_as_a_division_does_and_not_a_reciprocal(kind: QType) -> None:
    arguments = grid(2.0, kind)
    scale = np.float32(arguments[0])
    halves = (np.arange(kind.lower, kind.upper, max(1, kind.upper // 500)) + 0.5) * float(scale)
    x = halves.astype(np.float32)  # as near to a tie as float32 comes, exactly on it or not
    np.testing.assert_array_equal(np.asarray(compiled(x, *arguments)), naive(x, scale, 0, kind))


@pytest.mark.parametrize("scale", [1e-8, 1e-6, 1e-5, 1e-4, 1.0, 100.0, 1e5])
def test_a_grid_without_integers_is_a_saturated_cast_to_float16(scale: float) -> None:
    x = normal(2000, scale=scale)
    off = [jnp.float32(v) for v in (1, 0, 0, 0)]
    expected = np.clip(x, -65504, 65504).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(compiled(x, *off, jnp.float32(1))), expected)
    np.testing.assert_array_equal(np.asarray(compiled(x, *off, jnp.float32(0))), x)


def test_the_derivative_of_float16_is_straight_through_up_to_its_largest_number() -> None:
    off = [jnp.float32(v) for v in (1, 0, 0, 0, 1)]
    slopes = jax.vmap(jax.grad(lambda v: fake_quant(v, *off)))(jnp.array([0.1, 7e4, -7e4]))
    np.testing.assert_array_equal(np.asarray(slopes), [1, 0, 0])


def test_ties_go_to_the_even_integer() -> None:
    one = jnp.float32(1)
    x = jnp.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], jnp.float32)
    found = quantize(x, one, jnp.float32(0), jnp.float32(-128), jnp.float32(127))
    np.testing.assert_array_equal(np.asarray(found), [-2, -2, 0, 0, 2, 2])


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_range_of_integers_is_used(kind: QType) -> None:
    x = jnp.array([-1e9, -1.0, 1.0, 1e9], jnp.float32) * kind.upper
    bounds = (jnp.float32(kind.lower), jnp.float32(kind.upper))
    found = np.asarray(quantize(x, jnp.float32(1), jnp.float32(0), *bounds))
    np.testing.assert_array_equal(found, [kind.lower, -kind.upper, kind.upper, kind.upper])


@given(st.integers(0, 2**31), st.floats(2.0**-60, 2.0**60), st.sampled_from(KINDS))
@settings(max_examples=40, deadline=None)
def test_quantizing_twice_is_quantizing_once(seed: int, threshold: float, kind: QType) -> None:
    arguments = grid(threshold, kind)
    once = compiled(normal(64, seed, threshold), *arguments)
    np.testing.assert_array_equal(np.asarray(compiled(once, *arguments)), np.asarray(once))


@given(st.integers(0, 2**31), st.floats(-3, 0, width=32), st.floats(0, 3, width=32))
@settings(max_examples=40, deadline=None)
def test_asymmetric_grids_keep_zero_and_are_idempotent(seed: int, low: float, high: float) -> None:
    found = affine(np.array([low, high], np.float32), INT8, asymmetric=True)
    arguments = (found.scale[0], found.offset[0], np.float32(-128), np.float32(127), np.float32(1))
    x = np.append(normal(63, seed), np.float32(0))
    once = compiled(x, *arguments)
    assert once[-1] == 0
    np.testing.assert_array_equal(np.asarray(compiled(once, *arguments)), np.asarray(once))


def test_an_offset_shifts_the_integers_and_not_the_values() -> None:
    x = normal(200)
    scale, _, lower, upper, gate = grid(2.0, INT8)
    shifted = compiled(x, scale, jnp.float32(-28), lower, upper, gate)
    inside = (x > -1.5) & (x < 2.0)
    plain = compiled(x, scale, jnp.float32(0), lower, upper, gate)
    np.testing.assert_array_equal(np.asarray(shifted)[inside], np.asarray(plain)[inside])
    assert float(shifted.min()) >= -1.6


def test_gate_zero_passes_every_bit() -> None:
    x = np.array([0.1, -0.0, 1e-40, 3e38, -np.inf, np.inf, np.nan], np.float32)
    found = np.asarray(compiled(x, *grid(1.0, INT8, gate=0.0)))
    np.testing.assert_array_equal(found.view(np.uint32), x.view(np.uint32))


@pytest.mark.parametrize("kind", KINDS)
def test_gate_one_gives_exactly_the_grid(kind: QType) -> None:
    # 1e8 and a scale of about 1e-3: the blend x + (q - x) would lose q.
    x = np.array([1e8, -1e8, 0.3, 1e-5], np.float32)
    scale, offset, lower, upper, gate = grid(0.1, kind)
    found = np.asarray(compiled(x, scale, offset, lower, upper, gate))
    want = np.asarray(quantize(jnp.asarray(x), scale, offset, lower, upper) * scale)
    np.testing.assert_array_equal(found.view(np.uint32), want.view(np.uint32))


def test_channels_have_scales_of_their_own() -> None:
    x = normal(12).reshape(3, 4)
    scales = affine(np.array([1.0, 2.0, 4.0], np.float32), INT8).scale
    bounds = [np.float32(v) for v in (0, -128, 127, 1)]
    found = compiled(x, scales[:, None], *bounds)
    for row, scale in enumerate(scales):
        np.testing.assert_array_equal(
            np.asarray(found)[row], np.asarray(compiled(x[row], scale, *bounds))
        )


@pytest.mark.parametrize(("gate", "outside"), [(0.0, 1.0), (1.0, 0.0)])
def test_the_derivative_is_straight_through_inside_and_blocked_outside(
    gate: float, outside: float
) -> None:
    arguments = grid(1.0, INT8, gate=gate)

    def total(x: jax.Array) -> jax.Array:
        return fake_quant(x, *arguments).sum()

    x = jnp.array([-5.0, -1.0, -0.3, 0.0, 0.7, 1.0, 5.0], jnp.float32)
    slopes = np.asarray(jax.jit(jax.grad(total))(x))
    np.testing.assert_allclose(slopes, [outside, 1, 1, 1, 1, 1, outside])


@pytest.mark.parametrize("gate", [0.0, 1.0])
def test_the_derivative_by_the_gate_is_the_quantization_error(gate: float) -> None:
    x = normal(30, scale=2.0)
    scale, offset, lower, upper, _ = grid(1.0, INT8)

    def moved(g: jax.Array) -> jax.Array:
        return fake_quant(jnp.asarray(x), scale, offset, lower, upper, g)

    _, slope = jax.jit(lambda g, dg: jax.jvp(moved, (g,), (dg,)))(jnp.float32(gate), jnp.float32(1))
    on_grid = compiled(x, scale, offset, lower, upper, jnp.float32(1))
    # A compiler may fuse the product and the difference into one rounding.
    np.testing.assert_allclose(np.asarray(slope), np.asarray(on_grid) - x, atol=1e-6)


def test_values_do_not_depend_on_whether_a_derivative_is_taken() -> None:
    x = jnp.asarray(normal(100, scale=3.0))
    for gate in (0.0, 1.0):
        arguments = grid(1.0, INT8, gate=gate)
        plain = jax.jit(fake_quant)(x, *arguments)
        traced, _ = jax.jit(lambda v, a=arguments: jax.vjp(lambda u: fake_quant(u, *a), v))(x)
        np.testing.assert_array_equal(np.asarray(plain), np.asarray(traced))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_a_constant_takes_the_grid_of_each_of_its_channels(axis: int) -> None:
    constant = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    thresholds = np.linspace(0.5, 2.0, constant.shape[axis]).astype(np.float32)
    scale = np.expand_dims(thresholds / np.float32(127), 1 - axis % 2)
    want = np.clip(np.rint(constant / scale), -128, 127)
    np.testing.assert_array_equal(on_grid(constant, affine(thresholds, INT8), axis), want)
    whole = np.clip(np.rint(constant / (np.float32(2) / np.float32(127))), -128, 127)
    one = affine(np.array([2.0], np.float32), INT8)
    np.testing.assert_array_equal(on_grid(constant, one, None), whole)


@pytest.mark.parametrize("kind", [INT8, INT16])
def test_constants_are_put_on_the_same_integers_as_tensors(kind: QType) -> None:
    constant = np.random.default_rng(1).standard_normal((4, 4096)).astype(np.float32)
    constant[0, :64] = np.arange(64, dtype=np.float32) / 2  # ties of a step of 1
    thresholds = np.array([kind.upper, 0.7, 1e-3, 3.0], np.float32)
    one = affine(thresholds, kind)
    scale, offset = (jnp.asarray(v).reshape(-1, 1) for v in (one.scale, one.offset))
    bounds = jnp.float32(one.lower), jnp.float32(one.upper)
    want = jax.jit(quantize)(jnp.asarray(constant), scale, offset, *bounds)
    np.testing.assert_array_equal(on_grid(constant, one, 0), np.asarray(want))
