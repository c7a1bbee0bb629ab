"""Lower, run and compare whole graphs with onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jptq.engine import Program, lower
from jptq.engine.layouts import canonical
from tests.graphs import Graph
from tests.oracles import relative_error, run_onnx
from tests.quant.networks import float_model

Feeds = Mapping[str, np.ndarray]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def lowered(graph: Graph, feeds: Feeds, **options: object) -> Program:
    return lower(float_model(graph), feeds, **options)  # type: ignore[arg-type]


def compiled(program: Program) -> tuple[dict[str, jax.Array], Callable[..., dict[str, jax.Array]]]:
    """Return packed float weights and the function of one sample."""
    packed = program.prepare({n: jnp.asarray(w) for n, w in program.weights.items()}, None)
    return packed, lambda p, v: program.run(p, None, v)


def check(graph: Graph, feeds: Feeds, *, tolerance: float = 2e-6, **options: object) -> Program:
    """Assert that a sample alone, and three together under ``vmap``, are what onnxruntime gives."""
    program = lowered(graph, feeds, **options)
    packed, run = compiled(program)
    fed = {n: np.asarray(feeds[n]) for n in program.inputs}
    variants = [
        {n: np.asarray(v * k) if v.dtype.kind == "f" else v for n, v in fed.items()}
        for k in (np.float32(1), np.float32(-0.5), np.float32(3))
    ]
    together = {n: np.stack([one[n] for one in variants]) for n in fed}
    alone = jax.jit(run)(packed, variants[0])
    batch = jax.jit(jax.vmap(run, in_axes=(None, 0), axis_size=3))(packed, together)
    for i, one in enumerate(variants):
        expected = run_onnx(graph.proto(), {**feeds, **one})
        assert set(alone) == set(expected)
        assert program.outputs == tuple(expected)
        for name, want in expected.items():
            assert relative_error(np.asarray(batch[name][i]), want) < tolerance
            if i == 0:
                assert relative_error(np.asarray(alone[name]), want) < tolerance
    return program


def moved(program: Program) -> int:
    """Count the transpositions that the program makes on computed values."""
    found = {
        (operand.value, operand.perm)
        for step in program.steps
        for operand in step.operands
        if operand.value and operand.perm != program.perms[operand.value]
    }
    ends = [
        name
        for name in program.outputs
        if name not in program.constants
        and program.perms[name] != canonical(len(program.perms[name]))
    ]
    return len(found) + len(ends)


def ops(program: Program) -> list[str]:
    return [step.op for step in program.steps]
