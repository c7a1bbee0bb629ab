from __future__ import annotations

import jax
import numpy as np
import pytest

from jptq import ops
from jptq.engine import layouts
from jptq.engine.arrange import Arrangement, arrange
from tests.engine.programs import check, normal
from tests.graphs import Graph

LAST = layouts.channels_last(4)
FIRST = layouts.canonical(4)


def spec(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, np.float32)


def arranged(
    op: str,
    have: list[layouts.Perm | None],
    shapes: list[tuple[int, ...]],
    result: tuple[int, ...],
    *,
    opset: int = 17,
    static: dict[int, np.ndarray] | None = None,
    **attributes: object,
) -> Arrangement:
    entry = ops.find("", op, opset)
    assert entry is not None
    return arrange(
        entry,
        None,
        have,
        [spec(*shape) for shape in shapes],
        [spec(*result)],
        static or {},
        attributes,
    )


def test_elementwise_operators_follow_channels_last() -> None:
    shape = (1, 3, 4, 5)
    found = arranged("Add", [FIRST, LAST], [shape, shape], shape)
    assert found.outputs == [LAST]
    assert found.wants == {0: LAST, 1: LAST}


def test_elementwise_operators_stay_as_they_are_without_channels_last() -> None:
    shape = (1, 3, 4, 5)
    found = arranged("Add", [FIRST, FIRST], [shape, shape], shape)
    assert found.outputs == [FIRST]
    assert not found.wants


def test_an_operand_that_lends_its_type_alone_may_have_any_rank() -> None:
    g = Graph(19)
    x = g.conv(g.input("x", (1, 3, 4, 4)), 3, 5)
    g.output(g.add("CastLike", x, g.input("like", (1, 1, 2, 2, 2))))
    g.output(g.add("CastLike", g.add("Relu", x), g.input("scalar", ())))
    feeds = {"x": normal(1, 3, 4, 4), "like": normal(1, 1, 2, 2, 2), "scalar": normal()}
    check(g, feeds)


def test_a_constant_of_one_element_needs_no_broadcast() -> None:
    shape = (1, 3, 4, 5)
    assert not arranged("Mul", [LAST, None], [shape, (1, 1)], shape).prepare
    assert set(arranged("Mul", [LAST, None], [shape, (3, 1, 1)], shape).prepare) == {1}


@pytest.mark.parametrize(("axis", "physical"), [(1, 3), (-3, 3), (2, 1), (-1, 2), (0, 0)])
def test_axis_numbers_are_turned(axis: int, physical: int) -> None:
    shape = (1, 3, 4, 5)
    found = arranged("Softmax", [LAST], [shape], shape, axis=axis)
    assert found.attributes["axis"] == physical
    assert found.outputs == [LAST]


def test_the_default_axis_is_turned_too() -> None:
    shape = (1, 3, 4, 5)
    assert arranged("Softmax", [LAST], [shape], shape).attributes["axis"] == 2  # -1 is W


def test_axes_in_an_input_are_turned() -> None:
    axes = np.array([2, -1])
    found = arranged(
        "ReduceMean",
        [LAST, None],
        [(1, 3, 4, 5), (2,)],
        (1, 3, 1, 1),
        opset=18,
        static={1: axes},
        keepdims=1,
    )
    np.testing.assert_array_equal(found.static[1], [1, 2])
    np.testing.assert_array_equal(axes, [2, -1])


def test_a_reduction_that_leaves_no_known_order_goes_back_to_onnx() -> None:
    # [N, H, W, C] without H and N is [W, C]: not an order that the engine works in.
    found = arranged("ReduceMax", [LAST], [(2, 3, 4, 5)], (3, 5), axes=(0, 2), keepdims=0)
    assert found.outputs == [(0, 1)]
    assert not found.wants
    assert found.attributes["axes"] == (0, 2)


def test_a_transposition_into_the_order_in_memory_moves_nothing() -> None:
    found = arranged("Transpose", [LAST], [(1, 3, 4, 5)], (1, 4, 5, 3), perm=(0, 2, 3, 1))
    assert found.outputs == [FIRST]
    assert found.attributes["perm"] == (0, 1, 2, 3)
    assert found.wants == {0: LAST}


def test_what_is_constant_is_left_alone() -> None:
    shape = (1, 3, 4, 5)
    found = arranged("Add", [None, None], [shape, shape], shape)
    assert found.outputs == [FIRST]
    assert not found.wants
    assert not found.prepare
