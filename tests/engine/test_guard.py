"""Whose fault it is: the network's gets a line with the node, ours keeps its traceback."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jptq import ops
from jptq.engine import lower
from jptq.engine.operators import find_op
from jptq.errors import ModelError, ShapeError
from jptq.ir.model import Model, Node
from jptq.ops.registry import Lowering
from tests.graphs import Graph
from tests.quant.networks import float_model

FEEDS = {"x": np.ones((2, 3), np.float32)}


def model() -> Model:
    g = Graph()
    g.output(g.add("Tanh", g.input("x", (2, 3)), name="/neck/Tanh"))
    return float_model(g)


def raising(error: Exception) -> Callable[..., Any]:
    def function(x: Any) -> Any:
        raise error

    return function


def given(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    def changed(model: Model, node: Node) -> ops.Op:
        entry = find_op(model, node)
        assert entry is not None
        return dataclasses.replace(entry, **changes)

    # The package has a function of the module's name.
    monkeypatch.setattr(importlib.import_module("jptq.engine.lower"), "find_op", changed)


@pytest.mark.parametrize(
    "bug",
    [
        TypeError("tanh() got an unexpected keyword argument 'slope'"),
        ValueError("not enough values to unpack (expected 2, got 1)"),
        IndexError("tuple index out of range"),
    ],
    ids=lambda bug: type(bug).__name__,
)
def test_a_bug_in_an_operator_stays_one(monkeypatch: pytest.MonkeyPatch, bug: Exception) -> None:
    given(monkeypatch, function=raising(bug))
    with pytest.raises(type(bug)) as caught:
        lower(model(), FEEDS)
    assert caught.value is bug


def test_a_bug_says_at_which_node_it_showed(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, function=raising(TypeError("unexpected")))
    with pytest.raises(TypeError) as caught:
        lower(model(), FEEDS)
    assert "in node '/neck/Tanh' (Tanh), input shapes (2, 3)" in caught.value.__notes__


@pytest.mark.parametrize(
    "misfit",
    [
        lambda x: x + jnp.ones((2, 4), x.dtype),
        lambda x: x.reshape(5),
        lambda x: jnp.dot(x, x),
        lambda x: jnp.concatenate([x, x[0]]),
        lambda x: jnp.transpose(x, (0, 1, 2)),
        lambda x: np.zeros(3).reshape(2),
        lambda x: jnp.squeeze(x, 5),
    ],
)
def test_shapes_that_do_not_fit_are_the_networks(
    monkeypatch: pytest.MonkeyPatch, misfit: Callable[..., Any]
) -> None:
    given(monkeypatch, function=misfit)
    with pytest.raises(ShapeError, match="Tanh does not fit its inputs") as caught:
        lower(model(), FEEDS)
    assert caught.value.where == "node '/neck/Tanh', input shapes (2, 3)"
    assert isinstance(caught.value.__cause__, TypeError | ValueError | IndexError)


def test_numbers_that_cannot_be_computed_with_are_the_networks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given(monkeypatch, function=raising(ZeroDivisionError("division by zero")))
    with pytest.raises(ShapeError, match="Tanh cannot be computed") as caught:
        lower(model(), FEEDS)
    assert caught.value.why == "division by zero"


def test_a_fault_in_a_lowering_gets_the_name_of_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Lowering(name="broken", function=raising(ModelError("no such mode")))
    given(monkeypatch, lowerings=[broken])
    with pytest.raises(ModelError, match="no such mode") as caught:
        lower(model(), FEEDS)
    assert caught.value.where == "node '/neck/Tanh' (Tanh)"
    lower(model(), FEEDS, prefer={"Tanh": "default"})


def test_a_lowering_is_tried_with_operands_as_it_will_get_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def last(x: Any) -> Any:
        seen.append(x.shape)
        return jnp.tanh(x)

    g = Graph()
    g.output(g.add("Tanh", g.input("x", (1, 3, 4, 5))))
    given(monkeypatch, lowerings=[Lowering(name="last", function=last, channels_last=True)])
    lower(float_model(g), {"x": np.ones((1, 3, 4, 5), np.float32)})
    assert seen == [(1, 4, 5, 3)]
