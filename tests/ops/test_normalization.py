from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jptq.engine import trace
from jptq.errors import UnsupportedOpError
from jptq.ir import from_bytes
from jptq.ops import normalization
from tests.graphs import Graph
from tests.ops.agreement import (
    check_against_onnxruntime,
    check_lowering,
    entry_of,
    normal,
    onnxruntime_outputs,
)
from tests.oracles import run_onnx


def _statistics() -> list[np.ndarray]:
    return [normal(2, 3, 4, 5), *(normal(3, seed=k) for k in (1, 2, 3)), normal(3, seed=4) ** 2]


@pytest.mark.parametrize("opset", [9, 15])
def test_batch_normalization_agrees_with_onnxruntime(opset: int) -> None:
    check_against_onnxruntime("BatchNormalization", _statistics(), {"epsilon": 1e-3}, opset=opset)


def test_channels_last_batch_normalization_equals_the_default() -> None:
    check_lowering("BatchNormalization", _statistics(), opset=15, expected="channels last")


def test_training_mode_is_refused() -> None:
    with pytest.raises(UnsupportedOpError, match="training"):
        normalization.batch_normalization(*_statistics(), training_mode=1)


def test_more_outputs_than_one_meant_training_before_opset_14() -> None:
    with pytest.raises(UnsupportedOpError, match="training"):
        normalization.batch_normalization_1(*_statistics(), n_outputs=5)


def test_outputs_without_a_name_do_not_mean_training() -> None:
    x, *parameters = _statistics()
    g = Graph(9)
    g.input("x", x.shape)
    g.output(g.add("BatchNormalization", "x", *map(g.constant, parameters)))
    expected = run_onnx(g.proto(), {"x": x})
    g.nodes[0].output.extend(["", "", "", ""])  # onnxruntime crashes on these
    actual = trace(from_bytes(g.proto().SerializeToString()), {"x": x})({"x": x})
    for name, array in actual.items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-5, atol=1e-5)


def test_statistics_per_position_broadcast() -> None:
    x, scale = jnp.asarray(normal(2, 3, 4)), jnp.asarray(normal(3, 4, seed=1))
    zeros, ones = jnp.zeros((3, 4)), jnp.ones((3, 4))
    y = normalization.batch_normalization_1(x, scale, zeros, zeros, ones, epsilon=0.0, spatial=0)
    np.testing.assert_allclose(np.asarray(y), np.asarray(x * scale), rtol=1e-6)


def test_instance_normalization_agrees_with_onnxruntime() -> None:
    inputs = [normal(2, 3, 4, 5), normal(3, seed=1), normal(3, seed=2)]
    check_against_onnxruntime("InstanceNormalization", inputs, opset=13)


def test_channels_last_instance_normalization_equals_the_default() -> None:
    inputs = [normal(2, 3, 4, 5), normal(3, seed=1), normal(3, seed=2)]
    check_lowering("InstanceNormalization", inputs, opset=13, expected="channels last")


@pytest.mark.parametrize("axis", [-1, 1])
def test_layer_normalization_agrees_with_onnxruntime(axis: int) -> None:
    shape = (2, 3, 4)[axis % 3 :]
    inputs = [normal(2, 3, 4), normal(*shape, seed=1), normal(*shape, seed=2)]
    check_against_onnxruntime("LayerNormalization", inputs, {"axis": axis}, opset=17, n_outputs=3)


@pytest.mark.parametrize("size", [3, 5])
def test_lrn_agrees_with_onnxruntime(size: int) -> None:
    check_against_onnxruntime("LRN", [normal(1, 6, 3, 3)], {"size": size, "alpha": 0.1}, opset=13)


@pytest.mark.parametrize("p", [1, 2])
def test_lp_normalization_agrees_with_onnxruntime(p: int) -> None:
    check_against_onnxruntime("LpNormalization", [normal(3, 4)], {"p": p}, opset=13)


@pytest.mark.parametrize("p", [1, 2])
def test_a_zero_vector_has_a_finite_gradient(p: int) -> None:
    total = jax.jit(jax.grad(lambda x: normalization.lp_normalization(x, p=p).sum()))
    gradient = total(np.zeros((2, 3), np.float32))
    assert np.isfinite(np.asarray(gradient)).all()


def test_groups_have_mean_zero_and_variance_one() -> None:
    x = jnp.asarray(normal(2, 6, 4, 4) * 3 + 1)
    y = normalization.group_normalization(x, jnp.ones(6), jnp.zeros(6), num_groups=3)
    groups = np.asarray(y).reshape(2, 3, -1)
    np.testing.assert_allclose(groups.mean(axis=2), 0, atol=1e-5)
    np.testing.assert_allclose(groups.var(axis=2), 1, atol=1e-3)


def test_group_parameters_of_opset_18_are_per_group() -> None:
    x, scale = jnp.asarray(normal(1, 4, 3)), jnp.asarray([2.0, 3.0])
    y = normalization.group_normalization_18(x, scale, jnp.zeros(2), num_groups=2)
    plain = normalization.group_normalization(x, jnp.ones(4), jnp.zeros(4), num_groups=2)
    factors = np.asarray(y) / np.asarray(plain)
    np.testing.assert_allclose(factors[0, :, 0], [2, 2, 3, 3], rtol=1e-5)


def test_small_floats_are_normalized_in_float32() -> None:
    x = jnp.full((1, 8), 300.0, jnp.float16).at[0, 0].set(100.0)
    y = normalization.rms_normalization(x, jnp.ones(8, jnp.float16))
    assert y.dtype == jnp.float16
    assert np.isfinite(np.asarray(y)).all()


@pytest.mark.parametrize(
    ("name", "opset", "parameters", "attributes"),
    [
        ("InstanceNormalization", 13, 2, {}),
        ("GroupNormalization", 18, 2, {"num_groups": 2}),
        ("GroupNormalization", 21, 2, {"num_groups": 2}),
        ("LpNormalization", 13, 0, {"axis": -1}),
        ("LRN", 13, 0, {"size": 3, "alpha": 0.1}),
        ("MeanVarianceNormalization", 13, 0, {"axes": [0, 2, 3]}),
    ],
)
def test_statistics_of_large_halves_do_not_overflow(
    name: str, opset: int, parameters: int, attributes: dict[str, Any]
) -> None:
    halves = [(normal(1, 2, 5, 10) * 400).astype(np.float16)]
    halves += [normal(2, seed=k + 1).astype(np.float16) for k in range(parameters)]
    same = [half.astype(np.float32) for half in halves]
    (expected,) = onnxruntime_outputs(name, same, attributes, opset=opset)
    keywords = {k: tuple(v) if isinstance(v, list) else v for k, v in attributes.items()}
    got = jax.jit(functools.partial(entry_of(name, opset).function, **keywords))(*halves)
    assert got.dtype == np.float16
    np.testing.assert_allclose(np.asarray(got, np.float32), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_statistics_of_a_layer_are_given_out_as_float32(dtype: type) -> None:
    ones = np.ones(4, dtype)
    with jax.enable_x64(True):
        y, mean, inverse = normalization.layer_normalization(
            jnp.asarray(normal(2, 4).astype(dtype)), ones, n_outputs=3
        )
    assert (y.dtype, mean.dtype, inverse.dtype) == (dtype, np.float32, np.float32)
