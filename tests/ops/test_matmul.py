from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jptq.ops import Cost, matmul
from tests.ops.agreement import check_against_onnxruntime, normal


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((3, 4), (4, 5)),
        ((2, 3, 4), (4, 5)),
        ((2, 1, 3, 4), (5, 4, 2)),
        ((4,), (2, 4, 3)),
        ((4,), (4,)),
    ],
)
def test_matmul_agrees_with_onnxruntime(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    check_against_onnxruntime("MatMul", [normal(*a), normal(*b, seed=1)], opset=13)


@pytest.mark.parametrize(
    ("attributes", "c"),
    [
        ({}, (3, 5)),
        ({"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}, (5,)),
        ({"transB": 1, "beta": 0.0}, (3, 1)),
        ({}, None),
    ],
)
def test_gemm_agrees_with_onnxruntime(
    attributes: dict[str, Any], c: tuple[int, ...] | None
) -> None:
    a = normal(*((4, 3) if attributes.get("transA") else (3, 4)))
    b = normal(*((5, 4) if attributes.get("transB") else (4, 5)), seed=1)
    inputs = [a, b] if c is None else [a, b, normal(*c, seed=2)]
    check_against_onnxruntime("Gemm", inputs, attributes, opset=13)


@pytest.mark.parametrize("equation", ["bij, bjk -> bik", "bij,bjk", "...i,i->...", "bii->bi"])
def test_einsum_agrees_with_numpy(equation: str) -> None:
    shapes = {"bij, bjk -> bik": [(2, 3, 4), (2, 4, 5)], "bij,bjk": [(2, 3, 4), (2, 4, 5)]}
    given = shapes.get(equation, [(2, 3, 3), (3,)] if "," in equation else [(2, 3, 3)])
    inputs = [normal(*shape, seed=k) for k, shape in enumerate(given)]
    got = matmul.einsum(*map(jnp.asarray, inputs), equation=equation)
    want = np.einsum(equation.replace(" ", ""), *inputs)
    np.testing.assert_allclose(np.asarray(got), want, rtol=1e-5, atol=1e-5)


def test_a_batch_of_samples_stays_one_product_without_transposes() -> None:
    w = jnp.asarray(normal(4, 5))
    program = str(jax.make_jaxpr(jax.vmap(lambda x: matmul.matmul(x, w)))(normal(8, 1, 3, 4)))
    assert program.count("dot_general") == 1
    assert "transpose" not in program


def test_products_are_counted_per_output_and_inner_position() -> None:
    assert matmul._matmul_cost((2, 3, 4), (4, 5), (2, 3, 5)) == Cost(macs=2 * 3 * 4 * 5)
    assert matmul._gemm_cost((4, 3), (4, 5), (3, 5), transA=1) == Cost(macs=60)
    equation = "...ij,...jk->...ik"
    assert matmul._einsum_cost((2, 3, 4), (1, 4, 5), (2, 3, 5), equation=equation) == Cost(macs=120)
