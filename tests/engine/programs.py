"""Lower, run and compare whole graphs with onnxruntime."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
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


def check(graph: Graph, feeds: Feeds, *, tolerance: float = 2e-6, **options: object) -> Program:
    """Assert that a sample alone, and three together under ``vmap``, are what onnxruntime gives."""
    program = lowered(graph, feeds, **options)
    fed = {n: np.asarray(feeds[n]) for n in program.inputs}
    variants = [
        {n: np.asarray(v * k) if v.dtype.kind == "f" else v for n, v in fed.items()}
        for k in (np.float32(1), np.float32(-0.5), np.float32(3))
    ]
    together = {n: np.stack([one[n] for one in variants]) for n in fed}

    @jax.jit
    def both(weights: Feeds, one: Feeds, several: Feeds) -> tuple[Any, Any]:
        packed = program.prepare(weights, None)
        run = functools.partial(program.run, packed, None)
        return run(one), jax.vmap(run, axis_size=3)(several)

    alone, batch = jax.tree.map(np.asarray, both(program.weights, variants[0], together))
    for i, one in enumerate(variants):
        expected = run_onnx(graph.proto(), {**feeds, **one})
        assert set(alone) == set(expected)
        assert program.outputs == tuple(expected)
        for name, want in expected.items():
            assert relative_error(batch[name][i], want) < tolerance, name
            if i == 0:
                assert relative_error(alone[name], want) < tolerance, name
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
