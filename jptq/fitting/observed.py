"""The one program of a fit: it gives out what layers read and what stands for the outputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jptq.data import SampleSet, batches
from jptq.data.batches import even
from jptq.engine import Packed, Runner, TableQuantizer, memory
from jptq.engine.layouts import canonical, convert
from jptq.fitting.held_out import Picked
from jptq.fitting.layers import Layer
from jptq.numerics.qtypes import FLOAT32
from jptq.ops import Kind
from jptq.quant.assign import Table, table
from jptq.quant.structure import operators_of

_PROBABILITY = (0.0, 1.0)

Values = Mapping[str, Array]


class Observed:
    """Runs a network in float or under a table, by the same program.

    Args:
      runner: Of the calibrated graph.
      layers: Those with readers are observed.
      samples: What it is run over, at least one.
      reserved: Bytes that samples of a run have to leave.

    Attributes:
      runner: As given.
      scores: The tensors that stand for the outputs, see `scores_of`.
      batch: Samples of a run.
      floating: What runs the float network.
    """

    def __init__(
        self, runner: Runner, layers: Sequence[Layer], samples: SampleSet, reserved: int
    ) -> None:
        self.runner = runner
        self.samples = runner.fitting(samples)
        self.scores = scores_of(runner)
        program, plan = runner.program, runner.plan
        assert plan is not None
        wanted = sorted({(r.rows.tensor, r.rows.axis) for one in layers for r in one.readers})
        names = tuple(dict.fromkeys((*(tensor for tensor, _ in wanted), *self.scores)))
        scores = self.scores

        def last(x: Array, tensor: str, axis: int) -> Array:
            order = (*(i for i in range(x.ndim) if i != axis), axis)
            moved = convert(x, program.perms[tensor], order)
            return jnp.reshape(moved, (-1, moved.shape[-1]))

        def observe(
            weights: Values, table: Table, feeds: Values
        ) -> tuple[dict[str, Array], dict[str, Array]]:
            values = program.run(weights, TableQuantizer(plan, table), feeds, keep=names)
            return (
                {key(tensor, axis): last(values[tensor], tensor, axis) for tensor, axis in wanted},
                {
                    n: convert(values[n], program.perms[n], canonical(values[n].ndim))
                    for n in scores
                },
            )

        # Without inputs there is nothing to count samples by: all of them are the same.
        size = None if program.inputs else 1
        self._compiled = runner.compilations.jit(
            "fit", jax.vmap(observe, in_axes=(None, None, 0), axis_size=size)
        )
        sample = memory.OBSERVED * memory.size(program, names) + memory.forward(program)
        room = runner.batching.room(weight_bytes(runner)) - reserved
        most = max(1, min(runner.batching.samples, math.floor(room / max(sample, 1.0))))
        self.batch = size or even(len(samples), most)
        off = table(plan, {}, {one.name: FLOAT32.name for one in plan.calibrations})
        self.floating = runner.pack(off, runner.floats)

    def batches(self, numbers: Sequence[int]) -> Iterator[tuple[dict[str, np.ndarray], int]]:
        """Yield some samples, always as many side by side, so that one program runs them.

        Args:
          numbers: Which, at least one.

        Yields:
          ``{input: [B, *shape]}`` and how many of the B are real.
        """
        lacking = -len(numbers) % self.batch
        padded = (*numbers, *(numbers[-1],) * lacking)
        picked = Picked(whole=self.samples, numbers=padded)
        left = len(numbers)
        for feeds, _ in batches(picked, self.batch, self.runner.program.inputs):
            yield feeds, min(left, self.batch)
            left -= self.batch

    def run(self, packed: Packed, feeds: Mapping[str, np.ndarray]) -> tuple[Values, Values]:
        """Run a batch.

        Args:
          packed: With a table.
          feeds: ``{input: [B, *shape]}``.

        Returns:
          ``{key of features: [B, S, C]}`` and ``{score: [B, *shape]}``.
        """
        features, scores = self._compiled(packed.weights, packed.table, dict(feeds))
        return features, scores


def key(tensor: str, axis: int) -> str:
    """Return what features are called whose channels are on an axis."""
    return f"{axis}|{tensor}"


def weight_bytes(runner: Runner) -> int:
    """Return the size of a network's constants."""
    return sum(value.nbytes for value in runner.program.weights.values())


def scores_of(runner: Runner) -> tuple[str, ...]:
    """Return the tensors that stand for the outputs: float ones, before a Softmax or Sigmoid.

    Behind these a certain decision hides its errors. What a Concat joins is taken apart: of an
    output of boxes and probabilities the boxes are nearly all.
    """
    model, program = runner.model, runner.program
    operators = operators_of(model)
    found: dict[str, None] = {}
    seen: set[str] = set()
    waiting = list(model.output_names)
    while waiting:
        name = waiting.pop(0)
        if name in seen or name not in program.perms:
            continue
        seen.add(name)
        floating = np.issubdtype(program.dtypes[name], np.floating)
        node = model.producers.get(name)
        above: list[str] = []
        if node is not None and node.is_calibration:
            above = [node.inputs[0]]
        elif node is not None:
            traits = operators[node.name].traits
            if not floating or (traits.kind is Kind.VIEW and traits.joins):
                above = list(node.inputs)
            elif traits.kind is Kind.VIEW:
                above = [node.inputs[traits.through]]
            elif traits.bounds == _PROBABILITY:
                above = [node.inputs[0]]
        computed = [one for one in above if one in program.perms]
        waiting += computed
        if floating and not computed:
            found[name] = None
    return tuple(found)
