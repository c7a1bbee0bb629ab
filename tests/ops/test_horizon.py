"""The vendor's operators against the ONNX operators that they abbreviate."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import onnx
import onnx.reference
import pytest

from jptq.errors import ModelError
from jptq.ops import find, horizon

X = np.random.default_rng(3).normal(scale=3, size=(2, 8, 4, 6)).astype(np.float32)


def _onnx(op: str, *inputs: np.ndarray, **attributes) -> np.ndarray:
    names = [f"x{index}" for index in range(len(inputs))]
    node = onnx.helper.make_node(op, names, ["y"], **attributes)
    kind = onnx.TensorProto.FLOAT
    typed = [
        onnx.helper.make_tensor_value_info(name, kind, x.shape)
        for name, x in zip(names, inputs, strict=True)
    ]
    result = onnx.helper.make_tensor_value_info("y", kind, None)
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", typed, [result]))
    (y,) = onnx.reference.ReferenceEvaluator(model).run(None, dict(zip(names, inputs, strict=True)))
    return y


@pytest.mark.parametrize(
    ("name", "same", "attributes"),
    [
        ("HzSwish", "Swish", {}),
        ("HzHardSwish", "HardSwish", {}),
        ("HzMish", "Mish", {}),
        ("HzGelu", "Gelu", {}),
        ("HzGelu", "Gelu", {"approximate": "tanh"}),
        ("HzSoftmax", "Softmax", {}),
        ("HzSoftmax", "Softmax", {"axis": 1}),
        ("HzSpaceToDepth", "SpaceToDepth", {"blocksize": 2}),
        ("HzDepthToSpace", "DepthToSpace", {"blocksize": 2}),
    ],
)
def test_a_vendor_operator_means_the_onnx_operator(
    name: str, same: str, attributes: dict[str, object]
) -> None:
    entry = find("horizon", name, 1)
    assert entry is not None
    got = entry.function(jnp.asarray(X), **attributes)
    np.testing.assert_allclose(got, _onnx(same, X, **attributes), rtol=1e-5, atol=1e-5)


def test_the_root_takes_its_epsilon_inside_or_outside() -> None:
    x = jnp.asarray([4.0])
    np.testing.assert_allclose(horizon.hz_rsqrt(x, epsilon=5.0), 1 / 3, rtol=1e-6)
    outside = horizon.hz_rsqrt(x, epsilon=1.0, is_sqrt_add_reciprocal=1)
    np.testing.assert_allclose(outside, 1 / 3, rtol=1e-6)


@pytest.mark.parametrize("axis", [-1, 1])
def test_layer_norm_normalizes_the_axes_from_the_given_one(axis: int) -> None:
    rng = np.random.default_rng(0)
    scale, bias = (rng.normal(size=X.shape[axis:]).astype(np.float32) for _ in range(2))
    expected = _onnx("LayerNormalization", X, scale, bias, axis=axis, epsilon=1e-5)
    got = horizon.hz_layer_norm(*(jnp.asarray(x) for x in (X, scale, bias)), axis=axis)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_relu_x_has_both_limits() -> None:
    assert horizon.hz_relu_x(jnp.asarray([-1.0, 3.0, 9.0]), clip_value=6.0).tolist() == [0, 3, 6]


@pytest.mark.parametrize("mode", ["constant", "edge"])
def test_pads_are_all_begins_then_all_ends(mode: str) -> None:
    got = horizon.hz_pad(jnp.asarray(X), pads=(0, 0, 1, 2, 0, 0, 3, 4), mode=mode)
    np.testing.assert_array_equal(got, np.pad(X, [(0, 0), (0, 0), (1, 3), (2, 4)], mode=mode))


@pytest.mark.parametrize("mode", ["constant", "edge"])
def test_negative_pads_crop_as_in_pad_2(mode: str) -> None:
    got = horizon.hz_pad(jnp.asarray(X), pads=(0, 0, -1, 2, 0, 0, 3, -2), mode=mode)
    cropped = X[:, :, 1:, :-2]
    np.testing.assert_array_equal(got, np.pad(cropped, [(0, 0), (0, 0), (0, 3), (2, 0)], mode=mode))


def test_an_unknown_pad_mode_is_refused() -> None:
    with pytest.raises(ModelError, match="'reflect'"):
        horizon.hz_pad(jnp.ones(3), pads=(1, 1), mode="reflect")
