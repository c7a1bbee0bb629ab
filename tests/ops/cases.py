"""The ONNX backend node cases, run straight against the registered operators.

This is a second, deliberately plain reading of what the engine does with a node: look the operator
up, hand it NumPy for static inputs and JAX arrays for the rest, attributes as Python values,
subgraphs as callables. It knows nothing of the engine, so it can judge operators alone.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import onnx

from jptq.numerics import dtypes
from jptq.ops import Op, find
from tests.ops import suite
from tools.fuzz.together import run_together

Feeds = Mapping[str, Any]

_TOGETHER = 16
"""Computations of a program. Which of them fails is found by halves."""

_ROUNDINGS = {np.dtype(np.float16): 2.0**-8, np.dtype(ml_dtypes.bfloat16): 2.0**-6}
"""Right results may round to neighbours, and ONNX grants 1e-3: a step of float16, and less than one
of bfloat16. These are four steps and two; bfloat16 agrees to the last bit but in attention."""

_IN_ATTENTION = 4
"""Times as much: it rounds scores, weights and sums. 1.75 steps were seen of the 8 in bfloat16."""

_WRITTEN = {"test_averagepool_2d_ceil_last_window_starts_on_pad": 4 * 5e-5}
"""Cases whose results ONNX writes down with four decimals: four times what these leave out."""


class Case(suite.Shipped):
    """One model of the ONNX backend suite with its expected outputs, as the operators see it."""

    @property
    def operator(self) -> str:
        return self.model.graph.node[0].op_type

    @property
    def is_single(self) -> bool:
        return len(self.model.graph.node) == 1

    @property
    def has_moving_inputs(self) -> bool:
        """Whether the node reads anything that need not be known while tracing."""
        return bool(as_function(self, self.data_sets[0][0])[1])

    @functools.cached_property
    def is_runnable(self) -> bool:
        """Whether every operator is registered and every tensor has a known number type."""
        return _has_known_types(self.model.graph) and all(
            entry is not None for entry in _operators(self.model, self.model.graph)
        )


@functools.cache
def load() -> tuple[Case, ...]:
    """Return all node cases that jptq can run, in the order of the suite."""
    fields = [field.name for field in dataclasses.fields(Case)]
    cases = (Case(*(getattr(one, name) for name in fields)) for one in suite.load())
    return tuple(case for case in cases if case.is_runnable)


@dataclasses.dataclass(frozen=True)
class Run:
    """One computation of a case.

    Attributes:
      case: What is computed.
      inputs: In graph order.
      expected: In graph order.
      copies: Map the case over as many equal samples; if 0, call it plainly.
    """

    case: Case
    inputs: list[Any]
    expected: list[Any]
    copies: int = 0

    @property
    def is_wrong_together(self) -> bool:
        """Whether XLA's older emitters, the fastest to compile, get it wrong."""
        return any("fnuz" in leaf.dtype.name for leaf in jax.tree.leaves(self.expected))

    def function(self) -> tuple[Callable[..., Any], list[Any]]:
        """Return what is compiled, and its arguments."""
        of = as_function if self.case.is_single else as_chain
        call, values = of(self.case, self.inputs)
        if self.copies:
            return jax.vmap(call), jax.tree.map(lambda x: np.stack([x] * self.copies), values)
        return call, values

    def compare(self, outputs: Sequence[Any]) -> None:
        """Assert equal dtypes, shapes and, within the tolerance of ONNX, values."""
        expected = self.expected
        if self.copies:
            expected = jax.tree.map(lambda x: np.stack([x] * self.copies), expected)
        compare(self.case, list(outputs), expected)


def runs(case: Case) -> list[Run]:
    """Return the computations of a case that ONNX has results of."""
    return [Run(case, inputs, expected) for inputs, expected in case.data_sets]


def outputs(several: Sequence[Run]) -> list[Any]:
    """Compile computations as few programs; return what each gives, or the error that it raised.

    A program costs more than the one operator in it. What is refused together is computed alone.
    """
    shared = [run for run in several if not run.is_wrong_together]
    found: dict[int, Any] = {}
    for start in range(0, len(shared), _TOGETHER):
        group = shared[start : start + _TOGETHER]
        calls = [run.function() for run in group]
        results = run_together([call for call, _ in calls], [[values] for _, values in calls])
        found |= {
            id(run): result[0]
            for run, result in zip(group, results, strict=True)
            if not isinstance(result, Exception)
        }
    return [found[id(run)] if id(run) in found else _alone(run) for run in several]


