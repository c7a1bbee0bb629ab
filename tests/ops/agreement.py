"""Oracles for operators: onnxruntime, and an operator's own default for its lowerings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime

from jptq.ops import Lowering, Op, find

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
    attributes = attributes or {}
    entry = entry_of(name, opset)
    counted = {"n_outputs": n_outputs} if entry.counts_outputs else {}
    moving = [k for k, x in enumerate(inputs) if x is not None and not entry.is_static(k)]

    @jax.jit
    def call(*given: jax.Array) -> Any:
        full: list[Any] = list(inputs)
        for k, value in zip(moving, given, strict=True):
            full[k] = value
        return entry.function(*full, **_hashable(attributes), **counted)

    got = call(*(inputs[k] for k in moving))
    want = onnxruntime_outputs(name, inputs, attributes, opset=opset, n_outputs=n_outputs)
    outputs = got if isinstance(got, tuple) else (got,)
    for ours, theirs in zip(outputs, want, strict=False):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(np.asarray(ours), theirs, rtol=rtol, atol=atol)


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
    """Assert that the lowering of this name is chosen and equals the default.

    Values, gradients by every moving float input, and a batch of samples under ``vmap``.
    """
    keywords = _hashable(attributes or {})
    entry = entry_of(name, opset)
    lowering = chosen_lowering(name, inputs, keywords, opset=opset)
    assert lowering.name == expected
    moving = [k for k, x in enumerate(inputs) if x is not None and not entry.is_static(k)]
    values = [jnp.asarray(inputs[k]) for k in moving]

    def with_moving(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: jax.Array) -> jax.Array:
            full = list(inputs)
            for k, value in zip(moving, given, strict=True):
                full[k] = value
            return function(*full)

        return call

    def default(*full: Any) -> jax.Array:
        return entry.function(*full, **keywords)

    def lowered(*full: Any) -> jax.Array:
        packed = [lowering.pack[k](x) if k in lowering.pack else x for k, x in enumerate(full)]
        if not lowering.channels_last:
            return lowering.function(*packed, **keywords)
        y = lowering.function(jnp.moveaxis(packed[0], 1, -1), *packed[1:], **keywords)
        return jnp.moveaxis(y, -1, 1)

    def loss(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        return lambda *given: jnp.sin(with_moving(function)(*given)).sum()

    places = range(len(values))
    in_axes = (0, *(None,) * (len(values) - 1))

    @jax.jit  # one program instead of one per operation: compiling is what takes the time
    def both(*given: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        mirrored = (-given[0], *given[1:])
        batch = jnp.stack([given[0], -given[0]])
        together = jax.vmap(with_moving(lowered), in_axes)(batch, *given[1:])
        want = with_moving(default)(*given)
        return [
            (with_moving(lowered)(*given), want),
            (together, jnp.stack([want, with_moving(default)(*mirrored)])),
            *zip(
                jax.grad(loss(lowered), places)(*given),
                jax.grad(loss(default), places)(*given),
                strict=True,
            ),
        ]

    for got, want in both(*values):
        assert got.dtype == want.dtype
        _assert_near(got, want)


def _assert_near(got: jax.Array, want: jax.Array) -> None:
    assert got.shape == want.shape
    scale = max(1.0, float(jnp.abs(want).max()))
    np.testing.assert_allclose(np.asarray(got) / scale, np.asarray(want) / scale, atol=1e-5)


def _hashable(attributes: dict[str, Any]) -> dict[str, Any]:
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in attributes.items()
    }
