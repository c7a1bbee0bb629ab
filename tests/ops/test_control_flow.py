from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jptq.errors import ShapeError, StaticInputError
from jptq.ops import control_flow


def _trips(count: int) -> np.ndarray:
    return np.array(count, np.int64)


def test_a_known_condition_traces_only_its_branch() -> None:
    def never() -> tuple[Any, ...]:
        raise AssertionError("the other branch must not be traced")

    (y,) = control_flow.if_(np.array([True]), then_branch=lambda: (jnp.ones(2),), else_branch=never)
    assert y.shape == (2,)


def test_a_computed_condition_chooses_when_running() -> None:
    @jax.jit
    def choose(flag: jax.Array) -> jax.Array:
        return control_flow.if_(
            flag, then_branch=lambda: (jnp.ones(2),), else_branch=lambda: (jnp.zeros(2),)
        )[0]

    assert choose(jnp.array(True)).sum() == 2
    assert choose(jnp.array(False)).sum() == 0


def test_branches_of_different_shapes_need_a_known_condition() -> None:
    @jax.jit
    def choose(flag: jax.Array) -> jax.Array:
        return control_flow.if_(
            flag, then_branch=lambda: (jnp.ones(2),), else_branch=lambda: (jnp.zeros(3),)
        )[0]

    with pytest.raises(ShapeError, match="different shapes"):
        choose(jnp.array(True))


@pytest.mark.parametrize("count", [0, 3, 40])
def test_a_loop_carries_and_collects(count: int) -> None:
    def body(trip: Any, going: Any, total: jax.Array) -> tuple[Any, ...]:
        return going, total + 2.0, total

    total, seen = control_flow.loop(_trips(count), None, jnp.zeros(()), body=body)
    assert float(total) == 2 * count
    np.testing.assert_array_equal(np.asarray(seen), 2.0 * np.arange(count))


def test_a_loop_that_never_starts_returns_its_input() -> None:
    def body(trip: Any, going: Any, x: jax.Array) -> tuple[Any, ...]:
        return going, x + 1.0

    (x,) = control_flow.loop(None, np.array(False), jnp.ones(2), body=body)
    np.testing.assert_array_equal(np.asarray(x), 1)


def test_a_loop_may_end_by_a_condition_that_is_known() -> None:
    def body(trip: Any, going: Any, x: jax.Array) -> tuple[Any, ...]:
        return np.array(trip < 2), x + 1.0

    (x,) = control_flow.loop(None, np.array(True), jnp.zeros(()), body=body)
    assert float(x) == 3


@pytest.mark.parametrize("count", [3, 40])
def test_a_loop_that_ends_by_a_computed_condition_is_refused(count: int) -> None:
    def body(trip: Any, going: Any, x: jax.Array) -> tuple[Any, ...]:
        return x < 3, x + 1.0

    def run(x: jax.Array) -> jax.Array:
        return control_flow.loop(_trips(count), None, x, body=body)[0]

    with pytest.raises(StaticInputError, match="computed end"):
        jax.jit(run)(jnp.zeros(()))


@pytest.mark.parametrize("count", [3, 40])
def test_loops_have_gradients(count: int) -> None:
    def body(trip: Any, going: Any, x: jax.Array) -> tuple[Any, ...]:
        return going, x * 1.1

    def run(x: jax.Array) -> jax.Array:
        return control_flow.loop(_trips(count), None, x, body=body)[0]

    np.testing.assert_allclose(jax.grad(run)(jnp.ones(())), 1.1**count, rtol=1e-4)


@pytest.mark.parametrize("backward", [0, 1])
def test_scan_walks_any_axis_in_both_directions(backward: int) -> None:
    def body(total: jax.Array, x: jax.Array) -> tuple[jax.Array, ...]:
        return total + x, total + x

    x = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    last, sums = control_flow.scan(
        jnp.zeros(2),
        jnp.asarray(x),
        body=body,
        num_scan_inputs=1,
        scan_input_axes=(1,),
        scan_input_directions=(backward,),
        scan_output_axes=(1,),
        scan_output_directions=(backward,),
    )
    want = np.cumsum(x[:, ::-1], axis=1)[:, ::-1] if backward else np.cumsum(x, axis=1)
    np.testing.assert_array_equal(np.asarray(sums), want)
    np.testing.assert_array_equal(np.asarray(last), x.sum(axis=1))


def test_scan_of_opset_8_has_a_batch_in_front() -> None:
    def body(total: jax.Array, x: jax.Array) -> tuple[jax.Array, ...]:
        return (total + x,)

    x = jnp.asarray(np.arange(6.0, dtype=np.float32).reshape(2, 3))
    (last,) = control_flow.scan_8(None, jnp.zeros(2), x, body=body, num_scan_inputs=1)
    np.testing.assert_array_equal(np.asarray(last), np.asarray(x).sum(axis=1))


def test_a_loop_that_never_ends_is_refused() -> None:
    def body(trip: Any, going: Any, x: jax.Array) -> tuple[Any, ...]:
        return np.array(True), x

    with pytest.raises(StaticInputError, match="has not ended after 4096 trips"):
        control_flow.loop(None, np.array(True), jnp.zeros(()), body=body)


def test_a_loop_of_too_many_trips_is_refused() -> None:
    def body(trip: Any, going: Any, x: jax.Array) -> tuple[Any, ...]:
        return going, x

    with pytest.raises(StaticInputError, match=f"Loop of {2**40} trips"):
        control_flow.loop(_trips(2**40), None, jnp.zeros(()), body=body)


def test_loops_inside_loops_run_every_trip() -> None:
    calls = 0

    def nested(depth: int) -> Any:
        def body(trip: Any, going: Any, x: jax.Array) -> tuple[Any, ...]:
            nonlocal calls
            calls += 1
            if not depth:
                return going, x + 1.0
            return going, control_flow.loop(_trips(16), None, x, body=nested(depth - 1))[0]

        return body

    x = jax.jit(lambda x: control_flow.loop(_trips(16), None, x, body=nested(1))[0])(jnp.zeros(()))
    assert float(x) == 16**2
    assert calls == 16 + 16**2
