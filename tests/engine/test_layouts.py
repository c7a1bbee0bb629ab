from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jptq.engine import layouts

perms = st.integers(0, 4).flatmap(lambda rank: st.permutations(range(rank)).map(tuple))


def test_channels_last_moves_axis_one_to_the_end() -> None:
    assert layouts.channels_last(4) == (0, 2, 3, 1)
    assert layouts.channels_last(3) == (0, 2, 1)
    assert layouts.channels_last(5) == (0, 2, 3, 4, 1)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_below_rank_three_there_is_one_order(rank: int) -> None:
    assert layouts.channels_last(rank) == layouts.canonical(rank) == tuple(range(rank))


@given(perms)
def test_the_inverse_undoes_an_order(perm: layouts.Perm) -> None:
    inverse = layouts.inverse(perm)
    assert tuple(perm[i] for i in inverse) == layouts.canonical(len(perm))
    assert layouts.inverse(inverse) == perm


@settings(max_examples=20, deadline=None)
@given(perms, st.data())
def test_converting_changes_the_order_and_not_the_tensor(
    perm: layouts.Perm, data: st.DataObject
) -> None:
    other = data.draw(st.permutations(range(len(perm))).map(tuple))
    logical = np.arange(np.prod([a + 2 for a in range(len(perm))], dtype=int)).reshape(
        [a + 2 for a in range(len(perm))]
    )
    physical = jnp.asarray(np.transpose(logical, perm))
    found = np.asarray(layouts.convert(physical, perm, other))
    np.testing.assert_array_equal(found, np.transpose(logical, other))


def test_operands_of_lower_rank_line_up_at_the_end_as_onnx_broadcasts() -> None:
    x = jnp.arange(3).reshape(3, 1, 1)  # [C, 1, 1] against [N, C, H, W]
    found = layouts.broadcast(x, 4, layouts.channels_last(4))
    assert found.shape == (1, 1, 1, 3)


def test_axes_are_found_from_either_end() -> None:
    perm = layouts.channels_last(4)
    assert [layouts.axis_position(a, perm) for a in (0, 1, 2, 3)] == [0, 3, 1, 2]
    assert [layouts.axis_position(a, perm) for a in (-4, -3, -2, -1)] == [0, 3, 1, 2]


def test_removing_axes_leaves_the_order_of_the_others() -> None:
    perm = layouts.channels_last(4)
    assert layouts.after_removal(perm, (1,)) == (0, 1, 2)
    assert layouts.after_removal(perm, (2, 3)) == (0, 1)
    assert layouts.after_removal(perm, (0,)) == (1, 2, 0)
    assert layouts.after_removal(perm, (0, 1, 2, 3)) == ()