def _alone(run: Run) -> Any:
    """Return what a computation gives in a program of its own, or operator by operator.

    Then every value is known, and so may decide about a shape.
    """
    try:
        if run.case.is_single:
            call, values = run.function()
            return jax.jit(call)(*values)
        names = [tensor.name for tensor in run.case.model.graph.input]
        feeds = dict(zip(names, jax.tree.map(jnp.asarray, run.inputs), strict=True))
        return _run_graph(run.case.model, run.case.model.graph, feeds)
    except Exception as error:  # the report names every case that fails
        return error


def compare(case: Case, outputs: list[Any], expected: list[Any]) -> None:
    """Assert equal dtypes, shapes and, within the tolerance of ONNX, values."""
    assert jax.tree.structure(outputs) == jax.tree.structure(expected)
    for got, want in zip(jax.tree.leaves(outputs), jax.tree.leaves(expected), strict=True):
        array = np.asarray(got)
        assert array.dtype == want.dtype, f"dtype {array.dtype}, expected {want.dtype}"
        assert array.shape == want.shape, f"shape {array.shape}, expected {want.shape}"
        roundings = _ROUNDINGS.get(array.dtype, 0.0) * (
            _IN_ATTENTION if case.name.startswith("test_attention") else 1
        )
        rtol, atol = max(case.rtol, roundings), case.atol
        if array.dtype.kind not in "biuc":  # NumPy cannot subtract the small float types
            array, want = array.astype(np.float64), want.astype(np.float64)
            # A sum that cancels keeps the roundings of its terms, eight of the largest result here.
            largest = np.max(np.abs(want), where=np.isfinite(want), initial=0.0)
            atol = max(atol, 2.0**-20 * float(largest), _WRITTEN.get(case.name, 0.0))
        np.testing.assert_allclose(array, want, rtol=rtol, atol=atol)


def is_beyond_xla(error: Exception) -> bool:
    """Tell whether XLA has no float16 here: without F16C it calls conversions that it lacks."""
    return isinstance(error, jax.errors.JaxRuntimeError) and (
        "Failed to materialize symbols" in str(error)
    )


def as_function(case: Case, given: list[Any]) -> tuple[Callable[..., tuple[Any, ...]], list[Any]]:
    """Return the case's only node as a function of its non-static inputs, and these inputs."""
    (node,) = case.model.graph.node
    entry = _find(case.model, node)
    assert entry is not None
    feeds = _initial(case.model.graph)
    feeds |= zip((t.name for t in case.model.graph.input), given, strict=True)
    inputs = [feeds[name] if name else None for name in node.input]
    moving = [i for i, x in enumerate(inputs) if x is not None and not entry.is_static(i)]
    keywords = _keywords(case.model, node, entry, feeds)

    def call(*values: Any) -> tuple[Any, ...]:
        arguments = list(inputs)
        for index, value in zip(moving, values, strict=True):
            arguments[index] = value
        results = _as_tuple(entry.function(*arguments, **keywords))
        outputs = dict(zip(node.output, results, strict=False))
        return tuple(outputs[tensor.name] for tensor in case.model.graph.output)

    return call, [inputs[i] for i in moving]


def as_chain(case: Case, given: list[Any]) -> tuple[Callable[..., list[Any]], list[Any]]:
    """Return a model of any size as a function of its float inputs, and these inputs.

    Whole numbers stay known while tracing: they may be shapes.
    """
    leaves, structure = jax.tree.flatten(given)
    moving = [i for i, x in enumerate(leaves) if x.dtype.kind not in "biu"]
    names = [tensor.name for tensor in case.model.graph.input]

    def call(*values: Any) -> list[Any]:
        arguments = list(leaves)
        for index, value in zip(moving, values, strict=True):
            arguments[index] = value
        inputs = jax.tree.unflatten(structure, arguments)
        return _run_graph(case.model, case.model.graph, dict(zip(names, inputs, strict=True)))

    return call, [leaves[i] for i in moving]


