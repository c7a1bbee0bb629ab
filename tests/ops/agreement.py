"""Oracles for operators: onnxruntime, and an operator's own default for its lowerings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime

from jptq.ops import Lowering, Op, find
from tools.fuzz.together import run_together

Inputs = Sequence[np.ndarray | None]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Return standard normal float32 numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def entry_of(name: str, opset: int) -> Op:
    """Return the registered operator."""
    entry = find("", name, opset)
    assert entry is not None
    return entry


def onnxruntime_outputs(
    name: str, inputs: Inputs, attributes: dict[str, Any], *, opset: int, n_outputs: int = 1
) -> list[np.ndarray]:
    """Run one node in onnxruntime."""
    present = [(f"i{k}", x) for k, x in enumerate(inputs) if x is not None]
    node = onnx.helper.make_node(
        name,
        [f"i{k}" if x is not None else "" for k, x in enumerate(inputs)],
        [f"o{k}" for k in range(n_outputs)],
        **{key: value for key, value in attributes.items() if value != []},
    )
    for key in attributes.keys() - {attribute.name for attribute in node.attribute}:
        # An empty list does not show its type.
        node.attribute.append(
            onnx.helper.make_attribute(key, [], attr_type=onnx.AttributeProto.INTS)
        )
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [
            onnx.helper.make_tensor_value_info(
                key, onnx.helper.np_dtype_to_tensor_dtype(x.dtype), x.shape
            )
            for key, x in present
        ],
        [onnx.ValueInfoProto(name=f"o{k}") for k in range(n_outputs)],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        onnx.shape_inference.infer_shapes(model).SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
    )
    return session.run(None, dict(present))


def together(functions: Mapping[Any, Callable[..., Any]], *arguments: Any) -> dict[Any, Any]:
    """Compile functions of the same arguments as one program; return what each gives, in NumPy."""
    results = run_together(list(functions.values()), [[arguments]] * len(functions), fast=False)
    found = {}
    for label, result in zip(functions, results, strict=True):
        if isinstance(result, Exception):
            raise result
        found[label] = result[0]
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class One:
    """A node and what it is given.

    Attributes:
      inputs: Arrays, None for what is absent.
      attributes: As ONNX has them.
      n_outputs: How many there are.
      lowering: Name of the lowering that has to be chosen.
    """

    inputs: Inputs
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    n_outputs: int = 1
    lowering: str = ""

    def moving(self, entry: Op) -> list[int]:
        """Return which inputs need not be known while tracing."""
        return [k for k, x in enumerate(self.inputs) if x is not None and not entry.is_static(k)]

    def of_moving(self, entry: Op, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function of all inputs as one of those that are no constants."""
        moving = self.moving(entry)

        def call(*given: jax.Array) -> Any:
            full: list[Any] = list(self.inputs)
            for k, value in zip(moving, given, strict=True):
                full[k] = value
            return function(*full)

        return call


