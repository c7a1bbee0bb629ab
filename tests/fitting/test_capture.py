"""Sums over the rows of a layer, against onnxruntime's outputs."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jptq.fitting import capture
from jptq.fitting.capture import Moments, passes, picks, sums
from jptq.fitting.layers import Layer
from jptq.fitting.observed import Observed
from tests.fitting.networks import images, layers, placed
from tests.graphs import Graph
from tests.oracles import run_onnx


def _moments(
    graph: Graph, shape: tuple[int, ...], batch: int = 8
) -> tuple[np.ndarray, Moments, list[np.ndarray]]:
    """Return the weight as matrices, the sums over samples 0, 2 and 4, and their outputs."""
    samples = images(5, shape)
    runner = placed(graph, samples, batch=batch)
    (layer,) = layers(runner)
    assert not layer.reason
    observed = Observed(runner, [layer], samples, 0)
    found = capture.capture(observed, observed.floating, [layer], [[0, 2, 4], [1, 3]])
    outputs = [next(iter(run_onnx(graph.proto(), sample).values())) for sample in samples]
    weight = layer.form.arranged(runner.model.initializers[layer.weight])
    return weight, found[layer.weight][0], [outputs[i] for i in (0, 2, 4)]


def _conv(op: str, x: tuple[int, ...], w: tuple[int, ...], **attributes: object) -> Graph:
    g = Graph()
    g.output(g.add(op, g.input("x", x), g.random(*w, name="w"), **attributes))
    return g


def _by_group(y: np.ndarray, groups: int) -> np.ndarray:
    """Return the output of a convolution as ``[G, P, M / G]``."""
    apart = y.reshape(y.shape[0], groups, y.shape[1] // groups, -1)
    return apart.transpose(1, 0, 3, 2).reshape(groups, -1, y.shape[1] // groups)


CONVOLUTIONS = {
    "pointwise": ("Conv", (1, 5, 6, 7), (40, 5, 1, 1), {}),
    "padded": ("Conv", (1, 3, 6, 7), (40, 3, 3, 3), {"pads": [1, 0, 1, 2], "strides": [2, 1]}),
    "dilated": ("Conv", (2, 3, 9, 9), (40, 3, 3, 2), {"dilations": [2, 3]}),
    "same": ("Conv", (1, 3, 7, 6), (40, 3, 3, 4), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    "grouped": ("Conv", (1, 6, 5, 5), (60, 2, 3, 3), {"group": 3, "pads": [1, 1, 1, 1]}),
    "depthwise": ("Conv", (1, 4, 6, 6), (36, 1, 3, 3), {"group": 4}),
    "vector": ("Conv", (1, 3, 20), (20, 3, 5), {"pads": [2, 2]}),
    "volume": ("Conv", (1, 2, 4, 4, 4), (20, 2, 2, 2, 2), {}),
    "transposed": ("ConvTranspose", (1, 4, 4, 5), (4, 20, 2, 2), {"strides": [2, 2]}),
    "overlapping": (
        "ConvTranspose",
        (1, 4, 4, 5),
        (4, 40, 3, 3),
        {"strides": [2, 2], "pads": [1, 1, 0, 1], "output_padding": [1, 0]},
    ),
    "transposed groups": ("ConvTranspose", (1, 6, 4, 4), (6, 30, 3, 3), {"group": 2}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_the_sums_of_a_convolution_are_those_of_its_outputs(name: str) -> None:
    op, x, w, attributes = CONVOLUTIONS[name]
    weight, moments, outputs = _moments(_conv(op, x, w, **attributes), x)
    groups = int(attributes.get("group", 1))  # type: ignore[arg-type, call-overload]
    want = np.concatenate([_by_group(y, groups) for y in outputs], axis=1)
    _compare(moments, want, weight)


def _compare(moments: Moments, y: np.ndarray, weight: np.ndarray) -> None:
    """Compare with outputs ``[G, P, M]``: more outputs than inputs tell all there is to know."""
    assert moments.rows == y.shape[1]
    mean = np.einsum("gk,gkm->gm", moments.mean[0], weight)
    np.testing.assert_allclose(mean, y.mean(axis=1), rtol=1e-4, atol=1e-4)
    apart = y.astype(np.float64) - y.mean(axis=1, keepdims=True, dtype=np.float64)
    want = apart.transpose(0, 2, 1) @ apart
    found = weight.transpose(0, 2, 1) @ moments.scatter @ weight
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())


PRODUCTS = {
    "matrix": ("MatMul", (1, 7, 5), (5, 8), {}),
    "stack": ("MatMul", (2, 3, 4, 5), (5, 8), {}),
    "a matrix each": ("MatMul", (3, 4, 5), (3, 5, 8), {}),
    "a matrix for many": ("MatMul", (2, 3, 4, 5), (3, 5, 8), {}),
    "many for one": ("MatMul", (4, 5), (3, 5, 8), {}),
    "row": ("MatMul", (5,), (5, 8), {}),
    "gemm": ("Gemm", (6, 5), (5, 8), {"alpha": 0.5}),
    "gemm of columns": ("Gemm", (5, 6), (8, 5), {"transA": 1, "transB": 1}),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_the_sums_of_a_product_are_those_of_its_outputs(name: str) -> None:
    op, x, w, attributes = PRODUCTS[name]
    weight, moments, outputs = _moments(_conv(op, x, w, **attributes), x)
    stacked = np.stack(outputs)
    if len(w) == 3:
        want = np.moveaxis(stacked, -3, 0).reshape(3, -1, stacked.shape[-1])
    else:
        want = stacked.reshape(1, -1, stacked.shape[-1])
    _compare(moments, want, weight)


def test_the_sums_of_a_convolution_are_those_of_its_patches() -> None:
    x, w = (1, 2, 5, 6), (3, 2, 3, 3)
    _, moments, _ = _moments(_conv("Conv", x, w), x)
    patches = [
        image["x"][0, :, i : i + 3, j : j + 3].transpose(1, 2, 0).reshape(-1)
        for image in (images(5, x)[n] for n in (0, 2, 4))
        for i in range(3)
        for j in range(4)
    ]
    rows = np.asarray(patches, np.float64)
    np.testing.assert_allclose(moments.mean[0][0], rows.mean(axis=0), rtol=1e-5, atol=1e-6)
    apart = rows - rows.mean(axis=0)
    np.testing.assert_allclose(moments.scatter[0], apart.T @ apart, rtol=1e-4, atol=1e-4)


def test_sums_do_not_depend_on_the_samples_of_a_run() -> None:
    x, w = (1, 4, 6, 6), (8, 4, 3, 3)
    found = [_moments(_conv("Conv", x, w), x, batch)[1] for batch in (1, 2, 8)]
    for other in found[1:]:
        np.testing.assert_allclose(other.scatter, found[0].scatter, rtol=1e-5, atol=1e-3)
        assert other.rows == found[0].rows


def test_an_offset_far_above_the_deviations_costs_no_digits() -> None:
    rng = np.random.default_rng(0)
    x = (1e4 + rng.standard_normal((4, 50, 3))).astype(np.float32)
    table = np.arange(50, dtype=np.int32).reshape(1, 50, 1)
    chosen = picks(50, 50, np.arange(2))
    layer_sums = Moments(scatter=np.zeros((1, 3, 3)), count=[0], mean=[np.zeros((1, 3))])
    for part in (x[:2], x[2:]):
        mean, scatter = sums(np, part, table, chosen, None, groups=1)
        layer_sums.add(0, 100, np.asarray(mean, float), np.asarray(scatter, float))
    rows = x.reshape(-1, 3).astype(np.float64)
    apart = rows - rows.mean(axis=0)
    np.testing.assert_allclose(layer_sums.scatter[0], apart.T @ apart, rtol=2e-3, atol=0.5)


def test_the_device_sums_as_the_host_does() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((3, 20, 4)).astype(np.float32)
    table = rng.integers(0, 21, (1, 30, 5)).astype(np.int32)
    chosen, real = picks(30, 11, np.arange(3)), np.array([1, 0, 1], np.float32)
    on_device = jax.jit(functools.partial(sums, jnp, groups=2))(x, table, chosen, real)
    on_host = sums(np, x[[0, 2]], table, chosen[[0, 2]], None, groups=2)
    for one, other in zip(on_device, on_host, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("count", "each"), [(1, 1), (7, 3), (100, 64), (4096, 100), (12, 12)])
def test_every_sample_shows_other_rows_evenly_spread(count: int, each: int) -> None:
    found = picks(count, each, np.arange(4))
    assert found.shape == (4, each)
    assert all(len(set(row.tolist())) == each for row in found)
    assert found.min() >= 0
    assert found.max() < count
    if each * 4 <= count:
        assert len(set(found.reshape(-1).tolist())) == 4 * each
    gaps = np.diff(np.sort(found[0]))
    assert len(gaps) == 0 or gaps.max() <= 3 * count / each


def test_layers_share_passes_as_far_as_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    g = Graph()
    x = g.input("x", (1, 4, 6, 6))
    for i in range(4):
        x = g.conv(x, 4, 4, 3, name=f"c{i}")
    g.output(x)
    found = layers(placed(g, images(1, (1, 4, 6, 6))))
    size: Callable[[Layer], int] = capture.bytes_of
    assert size(found[0]) == 8 * 36 * 36
    monkeypatch.setattr(capture, "HESSIANS", 2 * 2 * size(found[0]))
    assert [len(group) for group in passes(found, 2)] == [2, 2]
    monkeypatch.setattr(capture, "HESSIANS", 1)
    assert [len(group) for group in passes(found, 2)] == [1, 1, 1, 1]
