"""The network as a function of gates: one mechanism behind probes, gradients and Hessians.

Every quantizer c moves its tensor along a direction ``d_c`` by a gate ``u_c``; the network is
``y(u)`` with ``y(0)`` the base point. Derivatives with respect to the K gates cost one backward
pass, however many there are (design 5).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jptq.engine.program import Program
from jptq.engine.quantizing import TableQuantizer
from jptq.engine.runner import Runner
from jptq.ops.intervals import INFINITE
from jptq.quant.assign import Table

FeatureDirection: TypeAlias = Callable[[int, int, Array, int | None], Array]
"""``direction(candidate, calibration index, tensor, channel axis) -> tensor``."""

WeightDirections: TypeAlias = Sequence[Mapping[str, Array]]
"""Per candidate, ``{packed weight: direction}`` for weights that carry a quantizer."""


@dataclasses.dataclass(frozen=True)
class Gates:
    """A program whose quantizers are directions behind gates.

    Attributes:
      program: With a plan of K calibrations.
      candidates: Q, the number of directions per calibration.
    """

    program: Program
    candidates: int

    def outputs(
        self,
        gates: Array,
        packed: Mapping[str, Array],
        weights: WeightDirections,
        features: FeatureDirection,
        feeds: Mapping[str, Array],
        base: Table | None = None,
    ) -> dict[str, Array]:
        """Run one sample.

        Args:
          gates: ``float32[Q, K]``, zero at the base point.
          packed: Weights at the base point.
          weights: Their directions.
          features: Directions of features.
          feeds: One sample.
          base: Precision at the base point; None is the float network.

        Returns:
          Graph outputs, canonical order.
        """
        plan, slots = self.program.plan, self.program.slots
        assert plan is not None
        quantize = None if base is None else TableQuantizer(plan, base)

        def quantizer(index: int, x: Array, axis: int | None) -> Array:
            y = x if quantize is None else quantize(index, x, axis)
            for q in range(self.candidates):
                y = y + gates[q, index] * jax.lax.stop_gradient(features(q, index, x, axis))
            return y

        def gate(q: int, key: str) -> Array:
            index = slots[key].owner
            assert index is not None
            return gates[q, index]

        along = {
            key: tuple((gate(q, key), weights[q][key]) for q in range(self.candidates))
            for key in (weights[0] if weights else ())
        }
        return self.program.run(packed, quantizer, feeds, directions=along)


def quantization_errors(runner: Runner, tables: Sequence[Table]) -> WeightDirections:
    """Return ``Q(w) - w`` of every weight with a quantizer, packed, per table.

    And how far the biases move that were fitted with it.
    """
    plain = runner.float_weights.weights
    keys = [key for key, slot in runner.program.slots.items() if slot.owner is not None]
    out = []
    for t in tables:
        packed = runner.pack(t).weights
        out.append({key: _difference(packed[key], plain[key]) for key in keys})
    return out


def _difference(a: Array, b: Array) -> Array:
    """Subtract on the host: on the device it would be a program to compile for every shape.

    Masks count as in `error_direction`.
    """
    first, second = np.asarray(a), np.asarray(b)
    known = np.abs(second) < INFINITE
    found = np.subtract(first, second, where=known, out=np.zeros_like(second))
    return jax.device_put(found, b.sharding)


def error_direction(program: Program, tables: Sequence[Table]) -> FeatureDirection:
    """Return the direction ``Q(x) - x`` under each table."""
    assert program.plan is not None
    quantizers = [
        TableQuantizer(program.plan, dataclasses.replace(t, gate=jnp.ones_like(t.gate)))
        for t in tables
    ]

    def direction(q: int, index: int, x: Array, axis: int | None) -> Array:
        # An infinity (a mask) has no finite error, and no gradient reaches it.
        return jnp.where(jnp.abs(x) < INFINITE, quantizers[q](index, x, axis) - x, 0.0)

    return direction
