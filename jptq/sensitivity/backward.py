"""Backward passes that every quantizer's effect is read from, over batches of samples.

A vector v over the outputs, pulled back to the gates, gives ``v . e_c`` for every quantizer c.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jptq import prng
from jptq.engine import memory
from jptq.engine.runner import Runner, SampleSet
from jptq.quant.assign import Table
from jptq.sensitivity.gates import Gates, error_direction, quantization_errors
from jptq.sensitivity.readings import Readings

ROUND = 4
"""Random vectors per program run: they share one forward pass."""

_AT_ONCE = ROUND + 1
"""Most vectors of one backward pass: those of a round, and the output itself."""

Pulled: TypeAlias = dict[str, np.ndarray]
"""``mse``: float[S, P, Q, K]; for the cosine also ``cosine-similarity``, of the same shape, and
``aligned``: float[S, O, Q, K]."""

_Vectors: TypeAlias = Mapping[str, Array]
"""Output directions ``[V, *shape]``, by output."""


class Backward:
    """Programs that pull output directions back to the gates.

    Args:
      runner: Of the calibrated graph.
      tables: Q candidates.
      outputs: What is compared.
      progress: Called after every program run.
    """

    def __init__(
        self,
        runner: Runner,
        tables: Sequence[Table],
        outputs: Sequence[str],
        progress: Callable[[int, int], None],
    ) -> None:
        self._runner = runner
        self._tables = tables
        self._outputs = tuple(outputs)
        self._progress = progress
        self._weights = quantization_errors(runner, tables)
        self._gates = Gates(runner.program, len(tables))

    def given(self, samples: SampleSet, read: Readings) -> np.ndarray:
        """Return the change ``float[S, R, Q, K]`` of every reading by every gate."""
        vectors = max(1, min(ROUND, read.count))
        at_once, together = self._room(vectors)
        program = self._program(
            ("given", vectors, together), lambda: _given(self._point, together=together)
        )
        rounds = max(1, -(-read.count // vectors))  # without elements there is one of zeros
        found = []
        for number in range(rounds):
            which = range(number * vectors, (number + 1) * vectors)

            def pulled(sample: int, which: range = which) -> dict[str, np.ndarray]:
                return read.vectors(sample, which)

            found.append(self._run(program, samples, at_once, pulled, number, rounds)["pulled"])
        return np.concatenate(found, axis=1)[:, : read.count]

    def signs(
        self, samples: SampleSet, number: int, rounds: int, seed: int, *, aligned: bool
    ) -> Pulled:
        """Return one round of random signs; with what the cosine needs if `aligned`."""
        at_once, together = self._room(_AT_ONCE)
        program = self._program(
            ("signs", aligned, together),
            lambda: _signs(self._point, self._outputs, aligned=aligned, together=together),
        )

        shapes = self._runner.program.shapes

        def drawn(sample: int) -> dict[str, np.ndarray]:
            generator = prng.generator(seed, "probe", number, sample)
            return {n: prng.signs(generator, (ROUND, *shapes[n])) for n in self._outputs}

        return self._run(program, samples, at_once, drawn, number, rounds)

    def _room(self, vectors: int) -> tuple[int, bool]:
        """Return the bytes of a pull, and whether its vectors go together or one by one."""
        at_once = memory.backward(self._runner.program, len(self._tables), vectors)
        return int(at_once), self._runner.fits(at_once)

    def _program(
        self, key: tuple[object, ...], make: Callable[[], Callable[..., dict[str, Array]]]
    ) -> Callable[..., dict[str, Array]]:
        def batched() -> Callable[..., dict[str, Array]]:
            one = make()
            return self._runner.compilations.jit("probe", jax.vmap(one, (None, None, None, 0, 0)))

        return self._runner.compilations.once(
            ("probe", len(self._tables), self._outputs, *key), batched
        )

    def _run(
        self,
        program: Callable[..., dict[str, Array]],
        samples: SampleSet,
        at_once: int,
        each: Callable[[int], Mapping[str, np.ndarray]],
        number: int,
        rounds: int,
    ) -> Pulled:
        """Run one round over all samples; `each` gives what a sample brings beside its feeds."""
        packed = self._runner.float_weights.weights
        size = self._runner.batch_for(at_once)
        batches = -(-len(samples) // size)
        parts: list[Pulled] = []
        seen = 0
        for feeds, count in self._runner.batches(samples, size):
            full = next(iter(feeds.values())).shape[0]
            # The last batch is filled up with its last sample, whose results are dropped.
            own = [each(min(seen + i, len(samples) - 1)) for i in range(full)]
            seen += count
            stacked = {name: np.stack([one[name] for one in own]) for name in own[0]}
            pulled = program(packed, self._weights, self._tables, feeds, stacked)
            parts.append({name: np.asarray(value)[:count] for name, value in pulled.items()})
            self._progress(len(parts) + number * batches, rounds * batches)
        return {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}

    def _point(
        self,
        packed: Mapping[str, Array],
        weights: Sequence[Mapping[str, Array]],
        tables: Sequence[Table],
        feeds: Mapping[str, Array],
    ) -> tuple[dict[str, Array], Callable[[_Vectors], Array]]:
        """Return the float outputs of one sample and what pulls a direction back."""
        plan = self._gates.program.plan
        assert plan is not None
        directions = error_direction(self._gates.program, tables)

        def network(u: Array) -> dict[str, Array]:
            found = self._gates.outputs(u, packed, weights, directions, feeds)
            return {name: found[name] for name in self._outputs}

        u = jnp.zeros((self._gates.candidates, len(plan.calibrations)), jnp.float32)
        y, pull = jax.vjp(network, u)
        return y, lambda vector: pull(dict(vector))[0]


_Point = Callable[..., tuple[dict[str, Array], Callable[[_Vectors], Array]]]


def _over(pull: Callable[[_Vectors], Array], vectors: _Vectors, *, together: bool) -> Array:
    """Pull vectors back, a few in one pass or one after the other: ``[V, Q, K]``.

    The pull stands in the program once, however many vectors there are: a program with a copy of
    it for each use of the result would compile for as many times as long.
    """
    count = next(iter(vectors.values())).shape[0]
    passes = -(-count // (_AT_ONCE if together else 1))
    each = -(-count // passes)
    if passes == 1:
        return jax.vmap(pull)(vectors)

    def in_passes(v: Array) -> Array:
        filled = jnp.concatenate([v, jnp.zeros((passes * each - count, *v.shape[1:]), v.dtype)])
        return filled.reshape(passes, each, *v.shape[1:])

    found = jax.lax.map(jax.vmap(pull), jax.tree.map(in_passes, dict(vectors)))
    return found.reshape(passes * each, *found.shape[2:])[:count]


def _given(point: _Point, *, together: bool) -> Callable[..., dict[str, Array]]:
    """Return the program that pulls given vectors back, for one sample."""

    def one(
        packed: Mapping[str, Array],
        weights: Sequence[Mapping[str, Array]],
        tables: Sequence[Table],
        feeds: Mapping[str, Array],
        vectors: _Vectors,
    ) -> dict[str, Array]:
        _, pull = point(packed, weights, tables, feeds)
        return {"pulled": _over(pull, vectors, together=together)}

    return one


def _signs(
    point: _Point, outputs: Sequence[str], *, aligned: bool, together: bool
) -> Callable[..., dict[str, Array]]:
    """Return the program that pulls random signs back, for one sample.

    The signs are drawn on the host, ``int8[ROUND, *shape]`` by output: a generator in the program
    would be two thirds of what there is to compile.

    Args:
      point: The network.
      outputs: What is compared.
      aligned: Pull back what the cosine needs too: its signs, and ``y/|y|`` of each output.
      together: Pull the vectors of a round back in one pass; else one after the other.
    """

    def one(
        packed: Mapping[str, Array],
        weights: Sequence[Mapping[str, Array]],
        tables: Sequence[Table],
        feeds: Mapping[str, Array],
        drawn: _Vectors,
    ) -> dict[str, Array]:
        y, pull = point(packed, weights, tables, feeds)
        norms = {n: jnp.sqrt(jnp.sum(v * v)) for n, v in y.items()}
        safe = {n: jnp.where(norm > 0, norm, 1.0) for n, norm in norms.items()}
        sizes = {n: jnp.asarray(1.0 / np.sqrt(max(v.size, 1)), v.dtype) for n, v in y.items()}
        signs = {n: v.astype(y[n].dtype) for n, v in drawn.items()}
        wanted: list[_Vectors] = [{n: v * sizes[n] for n, v in signs.items()}]
        if aligned:
            if len(outputs) > 1:
                wanted.append({n: v / safe[n] for n, v in signs.items()})
            along = {n: v / safe[n] ** 2 for n, v in y.items()}
            which = np.eye(len(outputs), dtype=bool)
            wanted.append(
                {
                    n: jnp.where(which[i].reshape(-1, *(1,) * v.ndim), v, jnp.zeros_like(v))
                    for i, (n, v) in enumerate(along.items())
                }
            )
        joined = {n: jnp.concatenate([v[n] for v in wanted]) for n in outputs}
        found = _over(pull, joined, together=together)
        out = {"mse": found[:ROUND]}
        if aligned:
            # With one output the two scalings differ by a factor.
            name = outputs[0]
            factor = 1.0 / safe[name] / sizes[name]
            out["cosine-similarity"] = (
                found[:ROUND] * factor if len(outputs) == 1 else found[ROUND : 2 * ROUND]
            )
            out["aligned"] = found[-len(outputs) :]
        return out

    return one