def check_against_onnxruntime(
    name: str,
    inputs: Inputs,
    attributes: dict[str, Any] | None = None,
    *,
    opset: int,
    n_outputs: int = 1,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> None:
    """Assert that the default function agrees with onnxruntime."""
    one = One(inputs=inputs, attributes=attributes or {}, n_outputs=n_outputs)
    check_all_against_onnxruntime(name, {"the only one": one}, opset=opset, rtol=rtol, atol=atol)


def check_all_against_onnxruntime(
    name: str,
    nodes: Mapping[str, One],
    *,
    opset: int,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> None:
    """Assert that the default function agrees with onnxruntime, in one program for all nodes."""
    entry = entry_of(name, opset)

    def of(one: One) -> Callable[..., Any]:
        counted = {"n_outputs": one.n_outputs} if entry.counts_outputs else {}
        return one.of_moving(
            entry, lambda *full: entry.function(*full, **_hashable(one.attributes), **counted)
        )

    def check(one: One, got: Any) -> None:
        want = onnxruntime_outputs(
            name, one.inputs, dict(one.attributes), opset=opset, n_outputs=one.n_outputs
        )
        outputs = got if isinstance(got, tuple) else (got,)
        for ours, theirs in zip(outputs, want, strict=False):
            assert ours.shape == theirs.shape
            np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol)

    _check_all(nodes, entry, of, check)


def _check_all(
    nodes: Mapping[str, One],
    entry: Op,
    function: Callable[[One], Callable[..., Any]],
    check: Callable[[One, Any], None],
) -> None:
    """Compute something of all nodes in one program; report each that a check refuses."""
    results = run_together(
        [function(one) for one in nodes.values()],
        [[[one.inputs[k] for k in one.moving(entry)]] for one in nodes.values()],
        fast=False,
    )
    wrong = []
    for (label, one), result in zip(nodes.items(), results, strict=True):
        try:
            if isinstance(result, Exception):
                raise result
            check(one, result[0])
        except Exception as error:  # the report names every node that fails
            wrong.append((label, error))
    if len(nodes) == 1 and wrong:
        raise wrong[0][1]
    assert not wrong, "\n".join(f"{label}: {error!r}" for label, error in wrong)


def chosen_lowering(
    name: str, inputs: Inputs, attributes: dict[str, Any], *, opset: int
) -> Lowering:
    """Return the first lowering for CPUs whose condition holds."""
    structs = [None if x is None else jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs]
    for lowering in entry_of(name, opset).lowerings:
        if lowering.platform in ("", "cpu") and lowering.when(*structs, **_hashable(attributes)):
            return lowering
    raise AssertionError(f"no lowering of {name} fits")


def check_lowering(
    name: str,
    inputs: Inputs,
    attributes: dict[str, Any] | None = None,
    *,
    opset: int,
    expected: str,
) -> None:
    """Assert that the lowering of this name is chosen and equals the default."""
    one = One(inputs=inputs, attributes=attributes or {}, lowering=expected)
    check_lowerings(name, {"the only one": one}, opset=opset)


def check_lowerings(name: str, nodes: Mapping[str, One], *, opset: int) -> None:
    """Assert that the lowerings of these names are chosen and equal the default.

    Values, gradients by every moving float input, and a batch of samples under ``vmap``, of all
    nodes in one program: compiling is what takes the time.
    """
    entry = entry_of(name, opset)

    def both(one: One) -> Callable[..., list[tuple[jax.Array, jax.Array]]]:
        keywords = _hashable(one.attributes)
        lowering = chosen_lowering(name, one.inputs, keywords, opset=opset)
        assert lowering.name == one.lowering

        def by_lowering(*full: Any) -> jax.Array:
            packed = [lowering.pack[k](x) if k in lowering.pack else x for k, x in enumerate(full)]
            if not lowering.channels_last:
                return lowering.function(*packed, **keywords)
            y = lowering.function(jnp.moveaxis(packed[0], 1, -1), *packed[1:], **keywords)
            return jnp.moveaxis(y, -1, 1)

        lowered = one.of_moving(entry, by_lowering)
        default = one.of_moving(entry, lambda *full: entry.function(*full, **keywords))
        return _both(lowered, default, len(one.moving(entry)))

    def check(one: One, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        for got, want in pairs:
            assert got.dtype == want.dtype
            _assert_near(got, want)

    _check_all(nodes, entry, both, check)


def _both(
    lowered: Callable[..., jax.Array], default: Callable[..., jax.Array], count: int
) -> Callable[..., list[tuple[jax.Array, jax.Array]]]:
    """Return what gives pairs of what has to be equal: values, batches, gradients."""

    def loss(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        return lambda *given: jnp.sin(function(*given)).sum()

    def pairs(*given: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        batch = jnp.stack([given[0], -given[0]])
        together = jax.vmap(lowered, (0, *(None,) * (count - 1)))(batch, *given[1:])
        want = default(*given)
        return [
            (lowered(*given), want),
            (together, jnp.stack([want, default(-given[0], *given[1:])])),
            *zip(
                jax.grad(loss(lowered), range(count))(*given),
                jax.grad(loss(default), range(count))(*given),
                strict=True,
            ),
        ]

    return pairs


def _assert_near(got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape
    scale = max(1.0, float(np.abs(want).max()))
    np.testing.assert_allclose(got / scale, want / scale, atol=1e-5)


def _hashable(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in attributes.items()
    }
