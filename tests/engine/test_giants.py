"""Tensors that no machine is to hold are refused before anything of their size is made."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from jptq import latency_of
from jptq.engine.lower import lower
from jptq.errors import ShapeError
from jptq.ir import from_bytes, optimize
from tests.graphs import Graph

BIG = 1 << 20

NETWORKS: dict[str, Callable[[Graph, str], str]] = {
    "Tile": lambda g, x: g.add("Tile", x, g.constant([BIG, BIG])),
    "Pad": lambda g, x: g.add("Pad", x, g.constant([0, 0, BIG, BIG])),
    "Expand": lambda g, x: g.add("Expand", x, g.constant([1 << 15, 1 << 16])),
    "Resize": lambda g, x: g.add(
        "Resize", x, "", g.constant(np.float32([BIG, BIG])), mode="nearest"
    ),
    "ConstantOfShape": lambda g, x: g.add(
        "Add", x, g.add("ConstantOfShape", g.constant([BIG, BIG]))
    ),
    "Range": lambda g, x: g.add(
        "Add", x, g.add("Cast", g.add("Range", *map(number(g), (0, 1 << 40, 1))), to=1)
    ),
    "OneHot": lambda g, x: g.add(
        "OneHot", g.add("Cast", x, to=7), g.constant([1 << 40]), g.constant(np.float32([0, 1]))
    ),
    "Tile of a constant": lambda g, x: g.add(
        "Mul", x, g.add("Tile", g.random(1, 1), g.constant([BIG, BIG]))
    ),
    "Pad of a constant": lambda g, x: g.add(
        "Mul", x, g.add("Pad", g.random(1, 1), g.constant([0, 0, BIG, BIG]))
    ),
    "Expand of a constant": lambda g, x: g.add(
        "Mul", x, g.add("Expand", g.random(1, 1), g.constant([BIG, BIG]))
    ),
    "an outer product of constants": lambda g, x: g.add(
        "Mul", x, g.add("Add", g.random(1 << 16, 1), g.random(1, 1 << 16))
    ),
}


def number(g: Graph) -> Callable[[int], str]:
    return lambda value: g.constant(np.int64(value))


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Let this process allocate 1 GiB more than it has, so that a giant fails at once."""
    if sys.platform != "linux":
        pytest.skip("without Linux' bound on memory a giant that is not refused fills the machine")
    import resource

    with open("/proc/self/statm") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (held + (1 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_giant_is_refused_with_its_node_and_shape(
    name: str, little_memory: None, caplog: pytest.LogCaptureFixture
) -> None:
    g = Graph()
    x = g.input("x", (1, 1))
    g.output(NETWORKS[name](g, x))
    model = optimize(from_bytes(g.proto().SerializeToString()), input_shapes={})
    with pytest.raises(ShapeError, match=r"its result has (?s:.*)node .(?s:.*)its shape is"):
        lower(model, {"x": np.ones((1, 1), np.float32)})
    assert not caplog.records  # ONNX's inference fails by a warning, once memory is full


def test_an_input_that_is_a_giant_is_refused(little_memory: None) -> None:
    g = Graph()
    g.output(g.add("Relu", g.input("x", (BIG, BIG))))
    with pytest.raises(ShapeError, match=r"an input has 4\.1e\+03 GiB\n\s+at:\s+x"):
        latency_of(from_bytes(g.proto().SerializeToString()))


def test_what_is_large_but_no_giant_is_computed() -> None:
    g = Graph()
    x = g.input("x", (1, 1))
    wide = g.add("Expand", g.random(1, 1), g.constant([1 << 13, 1 << 12]))
    g.output(g.add("ReduceSum", g.add("Mul", x, wide)))
    model = optimize(from_bytes(g.proto().SerializeToString()), input_shapes={})
    assert lower(model, {"x": np.ones((1, 1), np.float32)}).steps


@pytest.mark.parametrize("bounds", [(0.0, 1.0, 0.0), (0.0, float("inf"), 1.0)])
def test_arithmetic_that_fails_while_folding_names_the_node(bounds: tuple[float, ...]) -> None:
    g = Graph()
    x = g.input("x", (1, 1))
    g.output(g.add("Add", x, g.add("Range", *map(g.constant, bounds), name="count")))
    with pytest.raises(ShapeError, match="node 'count'"):
        lower(from_bytes(g.proto().SerializeToString()), {"x": np.ones((1, 1), np.float32)})
