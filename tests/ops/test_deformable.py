from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jptq.ops import Cost, convolution, deformable
from tests.ops.agreement import check_against_onnxruntime, normal


def test_without_offsets_it_is_a_convolution() -> None:
    x, w = jnp.asarray(normal(2, 4, 6, 5)), jnp.asarray(normal(6, 2, 3, 3, seed=1))

    @jax.jit
    def both(x: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
        attributes = {"group": 2, "pads": (1, 0, 1, 2), "strides": (2, 1)}
        plain = convolution.conv(x, w, **attributes)
        offset = jnp.zeros((2, 18, *plain.shape[2:]))
        return deformable.deform_conv(x, w, offset, **attributes), plain

    got, want = both(x, w)
    np.testing.assert_allclose(np.asarray(got), np.asarray(want), atol=1e-5)


def test_offsets_and_masks_agree_with_onnxruntime() -> None:
    inputs = [
        normal(1, 4, 6, 5),
        normal(3, 4, 2, 2, seed=1),
        normal(1, 16, 5, 4, seed=2),
        normal(3, seed=3),
        normal(1, 8, 5, 4, seed=4),
    ]
    check_against_onnxruntime("DeformConv", inputs, {"offset_group": 2}, opset=19)


def test_products_and_reads_are_counted() -> None:
    cost = deformable._deform_conv_cost((1, 4, 6, 5), (3, 4, 2, 2), (1, 8, 5, 4), (1, 3, 5, 4))
    assert cost == Cost(macs=3 * 20 * 16, vector=2 * 4 * 4 * 20 * 4)
