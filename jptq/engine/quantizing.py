"""What a table does to a program: tensors on their grids, sums within the target's integers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from jax import Array, lax

from jptq.engine import layouts
from jptq.numerics.fake_quant import fake_quant
from jptq.numerics.integers import within
from jptq.ops import BIAS
from jptq.quant.assign import Table
from jptq.quant.plan import Plan, Sum

if TYPE_CHECKING:
    from jptq.engine.program import Step

_INT8_STEPS = 255
_CHANNELS = 1

Quantizer = Callable[[int, Array, int | None], Array]
"""``quantizer(calibration index, tensor, channel axis) -> tensor``."""


class TableQuantizer:
    """Applies a table to tensors and, where a plan is strict, to sums of products.

    Args:
      plan: The quantizers and the sums.
      table: Precision and thresholds.
      watched: Nodes of `Plan.sums` whose sums are kept in `seen`.

    Attributes:
      seen: ``{node: float32[3]}`` of `watched` nodes that have run, in steps of the product: the
        largest magnitude of a sum of products, of that with the bias, and the largest sum of the
        magnitudes of both.
    """

    def __init__(self, plan: Plan, table: Table, watched: Collection[str] = ()) -> None:
        self.plan = plan
        self.table = table
        self.watched = frozenset(watched)
        self.seen: dict[str, Array] = {}

    def __call__(self, index: int, x: Array, axis: int | None) -> Array:
        """Return a tensor on the grid of a quantizer."""
        start, stop = self.plan.offsets[index], self.plan.offsets[index + 1]
        shape = [1] * x.ndim
        if axis is not None and stop - start > 1:
            shape[axis] = stop - start
        table = self.table
        return fake_quant(
            x,
            *(
                lax.reshape(lax.slice(v, (start,), (stop,)), shape)
                for v in (table.scale, table.offset)
            ),
            *(
                lax.reshape(lax.slice(v, (index,), (index + 1,)), ())
                for v in (table.lower, table.upper, table.gate)
            ),
        )

    def step(self, step: Step, operands: list[Any]) -> tuple[Any, ...] | None:
        """Return the results of a step that is no plain function of its operands here, else None.

        Every step is where the plan is not strict and nothing is watched.
        """
        one = self._sums.get(step.node)
        if one is not None and (self.plan.strict or one.node in self.watched):
            return self._product(one, step, operands)
        one = self._adders.get(step.node)
        if one is not None and self.plan.strict:
            return self._added(one, step, operands)
        return None

    @cached_property
    def _sums(self) -> Mapping[str, Sum]:
        return {one.node: one for one in self.plan.sums}

    @cached_property
    def _adders(self) -> Mapping[str, Sum]:
        return {one.adder: one for one in self.plan.sums if one.adder}

    def _product(self, one: Sum, step: Step, operands: list[Any]) -> tuple[Any, ...]:
        assert step.function is not None
        bias = operands[BIAS] if len(operands) > BIAS else None
        without: list[None] = [None] * len(operands[BIAS:])
        alone = operands[:BIAS]
        (y,) = step.function(*alone, *without)
        perm = step.perms[0]
        unit, exact = self._unit(one, perm, y.ndim), self._integral(one)
        added = None if bias is None else _along_channels(bias * one.bias_factor, perm)
        sums = jnp.round(y / unit)
        steps = None if added is None else self._bias(one, added / unit)
        if one.node in self.watched:
            whole = sums if steps is None else sums + steps
            (parts,) = step.function(*(jnp.abs(operand) for operand in alone), *without)
            magnitudes = jnp.abs(parts / unit) + (0.0 if steps is None else jnp.abs(steps))
            largest = jnp.stack([jnp.max(jnp.abs(v)) for v in (sums, whole, magnitudes)])
            self.seen[one.node] = jnp.where(exact, largest, 0.0)
        plain = y if added is None else y + added
        if not self.plan.strict:
            return (plain,)
        total = self._within(one, sums)
        if steps is not None:
            total = self._within(one, total + steps)
        return (jnp.where(exact, total * unit, plain),)

    def _added(self, one: Sum, step: Step, operands: list[Any]) -> tuple[Any, ...]:
        """Add the bias of a product that has a node of its own."""
        assert step.function is not None
        (plain,) = step.function(*operands)
        place = next(i for i, operand in enumerate(step.operands) if not operand.value)
        bias, y = operands[place], operands[1 - place]
        unit = self._unit(one, step.perms[0], plain.ndim)
        total = self._within(one, jnp.round(y / unit) + self._bias(one, bias / unit))
        return (jnp.where(self._integral(one), total * unit, plain),)

    def _unit(self, one: Sum, perm: layouts.Perm, rank: int) -> Array:
        """Return what a step of the sum stands for, to broadcast with a result in an order."""
        scale, offsets = jnp.asarray(self.table.scale), self.plan.offsets
        features = scale[offsets[one.features] : offsets[one.features + 1]]
        weights = jnp.tile(scale[offsets[one.weights] : offsets[one.weights + 1]], one.groups)
        unit = one.factor * weights * (features if one.depthwise else features[0])
        # A product of tiny scales is no float32 any more; nothing that it multiplies is either.
        unit = jnp.maximum(unit, jnp.finfo(jnp.float32).tiny)
        shape = [1] * rank
        if unit.size > 1:
            axis = _CHANNELS if one.axis is None else one.axis
            shape[layouts.axis_position(axis, perm)] = unit.size
        return jnp.reshape(unit, shape)

    def _integral(self, one: Sum) -> Array:
        """Tell whether the table makes integers of a sum: both operands are, with one unit."""
        table, offsets = self.table, self.plan.offsets
        on = jnp.asarray(True)
        for k in (one.features, one.weights):
            on &= (table.gate[k] > 0) & (table.lower[k] < table.upper[k])
        features = jnp.asarray(table.scale)[offsets[one.features] : offsets[one.features + 1]]
        return on if one.depthwise else on & (jnp.max(features) == jnp.min(features))

    def _bias(self, one: Sum, steps: Array) -> Array:
        """Return a bias as the target's integers hold it, by the types of the operands."""
        assert self.plan.integers is not None
        rounded = jnp.round(steps)
        kept = [within(rounded, width.value, wraps=False) for width in self.plan.integers.biases]
        return self._by_types(one, kept)

    def _within(self, one: Sum, sums: Array) -> Array:
        """Return sums likewise."""
        integers = self.plan.integers
        assert integers is not None
        return self._by_types(
            one, [within(sums, width.value, wraps=integers.wraps) for width in integers.sums]
        )

    def _by_types(self, one: Sum, values: Sequence[Array]) -> Array:
        """Return one of three values, by how many operands of a product are int16."""
        table = self.table
        first, second = (
            table.upper[k] - table.lower[k] > _INT8_STEPS for k in (one.features, one.weights)
        )
        return jnp.where(first & second, values[2], jnp.where(first | second, values[1], values[0]))


def _along_channels(bias: Array, perm: layouts.Perm) -> Array:
    """Return a bias to broadcast with a result in an order; a convolution's is a vector."""
    if bias.ndim != 1 or len(perm) <= BIAS:
        return bias
    shape = [1] * len(perm)
    shape[layouts.axis_position(_CHANNELS, perm)] = bias.size
    return jnp.reshape(bias, shape)
