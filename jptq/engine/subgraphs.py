"""Graph attributes (If, Loop, Scan): lowered where they are called, with the outer scope."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from jptq.engine import nesting
from jptq.engine.program import Program
from jptq.errors import StaticInputError
from jptq.ir.model import Model, Node, Tensor


def walk(model: Model) -> Iterator[tuple[Model, Node]]:
    """Yield every node with the graph that holds it, subgraphs included.

    A subgraph has no opsets of its own: it is yielded with those of the model.
    """
    for node in model.nodes:
        yield model, node
        for value in node.attributes.values():
            if isinstance(value, Model):
                for _, inner in walk(value):
                    yield model, inner


class Lower(Protocol):
    """What lowers a graph, see `jptq.engine.lower`."""

    def __call__(self, model: Model, example: Mapping[str, Any], /, *, wide: bool) -> Program:
        """Return its program."""


def bind(
    function: Callable[..., Any],
    bodies: Mapping[str, Model],
    captured: Sequence[str],
    n_inputs: int,
    outer: Model,
    lower: Lower,
) -> Callable[..., Any]:
    """Return ``function`` with its graph attributes as Python callables.

    Args:
      function: Of an operator.
      bodies: Graphs by attribute.
      captured: Tensors that these take from around them.
      n_inputs: Of the node.
      outer: The graph that holds it.
      lower: Lowers a body, which may hold bodies of its own.

    Returns:
      A function of the node's inputs followed by the captured tensors.
    """
    lowered: dict[str, dict[Hashable, Program]] = {name: {} for name in bodies}

    def call(*operands: Any) -> Any:
        scope = dict(zip(captured, operands[n_inputs:], strict=True))
        callables = {
            name: functools.partial(_run, body, scope, outer, lower, lowered[name])
            for name, body in bodies.items()
        }
        return jax.tree.map(_array, function(*operands[:n_inputs], **callables))

    return call


def _array(value: Any) -> Any:
    """Return a value as an array; what is known while tracing stays NumPy, and so known."""
    return value if isinstance(value, np.ndarray) else jax.numpy.asarray(value)


class NeedsInputError(StaticInputError):
    """A value is needed while tracing that `inputs` of a graph determine."""

    inputs: frozenset[str] = frozenset()


def needs_input(error: StaticInputError, inputs: frozenset[str]) -> NeedsInputError:
    """Return an error that says the same and knows the inputs."""
    other = NeedsInputError(error.what, where=error.where, why=error.why, hint=error.hint)
    other.inputs = inputs
    return other


def needed(error: BaseException | None) -> frozenset[str]:
    """Return the inputs of a body whose values were needed, from an error or what caused it."""
    while error is not None:
        if isinstance(error, NeedsInputError) and error.inputs:
            return error.inputs
        error = error.__cause__
    return frozenset()


def _run(
    body: Model,
    scope: Mapping[str, Any],
    outer: Model,
    lower: Lower,
    lowered: dict[Hashable, Program],
    *values: Any,
) -> tuple[Any, ...]:
    given = dict(zip(body.input_names, values, strict=True))
    given |= {n: v for n, v in scope.items() if n in body.captured}
    # What is known here stays known inside: shapes and the end of a loop may depend on it.
    known = {n: v for n, v in given.items() if isinstance(v, np.ndarray)}
    traced = {n: v for n, v in given.items() if n not in known}
    example = jax.tree.map(
        lambda v: jax.ShapeDtypeStruct(np.shape(v), jax.numpy.result_type(v)), traced
    )
    wide = jax.dtypes.canonicalize_dtype(np.int64) == np.int64
    # A body is called to learn its shapes and called again to run. Lowering it each time would
    # double the work with every body inside it.
    leaves, tree = jax.tree.flatten(example)
    key = (
        wide,
        tree,
        tuple((spec.shape, spec.dtype) for spec in leaves),
        tuple((n, v.shape, v.dtype, _content(v)) for n, v in known.items()),
    )
    inputs = tuple(Tensor(name=n, dtype=None, shape=None) for n in traced)
    if key not in lowered:
        whole = dataclasses.replace(
            body,
            inputs=inputs,
            initializers={**body.initializers, **known},
            opsets=outer.opsets,
        )
        lowered[key] = lower(whole, example, wide=wide)
    program = lowered[key]
    packed = program.prepare({n: jax.numpy.asarray(w) for n, w in program.weights.items()}, None)
    fed, _ = nesting.flat_feeds(inputs, jax.tree.map(jax.numpy.asarray, traced))
    found = {**program.run(packed, None, fed), **program.constants}
    return tuple(nesting.put_together(name, program.nests, found) for name in body.output_names)


def _content(value: np.ndarray) -> Hashable:
    return tuple(value.ravel().tolist()) if value.dtype == np.object_ else value.tobytes()
