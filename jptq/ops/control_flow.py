"""Branches and loops. Subgraphs arrive as callables that return a tuple.

What is known while tracing is decided while tracing: a constant condition picks its branch, a
constant number of trips unrolls or becomes a `lax.scan`. A loop that ends by a computed condition
has no reverse derivative and no static shape, and is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jptq.errors import ModelError, ShapeError, StaticInputError
from jptq.ops.integers import to_index
from jptq.ops.registry import op
from jptq.ops.traits import Ints, Traits

Arrays = tuple[Any, ...]
"""Of arrays, sequences (tuples of arrays) and absent optionals (None)."""
Subgraph = Callable[..., Arrays]

_DECIDE = "make the condition of If constant, or what it hangs on (--input_value=NAME:VALUE)"

_MOST_UNROLLED = 16
"""Trips that are unrolled: bodies may then use the trip number in shapes, and XLA fuses them."""

_MOST_COPIES = 4096
"""Of a body, the unrolled loops around it counted in. Each is traced and compiled anew."""

_MOST_TRIPS = 2**24
"""Of a loop that runs as one traced body."""

_copies: ContextVar[int] = ContextVar("copies of the body that is being traced", default=1)


_MOST_WITH_SEQUENCES = 256
"""The same for loops that carry sequences: another length in every trip is another program."""


def _arrays(values: Iterable[Any]) -> Arrays:
    """Return values as JAX arrays; sequences stay tuples of them."""
    return tuple(jax.tree.map(jnp.asarray, value) for value in values)


def _known(x: object) -> np.ndarray | None:
    """Return a value as NumPy, or None if it is only known when running."""
    return None if isinstance(x, jax.core.Tracer) else np.asarray(x)


@op("If", since=(1, 11, 13, 16, 19, 21, 23, 24, 25), traits=Traits.float_only())
def if_(cond: Array | np.ndarray, *, else_branch: Subgraph, then_branch: Subgraph) -> Arrays:
    """Run one of two subgraphs.

    Args:
      cond: One boolean; if it is known while tracing, only the chosen branch is traced.

    Raises:
      ShapeError: The condition is not known and the branches differ in shapes or dtypes.

    Source: ONNX operator specification, If-25.
    """
    known = _known(cond)
    if known is not None:
        return tuple(then_branch() if known.item() else else_branch())

    found: list[Arrays] = []

    def arrays(branch: Subgraph) -> Callable[[], Arrays]:
        def run() -> Arrays:
            results = _arrays(branch())
            found.append(
                jax.tree.map(lambda result: f"{result.dtype}{list(result.shape)}", results)
            )
            return results

        return run

    try:
        # Each branch is traced once: what is done twice here is done 2**depth times in all.
        chosen: Arrays = lax.cond(jnp.reshape(cond, ()), arrays(then_branch), arrays(else_branch))
    except ModelError as error:
        raise type(error)(
            error.what,
            where=error.where,
            why=error.why,
            hint=error.hint or f"{_DECIDE}: then only the branch that is taken has to fit",
        ) from error
    except TypeError as error:
        if len(found) < 2 or found[0] == found[1]:
            raise
        then, otherwise = (", ".join(map(str, one)) for one in found)
        raise ShapeError(
            "If with branches of different shapes",
            why=f"its condition is only known when running; {then} against {otherwise}",
            hint=f"{_DECIDE}, or fix the shapes it depends on",
        ) from error
    return chosen


def _continues(cond: object) -> bool:
    known = _known(cond)
    if known is None:
        raise StaticInputError(
            "Loop with a computed end condition",
            why="the number of trips must be known while tracing",
            hint="export the network with a constant trip count and a constant condition",
        )
    return bool(known.item())


@op(
    "Loop",
    since=(1, 11, 13, 16, 19, 21, 23, 24, 25),
    static=("m", "cond"),
    traits=Traits.float_only(),
)
def loop(
    m: np.ndarray | None = None,
    cond: np.ndarray | None = None,
    *v_initial: Array,
    body: Subgraph,
) -> Arrays:
    """Repeat a subgraph.

    Args:
      m: ``int64``: most trips; no bound if absent.
      cond: One boolean: whether to start at all.
      *v_initial: What the loop carries.
      body: From (trip, condition, *carried) to (condition, *carried, *collected).

    Returns:
      What is carried at the end, then the collected values, stacked along a new first axis.

    Raises:
      StaticInputError: The end depends on computed values.

    Source: ONNX operator specification, Loop-25.
    """
    going = cond is None or bool(np.asarray(cond).item())
    trips = None if m is None else int(np.asarray(m).item())
    around = _copies.get()
    nested = any(value is None or isinstance(value, tuple) for value in v_initial)
    most = min(_MOST_UNROLLED, _MOST_COPIES // around)
    if going and trips is not None and trips > most and not nested:
        return _scanned_loop(trips, v_initial, body)
    if going and trips is not None and trips > _MOST_WITH_SEQUENCES:
        raise ShapeError(
            f"Loop of {trips} trips that carries a sequence",
            why=f"such loops are written out, and at most {_MOST_WITH_SEQUENCES} trips are",
        )
    carried, collected = tuple(v_initial), list[Arrays]()
    trip = 0
    token = _copies.set(around * (trips or 1))
    try:
        while going and (trips is None or trip < trips):
            if trip * around >= _MOST_COPIES:
                raise StaticInputError(
                    f"Loop that has not ended after {trip} trips",
                    why="it has no trip count, and its condition stays true",
                    hint="export the network with a constant trip count",
                )
            again, *values = body(np.asarray(trip, np.int64), np.asarray(True), *carried)
            carried = tuple(values[: len(carried)])
            collected.append(tuple(values[len(carried) :]))
            going = _continues(again)
            trip += 1
    finally:
        _copies.reset(token)
    if not collected:
        return _without_trips(v_initial, body)
    return (*carried, *(jnp.stack(column) for column in zip(*collected, strict=True)))


def _without_trips(v_initial: Arrays, body: Subgraph) -> Arrays:
    """Return the initial values and collections of length zero."""
    shapes = jax.eval_shape(
        lambda *carried: _arrays(body(np.int64(0), np.asarray(True), *carried)), *v_initial
    )
    collected = shapes[1 + len(v_initial) :]
    return (*v_initial, *(jnp.zeros((0, *shape.shape), shape.dtype) for shape in collected))


def _scanned_loop(trips: int, v_initial: Arrays, body: Subgraph) -> Arrays:
    """Run a long loop as one traced body."""
    if trips > _MOST_TRIPS:
        raise StaticInputError(
            f"Loop of {trips} trips",
            why=f"{_MOST_TRIPS} are the most that run within a sample",
            hint="a trip count like this means that the condition ends the loop: export the "
            "network with a constant trip count",
        )

    def step(carried: Arrays, trip: Array) -> tuple[Arrays, Arrays]:
        again, *values = body(trip, np.asarray(True), *carried)
        if not _continues(again):
            raise StaticInputError("Loop that ends after its first trip", hint="set M to 1")
        arrays = _arrays(values)
        return arrays[: len(carried)], arrays[len(carried) :]

    initial = _arrays(v_initial)
    carried, collected = lax.scan(step, initial, to_index(np.arange(trips)))
    return (*carried, *collected)


@op("Scan", since=(9, 11, 16, 19, 21, 23, 24, 25), traits=Traits.float_only())
def scan(
    *initial_state_and_scan_inputs: Array,
    body: Subgraph,
    num_scan_inputs: int,
    scan_input_axes: Ints | None = None,
    scan_input_directions: Ints | None = None,
    scan_output_axes: Ints | None = None,
    scan_output_directions: Ints | None = None,
) -> Arrays:
    """Run a subgraph along an axis of its inputs, with a state.

    Args:
      *initial_state_and_scan_inputs: The initial states, then ``num_scan_inputs`` sequences.
      body: From (*states, *slices) to (*states, *collected).

    Returns:
      The last states, then the collected values, stacked along ``scan_output_axes``.

    Source: ONNX operator specification, Scan-25.
    """
    n_states = len(initial_state_and_scan_inputs) - num_scan_inputs
    states = tuple(jnp.asarray(state) for state in initial_state_and_scan_inputs[:n_states])
    sequences = []
    for i, sequence in enumerate(initial_state_and_scan_inputs[n_states:]):
        front = jnp.moveaxis(sequence, scan_input_axes[i] if scan_input_axes else 0, 0)
        backward = bool(scan_input_directions and scan_input_directions[i])
        sequences.append(jnp.flip(front, 0) if backward else front)

    def step(state: Arrays, slices: Arrays) -> tuple[Arrays, Arrays]:
        values = tuple(jnp.asarray(value) for value in body(*state, *slices))
        return values[:n_states], values[n_states:]

    last, collected = lax.scan(step, states, tuple(sequences))
    outputs = []
    for i, column in enumerate(collected):
        backward = bool(scan_output_directions and scan_output_directions[i])
        ordered = jnp.flip(column, 0) if backward else column
        outputs.append(jnp.moveaxis(ordered, 0, scan_output_axes[i] if scan_output_axes else 0))
    return (*last, *outputs)


@op("Scan", since=(8,), traits=Traits.float_only())
def scan_8(
    sequence_lens: Array | None = None,
    *initial_state_and_scan_inputs: Array,
    body: Subgraph,
    directions: Ints | None = None,
    num_scan_inputs: int,
) -> Arrays:
    """Run a subgraph along the second axis; at opset 8 the first axis of everything is the batch.

    Raises:
      StaticInputError: The sequences of a batch differ in length.
    """
    if sequence_lens is not None:
        raise StaticInputError(
            "Scan-8 with sequence_lens", why="a length per sample has no static shape"
        )

    def one(*sample: Array) -> Arrays:
        return scan(
            *sample,
            body=body,
            num_scan_inputs=num_scan_inputs,
            scan_input_directions=directions,
        )

    batched: Arrays = jax.vmap(one)(*initial_state_and_scan_inputs)
    return batched