def _run_graph(model: onnx.ModelProto, graph: onnx.GraphProto, feeds: Feeds) -> list[Any]:
    values = {**feeds, **_initial(graph)}
    for node in graph.node:
        entry = _find(model, node)
        assert entry is not None, node.op_type
        inputs = [
            None if not name else _host(values[name], static=entry.is_static(index))
            for index, name in enumerate(node.input)
        ]
        outputs = _call(entry, inputs, _keywords(model, node, entry, values))
        values |= zip(node.output, outputs, strict=False)
    return [values[tensor.name] for tensor in graph.output]


def _host(value: Any, *, static: bool) -> Any:
    return np.asarray(value) if static else value


def _call(entry: Op, inputs: list[Any], keywords: dict[str, Any]) -> tuple[Any, ...]:
    """Call an operator; what it makes of host values alone stays on the host."""
    if any(isinstance(x, jax.Array) for x in jax.tree.leaves(inputs)):
        return _as_tuple(entry.function(*inputs, **keywords))
    with jax.ensure_compile_time_eval():
        found = _as_tuple(entry.function(*inputs, **keywords))
        return tuple(jax.tree.map(_on_host, found))


def _on_host(value: Any) -> Any:
    """Return what is known as NumPy; a subgraph may have closed over what is not."""
    return value if isinstance(value, jax.core.Tracer) else np.asarray(value)


def _as_tuple(result: Any) -> tuple[Any, ...]:
    return tuple(result) if isinstance(result, tuple | list) else (result,)


def _initial(graph: onnx.GraphProto) -> dict[str, Any]:
    return {tensor.name: suite.array(tensor) for tensor in graph.initializer}


def _keywords(
    model: onnx.ModelProto, node: onnx.NodeProto, entry: Op, values: Feeds
) -> dict[str, Any]:
    keywords = {a.name: _attribute(model, a, values) for a in node.attribute}
    return {**keywords, "n_outputs": len(node.output)} if entry.counts_outputs else keywords


def _attribute(model: onnx.ModelProto, attribute: onnx.AttributeProto, values: Feeds) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return suite.array(value)
    if isinstance(value, onnx.GraphProto):
        return _subgraph(model, value, values)
    if isinstance(value, int | float | onnx.TypeProto):
        return value
    return tuple(item.decode() if isinstance(item, bytes) else item for item in value)


def _subgraph(
    model: onnx.ModelProto, graph: onnx.GraphProto, outer: Feeds
) -> Callable[..., tuple[Any, ...]]:
    def call(*inputs: Any) -> tuple[Any, ...]:
        feeds = zip((tensor.name for tensor in graph.input), inputs, strict=True)
        return tuple(_run_graph(model, graph, {**outer, **dict(feeds)}))

    return call


def _find(model: onnx.ModelProto, node: onnx.NodeProto) -> Op | None:
    versions = {entry.domain: entry.version for entry in model.opset_import}
    return find(node.domain, node.op_type, versions.get(node.domain, 1))


def _operators(model: onnx.ModelProto, graph: onnx.GraphProto) -> Iterator[Op | None]:
    for node in graph.node:
        yield _find(model, node)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _operators(model, attribute.g)


def _has_known_types(graph: onnx.GraphProto) -> bool:
    """Whether all inputs, outputs and cast targets hold numbers that jptq has."""
    known = {code for code in range(1, 32) if _is_number(code)}
    tensors = [_element(tensor.type) for tensor in (*graph.input, *graph.output)]
    targets = {
        attribute.i
        for node in graph.node
        for attribute in node.attribute
        if attribute.name in ("to", "dtype") and node.domain == ""
    }
    return (
        all(t.HasField("tensor_type") and t.tensor_type.elem_type in known for t in tensors)
        and targets <= known
    )


def _element(kind: onnx.TypeProto) -> onnx.TypeProto:
    """Return the type of the tensors in a sequence or an optional."""
    while kind.HasField("sequence_type") or kind.HasField("optional_type"):
        wrapped = kind.WhichOneof("value")
        kind = getattr(kind, wrapped).elem_type
    return kind


def _is_number(code: int) -> bool:
    try:
        return dtypes.from_onnx(code) != np.object_
    except KeyError:
        return False
